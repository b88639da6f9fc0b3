#include "cuda/convolution/sm90/launch.cuh"

namespace sspcab::cuda {
template Launchers sm90_launchers<Arithmetic::BFloat16>();
}
