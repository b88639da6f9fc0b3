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

// The same in clusters of neighbouring blocks, of which one fills a processor.
template <class... Parameters, class... Arguments>
void launch_clusters(void (*kernel)(Parameters...), int64_t blocks, int threads,
                     size_t shared_bytes, int64_t cluster, cudaStream_t stream,
                     const Arguments&... arguments) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared_bytes)),
             "shared memory");
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(blocks);
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  check_cuda(cudaLaunchKernelEx(&config, kernel, arguments...), "launch");
}

}  // namespace sspcab::cuda
