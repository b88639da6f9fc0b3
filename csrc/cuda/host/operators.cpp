// The operators on CUDA.
#include "cuda/host/operators.h"

#include "cuda/host/masked_convolution.h"
#include "operators/operators.h"

namespace sspcab::cuda {

void Cuda::check_config(int64_t config) {
  check(config >= kAutomatic && config <= kPlain, "config must be -1 (automatic), 0 to ",
        kConfigs - 1, " (tiles) or ", kPlain, " (plain kernels); got ", config);
}

}  // namespace sspcab::cuda

STABLE_TORCH_LIBRARY_IMPL(sspcab, CUDA, m) { sspcab::register_operators<sspcab::cuda::Cuda>(m); }
