// Masked convolution as an implicit matrix product over a padded image.
//
// A chunk is up to 128 neighbouring pixels; a tile is up to two vectors of output channels. For
// each chunk and tile, runs of up to kMaxRun pixels of one row are accumulated in registers: every
// step of the inner loop broadcasts one input channel of each pixel of the run and multiplies it
// with a row of the panel. All pixels of a run lie at constant distances from each other in the
// padded image, and each tap at a constant offset from the pixel, so the loop holds no index
// arithmetic. Sums wait in the scratch while the panel is walked through in parts that stay in the
// second-level cache; then the whole chunk is finished (bias, ReLU, sums or the direct term of the
// loss) and written in the layout and type of the result.
#pragma once

constexpr int64_t kChunk = 128;
constexpr int64_t kPartBytes = 128 << 10;   // of a panel, walked through by all runs of a chunk
constexpr int64_t kGroupBytes = 512 << 10;  // of panels, walked through by one chunk after another

template <class T, int Run, int Vectors>
void accumulate_run(const T* pixel, int64_t block_stride, const int64_t* tap_offsets, int64_t taps,
                    const T* panel, int64_t blocks, int64_t channels_of_last, bool first,
                    T* __restrict sums) {
  constexpr int64_t lanes = kLanes<T>;
  Vector<T> sum[Run][Vectors];
  for (int r = 0; r < Run; ++r) {
    for (int v = 0; v < Vectors; ++v) {
      sum[r][v] = first ? Vector<T>{} : load(sums + (r * Vectors + v) * lanes);
    }
  }
  for (int64_t b = 0; b < blocks; ++b, pixel += block_stride) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      const T* source = pixel + tap_offsets[tap];
      const auto step = [&](int64_t c) __attribute__((always_inline)) {
        Vector<T> weight[Vectors];
        for (int v = 0; v < Vectors; ++v) weight[v] = load(panel + v * lanes);
        panel += Vectors * lanes;
#pragma GCC unroll 16
        for (int r = 0; r < Run; ++r) {
#pragma GCC unroll 2
          for (int v = 0; v < Vectors; ++v) sum[r][v] += source[r * kBlock + c] * weight[v];
        }
      };
      if (b + 1 < blocks || channels_of_last == kBlock) {
#pragma GCC unroll 4
        for (int64_t c = 0; c < kBlock; ++c) step(c);
      } else {
        for (int64_t c = 0; c < channels_of_last; ++c) step(c);
      }
    }
  }
  for (int r = 0; r < Run; ++r) {
    for (int v = 0; v < Vectors; ++v) store(sums + (r * Vectors + v) * lanes, sum[r][v]);
  }
}

template <class T>
using AccumulateRun = void (*)(const T*, int64_t, const int64_t*, int64_t, const T*, int64_t,
                               int64_t, bool, T*);

template <class T, int Vectors, int... Index>
AccumulateRun<T> accumulate_run_of(int64_t run, std::integer_sequence<int, Index...>) {
  static constexpr AccumulateRun<T> table[] = {accumulate_run<T, Index + 1, Vectors>...};
  return table[run - 1];
}

// Neighbouring pixels [first, first + count) of the image, within one row or in whole rows.
struct Chunk {
  int64_t first, count;
};

// Adds `blocks` blocks of input channels, from block `block` on, to the sums of a chunk.
template <class D, int Vectors>
void accumulate_chunk(const Convolution<D>& conv, const Chunk& chunk, int64_t block, int64_t blocks,
                      const Compute<D>* panel, Compute<D>* sums) {
  using T = Compute<D>;
  const int64_t width = conv.sample.width;
  const int64_t last = conv.sample.channels - (block + blocks - 1) * kBlock;
  const int64_t block_stride = conv.input.block_stride();
  for (int64_t done = 0; done < chunk.count;) {
    const int64_t row = (chunk.first + done) / width;
    int64_t column = (chunk.first + done) % width;
    int64_t left = std::min(width - column, chunk.count - done);
    done += left;
    for (int64_t runs = divide_up(left, kMaxRun); runs > 0; --runs) {
      const int64_t run = divide_up(left, runs);  // equal lengths, give or take one pixel
      accumulate_run_of<T, Vectors>(run, std::make_integer_sequence<int, kMaxRun>{})(
          conv.input.at(row, column) + block * block_stride, block_stride, conv.tap_offsets,
          conv.taps, panel, blocks, std::min(last, kBlock), block == 0, sums);
      sums += run * Vectors * kLanes<T>;
      column += run;
      left -= run;
    }
  }
}

