#include "cuda/convolution_launch.cuh"

namespace sspcab::cuda {
SSPCAB_DEFINE_LAUNCHER(BFloat16TensorCores)
}
