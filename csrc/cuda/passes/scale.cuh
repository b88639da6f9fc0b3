// out = y · gate, and the mean of (out - x)².
#pragma once

#include "cuda/passes/mean_error.cuh"

namespace sspcab::cuda {

// A block has one part of a sample's pixels and some channels, a thread its channels, with their
// gates in registers, and every rows-th pixel or lanes-th vector of pixels of the part's; see
// Partition. y may lie in the memory of out: a thread writes only what it has read before.
template <class D, int V, bool ChannelsLast, bool WithLoss>
__global__ void __launch_bounds__(kWalkThreads)
    scale_kernel(Partition partition, MeanOfErrors mean, const D* y, const Wide<D>* gates,
                 const D* x, D* out) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  const Walk<V, ChannelsLast> walk(partition);
  const Vector<W, V> gate = walk.of_channels(gates, W(1));
  double error = 0;
  for (int64_t first = 0; first < walk.steps; first += kInFlight) {
    Vector<D, V> from[kInFlight], target[kInFlight];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      if (first + j >= walk.steps) break;
      from[j] = load<V>(y + walk.offset(first + j));
      if constexpr (WithLoss) target[j] = load<V>(x + walk.offset(first + j));
    }
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      if (first + j >= walk.steps) break;
      Vector<D, V> scaled;
      for (int i = 0; i < V; ++i) scaled[i] = narrow<D>(widen(from[j][i]) * gate[i]);
      store_global(out + walk.offset(first + j), scaled);
      if constexpr (WithLoss) error += squared_error(scaled, target[j]);
    }
  }
  if constexpr (WithLoss) {
    finish_mean<W>(mean, error);
  } else if (mean.loss && blockIdx.x == 0 && threadIdx.x == 0) {
    *static_cast<W*>(mean.loss) = nan("");
  }
}

}  // namespace sspcab::cuda
