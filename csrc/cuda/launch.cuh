// Launching a kernel, checked.
#pragma once

#include <cuda_runtime.h>

#include "cuda/image.h"
#include "cuda/launch_check.h"

namespace sspcab::cuda {

// `blocks` is one-dimensional, up to 2³¹ - 1.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes,
            cudaStream_t stream, const Arguments&... arguments) {
  if (blocks > INT32_MAX) {
    throw std::runtime_error("sspcab: a launch has at most 2147483647 blocks; this image needs " +
                             std::to_string(blocks));
  }
  if (shared_bytes > 32 << 10) {  // beyond 48 KB, static memory included, it must be asked for
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)),
               "shared memory");
  }
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, stream>>>(arguments...);
  check_cuda(cudaGetLastError(), "launch");
}

}  // namespace sspcab::cuda
