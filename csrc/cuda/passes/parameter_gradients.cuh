// Finishes every parameter's gradient from sums of earlier stages. Each result is a sum over
// splits, parts or samples, in order.
#pragma once

#include "cuda/passes/walk.cuh"
#include "cuda/passes/weight_tile.cuh"

namespace sspcab::cuda {

// How many blocks each kind of result has; a kind that isn't needed has none.
struct ParameterBlocks {
  int64_t weights;                   // of all corners, first in the launch
  int64_t bias, fc1_bias, fc2_bias;  // kBiasColumns results each
  int64_t fc1_weight, fc2_weight;    // kWeightThreads results each

  int64_t count() const { return weights + bias + fc1_bias + fc2_bias + fc1_weight + fc2_weight; }
};

constexpr int kBiasColumns = 8;  // a sector of float32

// Of `count` weights of a single tap, whose order stays.
template <int V, class W, class P>
__device__ void add_splits(const W* sums, int64_t splits, int64_t split_stride, int count, P* to) {
  for (int i = threadIdx.x * V; i < count; i += kWeightThreads * V) {
    Vector<W, V> sum = repeated<V>(W(0));
#pragma unroll 4
    for (int64_t split = 0; split < splits; ++split) {
      const Vector<W, V> term = load<V>(sums + split * split_stride + i);
      for (int j = 0; j < V; ++j) sum[j] += term[j];
    }
    Vector<P, V> gradient;
    for (int j = 0; j < V; ++j) gradient[j] = narrow<P>(sum[j]);
    store_global(to + i, gradient);
  }
}

template <class W, class P>
__device__ void finish_weights(const ParameterGradients& g, const WeightTiling& tiling,
                               int64_t block) {
  __shared__ W shared[WeightTile<W>::kShared];
  const WeightTile<W> tile(tiling, block, shared);
  if (g.grad_weights[tile.corner] == nullptr) return;
  P* to = static_cast<P*>(g.grad_weights[tile.corner]) + tile.first_pair * tiling.taps_per_corner +
          tile.first_tap;
  const W* sums = static_cast<const W*>(g.weight_sums) +
                  (tile.corner * tiling.taps_per_corner + tile.first_tap) * tiling.matrix +
                  tile.first_pair;
  const int64_t split_stride = 4 * tiling.taps_per_corner * tiling.matrix;
  if (tiling.taps_per_corner == 1) {
    constexpr int V = kVector<W>;
    return tiling.matrix % V == 0 ? add_splits<V>(sums, g.splits, split_stride, tile.pairs, to)
                                  : add_splits<1>(sums, g.splits, split_stride, tile.pairs, to);
  }
  W sum[kWeightItems] = {};
  for (int64_t split = 0; split < g.splits; ++split, sums += split_stride) {
    tile.for_each_by_pair(
        [&](int item, int pair, int tap) { sum[item] += sums[tap * tiling.matrix + pair]; });
  }
  tile.for_each_by_pair([&](int item, int pair, int tap) { tile.at(pair, tap) = sum[item]; });
  __syncthreads();
  tile.for_each_by_tap([&](int, int pair, int tap) {
    to[pair * tiling.taps_per_corner + tap] = narrow<P>(tile.at(pair, tap));
  });
}

// Columns of W (rows, columns).
template <class W, class P>
__device__ void finish_bias(const void* terms, int64_t rows, int64_t columns, void* gradient,
                            int64_t block) {
  __shared__ W handed[1][kWeightThreads];
  constexpr int shares = kWeightThreads / kBiasColumns;
  const int64_t column = block * kBiasColumns + threadIdx.x % kBiasColumns;
  Vector<W, 1> sum = {};
  if (column < columns) {
#pragma unroll 8
    for (int64_t row = threadIdx.x / kBiasColumns; row < rows; row += shares) {
      sum[0] += static_cast<const W*>(terms)[row * columns + column];
    }
  }
  add_rows(sum, handed, kBiasColumns, shares);
  if (threadIdx.x < kBiasColumns && column < columns) {
    static_cast<P*>(gradient)[column] = narrow<P>(sum[0]);
  }
}

// Σ over samples of grad (N, rows) ⊗ input (N, columns).
template <class W, class P>
__device__ void finish_dense(const void* grad, const void* input, int64_t samples, int64_t rows,
                             int64_t columns, void* gradient, int64_t block) {
  const int64_t i = block * kWeightThreads + threadIdx.x;
  if (i >= rows * columns) return;
  const int64_t row = i / columns, column = i - row * columns;
  const W* grads = static_cast<const W*>(grad) + row;
  const W* inputs = static_cast<const W*>(input) + column;
  W sum = 0;
#pragma unroll 8
  for (int64_t n = 0; n < samples; ++n) sum += grads[n * rows] * inputs[n * columns];
  static_cast<P*>(gradient)[i] = narrow<P>(sum);
}

// A block has results of one kind. Of weights, a tile whose splits its threads add up, one weight
// each, into shared memory and from there in the order of the parameter; of biases, kBiasColumns,
// for which each thread has a share of the terms; of dense layers, one for each thread.
template <class D, class P>
__global__ void __launch_bounds__(kWeightThreads)
    parameter_gradients_kernel(const __grid_constant__ ParameterGradients g, WeightTiling tiling,
                               ParameterBlocks blocks) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  int64_t block = blockIdx.x;
  const auto is_in = [&](int64_t count) {
    if (block < count) return true;
    block -= count;
    return false;
  };
  if (is_in(blocks.weights)) {
    finish_weights<W, P>(g, tiling, block);
  } else if (is_in(blocks.bias)) {
    finish_bias<W, P>(g.bias_sums, g.bias_parts, g.channels, g.grad_bias, block);
  } else if (is_in(blocks.fc1_bias)) {
    finish_bias<W, P>(g.grad_hidden_input, g.samples, g.hidden, g.grad_fc1_bias, block);
  } else if (is_in(blocks.fc2_bias)) {
    finish_bias<W, P>(g.grad_gate_input, g.samples, g.channels, g.grad_fc2_bias, block);
  } else if (is_in(blocks.fc1_weight)) {
    finish_dense<W, P>(g.grad_hidden_input, g.mean, g.samples, g.hidden, g.channels,
                       g.grad_fc1_weight, block);
  } else {
    finish_dense<W, P>(g.grad_gate_input, g.hidden_units, g.samples, g.channels, g.hidden,
                       g.grad_fc2_weight, block);
  }
}

}  // namespace sspcab::cuda
