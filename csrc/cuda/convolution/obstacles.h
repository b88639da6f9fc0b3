// Why a convolution doesn't take faster kernels; null where it can. What is_tiled and the plans'
// path go by.
#pragma once

#include "cuda/convolution/convolution.h"

namespace sspcab::cuda {

// To the pipeline of 8.0.
const char* obstacle_to_tiles(const Convolution& convolution, const Device& device);
// To the kernels of 9.0. `deep`: all but the gradients of the sub-kernels, whose operands lie the
// other way.
const char* obstacle_to_sm90(const Convolution& convolution, const Device& device, bool deep);

}  // namespace sspcab::cuda
