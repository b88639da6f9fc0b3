// Packing: images into blocks of 16 channels, weights into panels.
#pragma once

// Blocks of a weight's row to ask for in advance: there are more rows than the processor's own
// prefetcher follows.
constexpr int64_t kBlocksAhead = 2;

// body(first, last) for short pieces of a range of pixels.
constexpr int64_t kPiece = 32;
template <class Body>
inline void for_each_piece(int64_t first, int64_t last, Body&& body) {
  for (; first < last; first += kPiece) body(first, std::min(first + kPiece, last));
}

// The first `count` rows of a square, at most all, kBlock apart.
template <class T>
inline void store_rows(const Vector<T>* square, int64_t count, T* target) {
  for (int64_t i = 0; i < std::min(kLanes<T>, count); ++i) store(target + i * kBlock, square[i]);
}

// Neighbouring pixels of channels_last memory: a piece at a time, four blocks (256 bytes) wide.
template <class D>
void pack_channels_last(const D* image, const Sample& s, int64_t first_pixel, int64_t last_pixel,
                        int64_t block_stride, Compute<D>* target) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>, at_once = 4 * kBlock;
  for_each_piece(first_pixel, last_pixel, [&](int64_t first, int64_t last) {
    for (int64_t c0 = 0; c0 < s.blocks() * kBlock; c0 += at_once) {
      for (int64_t pixel = first; pixel < last; ++pixel) {
        const D* source = image + pixel * s.channels;
        T* p = target + (pixel - first_pixel) * kBlock;
        for (int64_t c = c0; c < std::min(c0 + at_once, s.blocks() * kBlock); c += lanes) {
          const int64_t inside = s.channels - c;
          T* block = p + c / kBlock * block_stride + c % kBlock;
          if (inside >= lanes) {
            store(block, load(source + c));
          } else {
            store(block, inside > 0 ? load(source + c, Partial{inside}) : Vector<T>{});
          }
        }
      }
    }
  });
}

// Neighbouring pixels of channels apart: square by square, along the pixels, which are contiguous.
template <class D>
void pack_channels_first(const D* image, const Sample& s, int64_t first_pixel, int64_t last_pixel,
                         int64_t block_stride, Compute<D>* target) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t c = 0; c < s.blocks() * kBlock; c += lanes) {
    const D* source = image + c * s.pixels() + first_pixel;
    T* block = target + c / kBlock * block_stride + c % kBlock;
    for_each_vector<T>(last_pixel - first_pixel, [&](int64_t pixel, auto width) {
      Vector<T> square[lanes];
      for (int64_t i = 0; i < lanes; ++i) {
        square[i] = c + i < s.channels ? load(source + i * s.pixels() + pixel, width) : Vector<T>{};
      }
      transpose<T>(square);
      store_rows<T>(square, last_pixel - first_pixel - pixel, block + pixel * kBlock);
    });
  }
}

template <class D>
void pack(const D* image, const Sample& s, Rows rows, const Blocked<Compute<D>>& blocked) {
  (s.channels_last ? pack_channels_last<D>
                   : pack_channels_first<D>)(image, s, rows.first * s.width, rows.last * s.width,
                                             blocked.block_stride(), blocked.at(rows.first, 0));
}

// Width of a tile's panel: two vectors, or one where one holds the rest of the channels.
template <class T>
int64_t panel_width(int64_t channels, int64_t tile) {
  return channels - tile * 2 * kLanes<T> > kLanes<T> ? 2 * kLanes<T> : kLanes<T>;
}

// Squares of weights are transposed: loads run along what lies side by side of one output channel's
// weights, inputs and taps or inputs alone, stores along the output channels.
template <class T>
void pack_panel_forward(const Weights<T>& weights, SubKernels kernels, int64_t channels,
                        int64_t tile, T* panel) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t width = panel_width<T>(channels, tile);
  const int64_t per_corner = kernels.taps_per_corner(), row_stride = channels * per_corner;
  const int64_t together = weights.tap_stride == 1 ? per_corner : 1;  // taps that lie side by side
  for (int64_t corner = 0; corner < 4; ++corner) {
    for (int64_t c0 = 0; c0 < channels; c0 += kBlock) {
      const int64_t inside = std::min(kBlock, channels - c0);
      for (int64_t first_tap = 0; first_tap < per_corner; first_tap += together) {
        for (int64_t v = 0; v < width; v += lanes) {
          const int64_t out = tile * 2 * lanes + v;
          const T* source = weights.corner[corner] + out * row_stride +
                            c0 * weights.channel_stride + first_tap * weights.tap_stride;
          for_each_vector<T>(inside * together, [&](int64_t q, auto part) {
            Vector<T> square[lanes];
            for (int64_t i = 0; i < lanes; ++i) {
              const T* row = source + i * row_stride + q;
              square[i] = out + i < channels ? load(row, part) : Vector<T>{};
              __builtin_prefetch(row + kBlocksAhead * kBlock * together);
            }
            transpose<T>(square);
            const int64_t count = std::min(lanes, inside * together - q);
            int64_t c = q / together, tap = q % together;
            for (int64_t i = 0; i < count; ++i) {
              store(panel + ((first_tap + tap) * inside + c) * width + v, square[i]);
              if (++tap == together) tap = 0, ++c;
            }
          });
        }
      }
      panel += per_corner * inside * width;
    }
  }
}

template <class T>
void pack_panel_mirrored(const Weights<T>& weights, SubKernels kernels, int64_t channels,
                         int64_t tile, T* panel) {
  const int64_t width = panel_width<T>(channels, tile);
  const int64_t per_corner = kernels.taps_per_corner();
  const int64_t first = tile * 2 * kLanes<T>, step = weights.channel_stride;
  const int64_t count = std::min(width, channels - first);
  for (int64_t corner = 0; corner < 4; ++corner) {
    for (int64_t c0 = 0; c0 < channels; c0 += kBlock) {
      for (int64_t tap = 0; tap < per_corner; ++tap) {
        for (int64_t c = c0; c < std::min(c0 + kBlock, channels); ++c, panel += width) {
          const T* source = weights.corner[corner] + c * channels * per_corner + first * step +
                            tap * weights.tap_stride;
          if (step == 1) {
            memcpy(panel, source, count * sizeof(T));
          } else {
            for (int64_t i = 0; i < count; ++i) panel[i] = source[i * step];
          }
          for (int64_t i = count; i < width; ++i) panel[i] = 0;
        }
      }
    }
  }
}

template <class T>
void pack_panel(const Weights<T>& weights, SubKernels kernels, int64_t channels, bool mirrored,
                int64_t tile, T* panel) {
  (mirrored ? pack_panel_mirrored<T> : pack_panel_forward<T>)(weights, kernels, channels, tile,
                                                              panel);
}
