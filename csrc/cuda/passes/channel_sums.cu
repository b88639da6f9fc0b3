#include "cuda/passes/channel_sums.cuh"

#include "cuda/launch.cuh"

namespace sspcab::cuda {

// As if every sample had a whole number of tiles: then no tile has pixels of two samples.
SumSlots channel_sum_slots(const Image& image) {
  const int64_t tile = Partition::tile_of(image);
  return {tile, divide_up(image.pixels(), tile) * tile};
}

void channel_sums(Dtype dtype, const Image& image, const void* x, const ChannelSums& sums,
                  cudaStream_t stream) {
  with_layout(dtype, image, [&](auto d, auto vector, auto channels_last) {
    using D = decltype(d);
    const Partition partition = Partition::of(image, vector);
    launch(channel_sums_kernel<D, vector, channels_last>, partition.blocks(), kWalkThreads, 0,
           stream, partition, sums, static_cast<const D*>(x));
  });
}

void gate_gradient(const OutputGradient& gradient, const Packing& packing,
                   const ChannelSums& grad_gate, cudaStream_t stream) {
  const WeightTransposition weights{gradient.image.channels, packing.taps_per_corner};
  const int64_t weight_blocks = packing.weights[0] ? weights.blocks() : 0;
  with_layout(gradient.dtype, gradient.image, [&](auto d, auto vector, auto channels_last) {
    const Partition partition = Partition::of(gradient.image, vector);
    launch(gate_gradient_kernel<decltype(d), vector, channels_last>,
           partition.blocks() + weight_blocks, kWalkThreads, 0, stream, partition, grad_gate,
           gradient, partition.blocks(), packing);
  });
}

}  // namespace sspcab::cuda
