#include "cuda/passes/pack.cuh"

#include "cuda/launch.cuh"

namespace sspcab::cuda {

void pack(const Packing& packing, cudaStream_t stream) {
  if (!packing.x && !packing.weights[0]) return;
  const Image& image = packing.image;
  const WeightTiling tiling = WeightTiling::of(image.channels, packing.taps_per_corner);
  const WeightTransposition transposed{image.channels, packing.taps_per_corner};
  const int64_t weight_blocks = !packing.weights[0]  ? 0
                                : packing.transposed ? transposed.blocks()
                                                     : tiling.blocks();
  with_types(packing.dtype, packing.parameter_dtype, [&](auto d, auto p) {
    using D = decltype(d);
    const Transposition transposition = Transposition::of<D>(image);
    const int64_t image_blocks = packing.x ? transposition.blocks() : 0;
    with_copies<D>(image, [&](auto pixels, auto channels) {
      launch(pack_kernel<D, decltype(p), pixels, channels>, image_blocks + weight_blocks,
             kPackThreads, 0, stream, packing, transposition, image_blocks, tiling);
    });
  });
}

}  // namespace sspcab::cuda
