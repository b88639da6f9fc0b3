// CUDA errors as std::runtime_error.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace sspcab::cuda {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // a sticky error stays; any other is reported once, here
  std::string text = std::string("sspcab: ") + what + ": " + cudaGetErrorString(error);
  if (error == cudaErrorNoKernelImageForDevice) {
    text +=
        ". This build has no kernels for this device: rebuild with its architecture in "
        "TORCH_CUDA_ARCH_LIST";
  }
  throw std::runtime_error(text);
}

}  // namespace sspcab::cuda
