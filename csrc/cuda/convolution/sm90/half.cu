#include "cuda/convolution/sm90/launch.cuh"

namespace sspcab::cuda {
template Launchers sm90_launchers<Arithmetic::Half>();
template bool sm90_is_loaded<Arithmetic::Half>();
}  // namespace sspcab::cuda
