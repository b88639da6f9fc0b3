// Launching a kernel, checked. Launch errors are thrown as std::runtime_error.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "cuda/image.h"

namespace sspcab::cuda {

inline void check(cudaError_t error, const char* what) {
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

// `blocks` is one-dimensional, up to 2³¹ - 1.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes,
            cudaStream_t stream, const Arguments&... arguments) {
  if (blocks > INT32_MAX) {
    throw std::runtime_error("sspcab: the image is too large for one launch, " +
                             std::to_string(blocks) + " blocks");
  }
  if (shared_bytes > 32 << 10) {  // beyond 48 KB, static memory included, it must be asked for
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          "shared memory");
  }
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, stream>>>(arguments...);
  check(cudaGetLastError(), "launch");
}

}  // namespace sspcab::cuda
