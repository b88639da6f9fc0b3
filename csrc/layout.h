// Memory layouts of images, the same on every device; fakes.py says the same of fake tensors.
#pragma once

#include "stable_compat.h"

namespace sspcab {

// The layout of results. An image counts as channels_last when its channels are neighbours in
// memory, also where it is a slice of a bigger one.
inline bool is_channels_last(const Tensor& x) { return !x.is_contiguous() && x.stride(1) == 1; }

inline bool is_dense(const Tensor& t, bool channels_last) {
  if (!channels_last) return t.is_contiguous();
  int64_t stride = 1;
  for (int64_t dim : {1, 3, 2, 0}) {
    if (t.size(dim) != 1 && t.stride(dim) != stride) return false;
    stride *= t.size(dim);
  }
  return true;
}

inline Tensor dense_copy(const Tensor& t, bool channels_last) {
  Tensor copy = empty(t, shape_of(t), t.scalar_type(), channels_last);
  torch::stable::copy_(copy, t);
  return copy;
}

// The dtype of sums, gates and the loss.
inline ScalarType wide_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace sspcab
