// The masked convolution by Winograd's minimal filtering; cpu/geometry/winograd.h has the formula.
//
// A chunk is about 64 tiles of 2 × 2 outputs. Its inputs are transformed into 9 components, each of
// which is multiplied with the panels' component of the same number (winograd_products.h). Where
// the inputs of a chunk don't stay in the second-level cache beside all else, each part of them
// serves several tiles of output channels. The products then become sums, and are finished like
// those of the direct way (finish.h).
//
// Differences of infinities are NaN where the formula has an infinity. A pair of rows whose sums
// aren't all finite is computed again, directly.
#pragma once

template <class D, class Finish>
void convolve_pairs(const Share<D>& share, const Compute<D>* parameter, D* result, double* totals,
                    const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t width = 2 * kLanes<T>;
  const Sample& s = share.sample;
  const Winograd winograd(s, share.sub_kernels);
  T* const inputs = share.scratch + winograd.outputs(width);
  T* const products = inputs + winograd.inputs();
  const int64_t group = winograd.tiles_at_once(sizeof(T));
  winograd.for_each_chunk(share.rows, [&](const Tiles& tiles) {
    transform_inputs(share, winograd, tiles, inputs);
    for (int64_t first = share.first_tile; first < share.last_tile; first += group) {
      const int64_t last = std::min(first + group, share.last_tile);
      for (int64_t component = 0; component < kComponents; ++component) {
        multiply_component(share, winograd, tiles.count(), component, first, last, inputs,
                           products);
      }
      for (int64_t tile = first; tile < last; ++tile) {
        const T* const of_tile = products + (tile - first) * winograd.products(width);
        if (panel_width<T>(s.channels, tile) == width) {
          finish_tiles(Products<D, 2>{share, winograd, tiles, tile, of_tile}, parameter, result,
                       totals, finish);
        } else {
          finish_tiles(Products<D, 1>{share, winograd, tiles, tile, of_tile}, parameter, result,
                       totals, finish);
        }
      }
    }
  });
}
