// Launching a kernel, checked; from 9.0 on, close upon the launch before it.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <utility>

#include "cuda/image.h"
#include "cuda/launch_check.h"

namespace sspcab::cuda {

// Of the code that the current device has loaded of a kernel. Asked once.
inline const cudaFuncAttributes& loaded_code(const void* kernel) {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "current device");
  thread_local std::map<std::pair<int, const void*>, cudaFuncAttributes> known;
  const std::pair key{device, kernel};
  if (const auto entry = known.find(key); entry != known.end()) return entry->second;
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, kernel), "launch");
  return known[key] = attributes;
}

// Whether that code has wait_for_earlier_launches in it: not what is compiled for 8.x, also where a
// later device takes it.
inline bool waits_for_earlier_launches(const void* kernel) {
  return loaded_code(kernel).ptxVersion >= 90;
}

// `blocks` is one-dimensional, up to 2³¹ - 1; `cluster` neighbouring ones of them share memory.
template <class... Parameters, class... Arguments>
void launch_clusters(void (*kernel)(Parameters...), int64_t blocks, int64_t cluster, int threads,
                     size_t shared_bytes, cudaStream_t stream, const Arguments&... arguments) {
  if (blocks > INT32_MAX) {
    throw std::runtime_error("sspcab: a launch has at most 2147483647 blocks; this image needs " +
                             std::to_string(blocks));
  }
  if (shared_bytes > 32 << 10) {  // beyond 48 KB, static memory included, it must be asked for
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)),
               "shared memory");
  }
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(blocks);
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (waits_for_earlier_launches(reinterpret_cast<const void*>(kernel))) {
    cudaLaunchAttribute& close = attributes[config.numAttrs++];
    close.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    close.val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    cudaLaunchAttribute& clusters = attributes[config.numAttrs++];
    clusters.id = cudaLaunchAttributeClusterDimension;
    clusters.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  }
  check_cuda(cudaLaunchKernelEx(&config, kernel, arguments...), "launch");
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes,
            cudaStream_t stream, const Arguments&... arguments) {
  launch_clusters(kernel, blocks, /*cluster=*/1, threads, shared_bytes, stream, arguments...);
}

}  // namespace sspcab::cuda
