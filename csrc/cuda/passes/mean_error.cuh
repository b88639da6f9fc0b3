// The mean of squared errors: each block leaves a part, the last block to do so adds up the parts.
#pragma once

#include "cuda/passes/walk.cuh"

namespace sspcab::cuda {

// A sum over the block's kWalkThreads; thread 0 has it.
__device__ inline double add_block(double sum) {
  constexpr int warps = kWalkThreads / 32;
  __shared__ double of_warps[warps];
  sum = add_lanes(sum, 32);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) sum = add_lanes(threadIdx.x < warps ? of_warps[threadIdx.x] : 0.0, 32);
  __syncthreads();  // of_warps may be written again
  return sum;
}

// `error`: the thread's. Which block is last changes nothing in the order of the sum.
template <class W>
__device__ void finish_mean(const MeanOfErrors& mean, double error) {
  __shared__ bool is_last;
  error = add_block(error);
  if (threadIdx.x == 0) {
    mean.errors[mean.earlier + blockIdx.x] = error;
    __threadfence();
    is_last = mean.loss && atomicAdd(mean.counter, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  double sum = 0;
  for (int64_t i = threadIdx.x; i < mean.earlier + gridDim.x; i += kWalkThreads) {
    sum += __ldcg(mean.errors + i);
  }
  sum = add_block(sum);
  if (threadIdx.x == 0) {
    *static_cast<W*>(mean.loss) = static_cast<W>(sum / static_cast<double>(mean.numel));
  }
}

// Σ (out - x)² of one copy: a few elements in W, everything beyond in double.
template <class D, int V>
__device__ double squared_error(const Vector<D, V>& out, const Vector<D, V>& x) {
  Wide<D> error = 0;
  for (int i = 0; i < V; ++i) {
    const Wide<D> difference = widen(out[i]) - widen(x[i]);
    error += difference * difference;
  }
  return error;
}

}  // namespace sspcab::cuda
