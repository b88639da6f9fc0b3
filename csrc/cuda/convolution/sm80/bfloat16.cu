#include "cuda/convolution/sm80/launch.cuh"

namespace sspcab::cuda {
template Launchers sm80_launchers<Arithmetic::BFloat16>();
}
