// NCHW to channels_last, and sub-kernels (o, c, tap) to (tap, o, c) or (tap, c, o).
#pragma once

#include "cuda/passes/pack_weights.cuh"
#include "cuda/passes/transpose.cuh"

namespace sspcab::cuda {

constexpr int kPackThreads = kTransposeThreads;
static_assert(kPackThreads == kWeightThreads);

// The first blocks have a part of the image each, the others a tile of the weights. A thread copies
// vectors of pixels into shared memory and vectors of channels out of it; see transpose and
// WeightTile.
template <class D, class P, int VP, int VC>
__global__ void __launch_bounds__(kPackThreads, 4)
    pack_kernel(const __grid_constant__ Packing packing, Transposition transposition,
                int64_t image_blocks, WeightTiling tiling) {
  wait_for_earlier_launches();
  __shared__ union {
    TransposedTile<D> tiles[2];
    Wide<D> weights[WeightTile<Wide<D>>::kShared];
  } shared;
  if (blockIdx.x >= image_blocks) {
    const int64_t block = blockIdx.x - image_blocks;
    return packing.transposed ? transpose_weights<D, P>(packing, block, shared.weights)
                              : pack_weights<D, P>(packing, tiling, block, shared.weights);
  }
  const TransposedPart part = transposition.part<D>(blockIdx.x);
  const D* x = static_cast<const D*>(packing.x) + part.n * packing.image.sample_numel();
  D* packed = static_cast<D*>(packing.packed_x) + part.n * packing.image.sample_numel();
  transpose<VP, VC>(
      shared.tiles, part,
      [&](int64_t pixel, int64_t channel) { return load<VP>(x + channel * part.pixels + pixel); },
      [&](int64_t pixel, int64_t channel, const Vector<D, VC>& value) {
        store_global(packed + pixel * part.channels + channel, value);
      });
}

}  // namespace sspcab::cuda
