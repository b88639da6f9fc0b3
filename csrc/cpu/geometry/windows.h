// The windows of the four corners, for images with few pixels and many channels.
//
// All outputs that some tap of one corner reaches form a rectangle, as large for every corner: the
// corner's window. With its pixels side by side, the corner's part of the convolution is a product
// of matrices, whose larger factor is the sub-kernel as it lies in memory, (C, C·k'²): nothing of
// it is packed, transposed or read twice. Likewise the gradients, with x̃ the inputs of all taps and
// g the gradient of the convolution in the window:
//
//   a += K · x̃          x̃ and grad_x̃ are (C·k'², pixels), a and g (C, pixels)
//   grad_x̃ = Kᵀ · g
//   grad_K = g · x̃ᵀ
#pragma once

#include <algorithm>

#include "cpu/geometry/image.h"
#include "geometry.h"

namespace sspcab::cpu {

class Windows {
 public:
  Windows(const Sample& s, SubKernels sub_kernels)
      : sample_(s),
        sub_kernels_(sub_kernels),
        rows_(reached(s.height, sub_kernels)),
        columns_(reached(s.width, sub_kernels)) {}

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t pixels() const { return rows_ * columns_; }
  // Of the window in the image of outputs.
  int64_t first_row(int64_t corner) const {
    return sub_kernels_.row(corner, 0) < 0 ? sample_.height - rows_ : 0;
  }
  int64_t first_column(int64_t corner) const {
    return sub_kernels_.column(corner, 0) < 0 ? sample_.width - columns_ : 0;
  }

  // From a row of a matrix to the next: room for whole vectors, and an odd number of cache lines,
  // lest the rows meet in the same places of the cache.
  static int64_t stride(int64_t columns) {
    return divide_up(columns + kBlock, 2 * kBlock) * 2 * kBlock + kBlock;
  }

 private:
  static int64_t reached(int64_t size, SubKernels sub_kernels) {
    return sub_kernels.dilation < size ? size - 1 - sub_kernels.dilation : 0;
  }

  Sample sample_;
  SubKernels sub_kernels_;
  int64_t rows_, columns_;
};

}  // namespace sspcab::cpu