// Calls finish(sum, parameter, offset, width) for every vector of results of a chunk, stores what
// it returns at the offset, and adds that to the channels' totals. Parameter and totals may be null.
template <class D, int Vectors, class Finish>
void finish_chunk(const Convolution<D>& conv, const Chunk& chunk, int64_t first_channel,
                  const Compute<D>* sums, const Compute<D>* parameter, D* result,
                  Compute<D>* totals, const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>;
  const Sample& s = conv.sample;
  for (int64_t v = 0; v < Vectors; ++v) {
    const int64_t channel = first_channel + v * lanes;
    if (channel >= s.channels) break;
    const T* rows = sums + v * lanes;
    const auto channels_in_lanes = [&](auto width) {
      const Vector<T> p = parameter ? load(parameter + channel, width) : Vector<T>{};
      Vector<T> total{};
      for (int64_t i = 0; i < chunk.count; ++i) {
        const int64_t offset = (chunk.first + i) * s.channels + channel;
        const Vector<T> value = finish(load(rows + i * Vectors * lanes), p, offset, width);
        store(result + offset, value, width);
        total += value;
      }
      if (totals) store(totals + channel, load(totals + channel, width) + total, width);
    };
    const auto pixels_in_lanes = [&] {
      const int64_t channels = std::min(lanes, s.channels - channel);
      Vector<T> total[lanes] = {};
      for_each_vector<T>(chunk.count, [&](int64_t i, auto width) {
        Vector<T> square[lanes];
        for (int64_t j = 0; j < lanes; ++j) square[j] = load(rows + (i + j) * Vectors * lanes);
        transpose<T>(square);
        for (int64_t j = 0; j < channels; ++j) {
          const int64_t offset = (channel + j) * s.pixels() + chunk.first + i;
          const Vector<T> p = broadcast(parameter ? parameter[channel + j] : T(0));
          const Vector<T> value = finish(square[j], p, offset, width);
          store(result + offset, value, width);
          total[j] += inside<T>(value, width);
        }
      });
      for (int64_t j = 0; totals && j < channels; ++j) {
        totals[channel + j] += sum_of_lanes<T>(total[j]);
      }
    };
    if (!s.channels_last) {
      pixels_in_lanes();
    } else if (channel + lanes <= s.channels) {
      channels_in_lanes(Full{});
    } else {
      channels_in_lanes(Partial{s.channels - channel});
    }
  }
}

template <class D, class Finish>
void convolve_rows(const Convolution<D>& conv, const Compute<D>* parameter, D* result,
                   Compute<D>* totals, const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t tile_width = 2 * kLanes<T>;
  const Sample& s = conv.sample;
  const int64_t depth = s.channels * conv.taps;  // of the matrix product
  const int64_t row_bytes = tile_width * sizeof(T);
  const int64_t part =
      std::max<int64_t>(1, kPartBytes / (kBlock * conv.taps * row_bytes));  // in blocks
  const int64_t group = std::max<int64_t>(1, kGroupBytes / (depth * row_bytes));  // in tiles
  const int64_t end = conv.rows.last * s.width;
  for (int64_t tiles = conv.first_tile; tiles < conv.last_tile; tiles += group) {
    for (Chunk chunk{conv.rows.first * s.width, 0}; chunk.first < end; chunk.first += chunk.count) {
      chunk.count = s.width < kChunk
                        ? std::min(kChunk / s.width * s.width, end - chunk.first)
                        : std::min(divide_up(s.width, divide_up(s.width, kChunk)),
                                   s.width - chunk.first % s.width);
      for (int64_t tile = tiles; tile < std::min(tiles + group, conv.last_tile); ++tile) {
        const T* panel = conv.panels + tile * tile_width * depth;
        const int64_t first_channel = tile * tile_width;
        const auto with_vectors = [&](auto vectors) {
          constexpr int count = decltype(vectors)::value;
          for (int64_t b = 0; b < s.blocks(); b += part) {
            accumulate_chunk<D, count>(conv, chunk, b, std::min(part, s.blocks() - b),
                                       panel + b * kBlock * conv.taps * count * kLanes<T>,
                                       conv.scratch);
          }
          finish_chunk<D, count>(conv, chunk, first_channel, conv.scratch, parameter, result,
                                 totals, finish);
        };
        if (panel_width<T>(s.channels, tile) == tile_width) {
          with_vectors(std::integral_constant<int, 2>{});
        } else {
          with_vectors(std::integral_constant<int, 1>{});
        }
      }
    }
  }
}

template <class D>
void convolve(const Convolution<D>& conv, const Compute<D>* bias, bool relu, D* y,
              Compute<D>* sums) {
  using T = Compute<D>;
  if (relu) {
    convolve_rows(conv, bias, y, sums, [](Vector<T> a, Vector<T> b, int64_t, auto) {
      return where_active<T>(a + b, a + b);
    });
  } else {
    convolve_rows(conv, bias, y, sums,
                  [](Vector<T> a, Vector<T> b, int64_t, auto) { return a + b; });
  }
}

template <class D>
void convolve_input_gradient(const Convolution<D>& conv, const OutputGradient<D>& g, D* grad_x) {
  using T = Compute<D>;
  if (g.loss_scale != 0) {
    convolve_rows(conv, g.gate, grad_x, static_cast<T*>(nullptr),
                  [&](Vector<T> a, Vector<T> gate, int64_t offset, auto width) {
                    return a - g.loss_scale *
                                   (load(g.y + offset, width) * gate - load(g.x + offset, width));
                  });
  } else {
    convolve_rows(conv, static_cast<const T*>(nullptr), grad_x, static_cast<T*>(nullptr),
                  [](Vector<T> a, Vector<T>, int64_t, auto) { return a; });
  }
}
