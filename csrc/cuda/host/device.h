// What the choice of kernels has to know of a device.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>

#include "cuda/convolution/convolution.h"
#include "cuda/convolution/launch.h"
#include "cuda/launch_check.h"

namespace sspcab::cuda {

// Of the current device; asking takes well under a microsecond.
inline Device current_device() {
  int index = 0, major = 0, minor = 0, processors = 0, cache_bytes = 0;
  check_cuda(cudaGetDevice(&index), "current device");
  for (const auto& [value, attribute] : {std::pair{&major, cudaDevAttrComputeCapabilityMajor},
                                         std::pair{&minor, cudaDevAttrComputeCapabilityMinor},
                                         std::pair{&processors, cudaDevAttrMultiProcessorCount},
                                         std::pair{&cache_bytes, cudaDevAttrL2CacheSize}}) {
    check_cuda(cudaDeviceGetAttribute(value, attribute, index), "device attribute");
  }
  // A device may have loaded code for an older one, which lacks the kernels of its own.
  const int capability = std::min(10 * major + minor, sm80_loaded_capability<Arithmetic::Half>());
  return {capability, processors, cache_bytes, runs_sm90(capability)};
}

}  // namespace sspcab::cuda
