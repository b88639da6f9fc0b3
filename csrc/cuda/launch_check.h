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
  constexpr const char* remedy = "rebuild with this device's architecture in TORCH_CUDA_ARCH_LIST";
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
    text += std::string(". This build has no kernels for this device: ") + remedy;
  } else if (error == cudaErrorUnsupportedPtxVersion) {
    text += std::string(
                ". This build has no kernels for this device but as PTX, which is newer than the "
                "driver: update the driver, or ") +
            remedy;
  }
  throw std::runtime_error(text);
}

}  // namespace sspcab::cuda
