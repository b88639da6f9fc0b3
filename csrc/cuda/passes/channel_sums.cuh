// Sums over the pixels of each sample and channel: of an image, or of G · y.
#pragma once

#include "cuda/passes/output_gradient.cuh"
#include "cuda/passes/pack_weights.cuh"
#include "cuda/passes/walk.cuh"

namespace sspcab::cuda {

// A block has one slot and some channels, a thread its channels and every rows-th pixel or
// lanes-th vector of pixels of the slot's; see Partition. Threads add up in chains, a block in a
// tree. Shared memory holds the sums that threads hand over (channels_last alone).
template <class D, int V, bool ChannelsLast>
__global__ void __launch_bounds__(kWalkThreads)
    channel_sums_kernel(Partition partition, ChannelSums sums, const D* x) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  const Walk<V, ChannelsLast> walk(partition);
  Vector<W, V> sum = repeated<V>(W(0));
#pragma unroll kInFlight
  for (int64_t step = 0; step < walk.steps; ++step) {
    const Vector<D, V> value = load<V>(x + walk.offset(step));
    for (int i = 0; i < V; ++i) sum[i] += widen(value[i]);
  }
  const int64_t slot = sums.slots.first(walk.n) + walk.part;
  store_channel_sums(walk, partition, sum, static_cast<W*>(sums.data) + slot * walk.channels);
}

// As above, in the first `blocks` blocks; those after them have a tile of the weights each.
static_assert(kWalkThreads == kWeightThreads);
template <class D, int V, bool ChannelsLast>
__global__ void __launch_bounds__(kWalkThreads, 1)
    gate_gradient_kernel(Partition partition, ChannelSums sums, OutputGradient gradient,
                         int64_t blocks, const __grid_constant__ Packing packing) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  if (blockIdx.x >= blocks) return transpose_weights<D>(packing, blockIdx.x - blocks);
  const Walk<V, ChannelsLast> walk(partition);
  const GradientReader<D> reader(gradient, /*reads_y=*/true);
  const Vector<W, V> gate = walk.of_channels(static_cast<const W*>(gradient.gate), W(1));
  Vector<W, V> sum = repeated<V>(W(0));
#pragma unroll kInFlight
  for (int64_t step = 0; step < walk.steps; ++step) {
    const GradientInputs<D, V> in = reader.template inputs<V>(walk.offset(step));
    for (int i = 0; i < V; ++i) sum[i] += reader.gradient(in, i, gate[i]) * widen(in.y[i]);
  }
  const int64_t slot = sums.slots.first(walk.n) + walk.part;
  store_channel_sums(walk, partition, sum, static_cast<W*>(sums.data) + slot * walk.channels);
}

}  // namespace sspcab::cuda
