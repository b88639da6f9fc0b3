// The masked convolution and its gradients in plain, slow kernels, one thread a result: the truth
// on the device, and the way for sizes and devices that the pipeline doesn't take. No torch.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/convolution/convolution.h"

namespace sspcab::cuda {

struct PlainConvolution {
  Dtype dtype, parameter_dtype;
  Image image;  // of x, y and grad_x; grad_a is (N, H, W, C)
  SubKernels sub_kernels;
  const void* weights[4];  // P (C, C, k', k')
};

// Of `forward`, x is in the layout of the image, and sums stay untouched.
void plain_convolve(const PlainConvolution& convolution, const Forward& forward,
                    cudaStream_t stream);
void plain_input_gradient(const PlainConvolution& convolution, const InputGradient& gradient,
                          cudaStream_t stream);
// Of `gradient`, x is in the layout of the image; one split of sums.
void plain_weight_gradient(const PlainConvolution& convolution, const WeightGradient& gradient,
                           cudaStream_t stream);

}  // namespace sspcab::cuda
