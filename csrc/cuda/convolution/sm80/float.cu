#include "cuda/convolution/sm80/launch.cuh"

namespace sspcab::cuda {
template struct Launcher<Arithmetic::Float>;
}
