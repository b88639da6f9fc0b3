// The masked convolution by Winograd's minimal filtering; cpu/winograd.h has the formula.
//
// A chunk is about 64 tiles of 2 × 2 outputs. Its inputs are transformed into 9 components, each of
// which is multiplied with the panels' component of the same number, in runs of tiles whose sums
// are in registers (convolution_run.h). Where the inputs of a chunk don't stay in the second-level
// cache beside all else, each part of them serves several tiles of output channels. The products
// then become sums, and are finished like those of the direct way (convolution_finish.h).
//
// Differences of infinities are NaN where the formula has an infinity. A pair of rows whose sums
// aren't all finite is computed again, directly.
#pragma once

// Products of one part of the inputs of all tiles, added up. Meanwhile the panel that comes next is
// asked for, in as many pieces as there are runs.
template <class T, int Vectors>
void multiply_part(const RunInput<T>& in, const T* next, int64_t tiles, T* products) {
  constexpr int64_t size = Vectors * kLanes<T>, line = 64 / sizeof(T);
  constexpr int64_t chain = kChain / kBlock;  // taps that are added one after another
  const int64_t panel = in.blocks * kBlock * in.panel_taps * size;
  const int64_t piece = divide_up(panel, divide_up(tiles, kMaxRun));
  RunInput<T> run = in;
  run.sum_stride = size;
  for_each_part(tiles, [&](int64_t first, int64_t count) {
    for (int64_t i = 0; next && i < piece; i += line) __builtin_prefetch(next + i);
    if (next) next += piece;
    run.pixel = in.pixel + first * in.pixel_stride;
    for (int64_t tap = 0; tap < in.panel_taps; tap += chain) {
      run.taps = in.taps + tap;
      run.tap_count = std::min(chain, in.panel_taps - tap);
      run.starts = in.starts && tap == 0;
      accumulate_run_of<T, Vectors>(count, std::make_integer_sequence<int, kMaxRun>{})(
          run, products + first * size);
    }
  });
}

// Products of one component of a chunk, [tile of output channels][component][tile][channel].
template <class D>
void multiply_component(const Convolution<D>& conv, const Winograd& winograd, int64_t tiles,
                        int64_t component, int64_t first_tile, int64_t last_tile,
                        const Compute<D>* inputs, Compute<D>* products) {
  using T = Compute<D>;
  constexpr int64_t width = 2 * kLanes<T>;
  const Sample& s = conv.sample;
  const int64_t taps = conv.sub_kernels.taps_per_corner();
  const auto panel = [&](int64_t tile, int64_t block) {
    const int64_t w = panel_width<T>(s.channels, tile);
    return conv.panels +
           ((tile * width * kComponents + component * w) * s.channels + block * kBlock * w) * taps;
  };
  RunInput<T> in;
  in.pixel_stride = winograd.tile_stride();
  in.pixel = inputs + component * winograd.parts() * tiles * in.pixel_stride;
  in.block_stride = kBlock;
  in.taps = conv.taps;
  in.panel_taps = taps;
  in.filter_stride = 0;
  const int64_t step = winograd.blocks_of_part();
  for (int64_t block = 0; block < s.blocks(); block += step, in.pixel += tiles * in.pixel_stride) {
    in.blocks = std::min(step, s.blocks() - block);
    in.channels_of_last = std::min(kBlock, s.channels - (block + in.blocks - 1) * kBlock);
    in.starts = block == 0;
    for (int64_t tile = first_tile; tile < last_tile; ++tile) {
      // One tile's panel lies in one piece, which the processor asks for by itself.
      const T* next = last_tile - first_tile == 1 ? nullptr
                      : tile + 1 < last_tile      ? panel(tile + 1, block)
                      : block + step < s.blocks() ? panel(first_tile, block + step)
                                                  : nullptr;
      const int64_t w = panel_width<T>(s.channels, tile);
      in.panel = panel(tile, block);
      (w == width ? multiply_part<T, 2>
                  : multiply_part<T, 1>)(in, next, tiles,
                                         products + (tile - first_tile) * winograd.products(width) +
                                             component * tiles * w);
    }
  }
}

template <class D, class Finish>
void convolve_pairs(const Convolution<D>& conv, const Compute<D>* parameter, D* result,
                    double* totals, const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t width = 2 * kLanes<T>;
  const Sample& s = conv.sample;
  const Winograd winograd(s, conv.sub_kernels);
  T* const inputs = conv.scratch + winograd.outputs(width);
  T* const products = inputs + winograd.inputs();
  const int64_t group = winograd.tiles_at_once(sizeof(T));
  winograd.for_each_chunk(conv.rows, [&](const Tiles& tiles) {
    transform_inputs(conv, winograd, tiles, inputs);
    for (int64_t first = conv.first_tile; first < conv.last_tile; first += group) {
      const int64_t last = std::min(first + group, conv.last_tile);
      // Anew for each group: what is computed directly uses their memory.
      for (int64_t t = 0; t < conv.sub_kernels.taps_per_corner(); ++t) {
        conv.taps[t] = {t * winograd.blocks_of_part() * kBlock, 0, t};
      }
      for (int64_t component = 0; component < kComponents; ++component) {
        multiply_component(conv, winograd, tiles.count(), component, first, last, inputs, products);
      }
      for (int64_t tile = first; tile < last; ++tile) {
        const T* const of_tile = products + (tile - first) * winograd.products(width);
        if (panel_width<T>(s.channels, tile) == width) {
          finish_tiles(Products<D, 2>{conv, winograd, tiles, tile, of_tile}, parameter, result,
                       totals, finish);
        } else {
          finish_tiles(Products<D, 1>{conv, winograd, tiles, tile, of_tile}, parameter, result,
                       totals, finish);
        }
      }
    }
  });
}
