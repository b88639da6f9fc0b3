// The operators on CUDA.
#include "cuda/host/operators.h"

#include "operators/operators.h"

STABLE_TORCH_LIBRARY_IMPL(sspcab, CUDA, m) { sspcab::register_operators<sspcab::cuda::Cuda>(m); }
