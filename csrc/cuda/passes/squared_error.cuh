// The mean of (out - x)², and its gradient, where nothing else is computed. Layouts don't matter.
#pragma once

#include "cuda/passes/mean_error.cuh"

namespace sspcab::cuda {

// body(offset, std::integral_constant<int, elements>) for the elements [first, last), which is a
// range of 16-byte copies: a thread has every kWalkThreads-th copy; the last may be cut short.
template <class D, class Body>
__device__ void for_each_copy(int64_t first, int64_t last, Body&& body) {
  constexpr int V = kVector<D>;
  const int64_t whole = first + (last - first) / V * V;
#pragma unroll kInFlight
  for (int64_t i = first + threadIdx.x * V; i < whole; i += kWalkThreads * V) {
    body(i, std::integral_constant<int, V>{});
  }
  if (whole + threadIdx.x < last) body(whole + threadIdx.x, std::integral_constant<int, 1>{});
}

// A block has `chunk` neighbouring elements.
template <class D>
__global__ void __launch_bounds__(kWalkThreads)
    reconstruction_loss_kernel(MeanOfErrors mean, int64_t chunk, const D* out, const D* x) {
  wait_for_earlier_launches();
  const int64_t first = blockIdx.x * chunk, numel = mean.numel;
  double error = 0;
  for_each_copy<D>(first, first + chunk < numel ? first + chunk : numel,
                   [&](int64_t i, auto count) {
                     constexpr int n = decltype(count)::value;
                     error += squared_error(load<n>(out + i), load<n>(x + i));
                   });
  finish_mean<Wide<D>>(mean, error);
}

// As above.
template <class D>
__global__ void __launch_bounds__(kWalkThreads)
    reconstruction_loss_gradient_kernel(int64_t numel, int64_t chunk, const Wide<D>* grad_loss,
                                        const D* out, const D* x, D* grad_out) {
  wait_for_earlier_launches();
  const Wide<D> factor = *grad_loss * 2 / static_cast<Wide<D>>(numel);
  const int64_t first = blockIdx.x * chunk;
  for_each_copy<D>(first, first + chunk < numel ? first + chunk : numel,
                   [&](int64_t i, auto count) {
                     constexpr int n = decltype(count)::value;
                     const Vector<D, n> a = load<n>(out + i), b = load<n>(x + i);
                     Vector<D, n> grad;
                     for (int j = 0; j < n; ++j)
                       grad[j] = narrow<D>(factor * (widen(a[j]) - widen(b[j])));
                     store_global(grad_out + i, grad);
                   });
}

}  // namespace sspcab::cuda
