// G · gate + grad_mean: the gradient of the activation, masked, in channels_last and with the
// partial sums of the bias gradient; and the gradient of a scaled image.
#pragma once

#include "cuda/passes/output_gradient.cuh"
#include "cuda/passes/transpose.cuh"
#include "cuda/passes/walk.cuh"

namespace sspcab::cuda {

struct ActivationGradient {
  OutputGradient gradient;
  const void* grad_mean;  // W (N, C), null: 0
  bool relu, as_tf32;
  void* grad_a;     // D (N, H, W, C)
  void* bias_sums;  // W (bias_parts, C)
};

template <class D, int V>
__device__ D masked_gradient(const GradientReader<D>& reader, const GradientInputs<D, V>& in, int i,
                             Wide<D> gate, Wide<D> grad_mean, bool relu) {
  const Wide<D> grad = reader.gradient(in, i, gate) * gate + grad_mean;
  return narrow<D>(relu && widen(in.y[i]) <= 0 ? Wide<D>(0) : grad);
}

// With the nearest of the values that tensor cores take as TF32, where they will.
template <class D, int V>
__device__ void store_grad_a(D* to, Vector<D, V> grad_a, bool as_tf32) {
  if constexpr (std::is_same_v<D, float>) {
    for (int i = 0; i < V && as_tf32; ++i) grad_a[i] = nearest_tf32(grad_a[i]);
  }
  store_global(to, grad_a);
}

// channels_last. A block has one part of a sample's pixels and some channels, a thread its channels
// and every rows-th pixel of the part's; see Partition. Shared memory holds sums that threads hand
// over.
template <class D, int V>
__global__ void __launch_bounds__(kWalkThreads)
    activation_gradient_kernel(Partition partition, ActivationGradient task) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  constexpr int copies = kInFlight / 2;  // of three images
  const Walk<V, true> walk(partition);
  const GradientReader<D> reader(task.gradient, task.relu);
  const Vector<W, V> gate = walk.of_channels(static_cast<const W*>(task.gradient.gate), W(1));
  const Vector<W, V> grad_mean = walk.of_channels(static_cast<const W*>(task.grad_mean), W(0));
  Vector<W, V> sum = repeated<V>(W(0));
  for (int64_t first = 0; first < walk.steps; first += copies) {
    GradientInputs<D, V> in[copies];
#pragma unroll
    for (int j = 0; j < copies; ++j) {
      if (first + j < walk.steps) in[j] = reader.template inputs<V>(walk.offset(first + j));
    }
#pragma unroll
    for (int j = 0; j < copies; ++j) {
      if (first + j >= walk.steps) break;
      Vector<D, V> grad_a;
      for (int i = 0; i < V; ++i) {
        grad_a[i] = masked_gradient(reader, in[j], i, gate[i], grad_mean[i], task.relu);
        sum[i] += widen(grad_a[i]);
      }
      store_grad_a(static_cast<D*>(task.grad_a) + walk.offset(first + j), grad_a, task.as_tf32);
    }
  }
  const int64_t part = walk.n * partition.parts + walk.part;
  store_channel_sums(walk, partition, sum, static_cast<W*>(task.bias_sums) + part * walk.channels);
}

// NCHW. A block has one part of a sample's pixels and a tile's channels. A thread computes
// vectors of pixels of a channel into shared memory, and writes and adds up vectors of channels of
// a pixel out of it; see transpose.
template <class D, int VP, int VC>
__global__ void __launch_bounds__(kTransposeThreads, 3)
    transposed_activation_gradient_kernel(Transposition transposition, ActivationGradient task) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  using Tile = TransposedTile<D>;
  __shared__ Tile tiles[2];
  const TransposedPart part = transposition.part<D>(blockIdx.x);
  const GradientReader<D> reader(task.gradient, task.relu);
  const W* gates = static_cast<const W*>(task.gradient.gate);
  const W* grad_means = static_cast<const W*>(task.grad_mean);
  const int64_t sample = part.n * transposition.image.sample_numel();
  D* grad_a = static_cast<D*>(task.grad_a) + sample;
  Vector<W, VC> sum = repeated<VC>(W(0));
  transpose<VP, VC>(
      tiles, part,
      [&](int64_t pixel, int64_t channel) {
        const int64_t of_sample = part.n * part.channels + channel;
        const W gate = gates ? gates[of_sample] : W(1);
        const W grad_mean = grad_means ? grad_means[of_sample] : W(0);
        const auto in = reader.template inputs<VP>(sample + channel * part.pixels + pixel);
        Vector<D, VP> grad;
        for (int i = 0; i < VP; ++i) {
          grad[i] = masked_gradient(reader, in, i, gate, grad_mean, task.relu);
        }
        return grad;
      },
      [&](int64_t pixel, int64_t channel, const Vector<D, VC>& grad) {
        store_grad_a(grad_a + pixel * part.channels + channel, grad, task.as_tf32);
        for (int i = 0; i < VC; ++i) sum[i] += widen(grad[i]);
      });
  constexpr int lanes = Tile::kChannels / VC, rows = kTransposeThreads / lanes;
  __shared__ W handed[VC][kTransposeThreads];
  add_rows(sum, handed, lanes, rows);
  const int64_t channel = part.channel + threadIdx.x % lanes * VC;
  if (threadIdx.x < lanes && channel < part.channels) {
    const int64_t bias_part = part.n * transposition.parts + part.first / transposition.tile;
    store_wide(static_cast<W*>(task.bias_sums) + bias_part * part.channels + channel, sum);
  }
}

// Blocks and threads as in activation_gradient_kernel, for both layouts.
template <class D, int V, bool ChannelsLast>
__global__ void __launch_bounds__(kWalkThreads)
    scale_gradient_kernel(Partition partition, OutputGradient gradient, const Wide<D>* grad_means,
                          D* grad_x) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  const Walk<V, ChannelsLast> walk(partition);
  const GradientReader<D> reader(gradient, /*reads_y=*/false);
  const Vector<W, V> gate = walk.of_channels(static_cast<const W*>(gradient.gate), W(1));
  const Vector<W, V> grad_mean = walk.of_channels(grad_means, W(0));
  for (int64_t step = 0; step < walk.steps; ++step) {
    const GradientInputs<D, V> in = reader.template inputs<V>(walk.offset(step));
    Vector<D, V> grad;
    for (int i = 0; i < V; ++i) {
      grad[i] = masked_gradient(reader, in, i, gate[i], grad_mean[i], /*relu=*/false);
    }
    store_global(grad_x + walk.offset(step), grad);
  }
}

}  // namespace sspcab::cuda
