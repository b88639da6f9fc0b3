#include "cuda/convolution_launch.cuh"

namespace sspcab::cuda {
template struct Launcher<Arithmetic::Double>;
}
