// Tensor maps: what the tensor memory accelerator (TMA) has to know of an image or of filters.
#pragma once

#include <cuda.h>

#include "cuda/convolution/convolution.h"

namespace sspcab::cuda {

// Of boxes of 128 bytes of channels, whose rows are swizzled over the banks of shared memory.
// Float is rounded to TF32 on the way. Nothing is asked of the device.

// An image (N, H, W, C) whose boxes are `pixels` neighbours, through rows and samples, all moved by
// one tap: a box at (channel, column - reach, row - reach, sample) and (columns, rows) + reach of
// the tap. Pixels outside the image are zeros.
CUtensorMap moved_pixels_map(const Convolution& convolution, const void* image, int pixels);

// The same as a matrix (N · H · W, C).
CUtensorMap pixels_map(const Convolution& convolution, const void* image, int pixels);

// The filters (tap of the corner, C, C) of one corner, with boxes of `rows` of one filter.
CUtensorMap filters_map(const Convolution& convolution, int corner, int rows);

}  // namespace sspcab::cuda
