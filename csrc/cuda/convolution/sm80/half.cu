#include "cuda/convolution/sm80/launch.cuh"

namespace sspcab::cuda {
template Launchers sm80_launchers<Arithmetic::Half>();
template int sm80_loaded_capability<Arithmetic::Half>();
}  // namespace sspcab::cuda
