// The only file that works around gaps of the LibTorch stable ABI (target 2.10).
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sspcab {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A copy: what Tensor::sizes() returns borrows the tensor's memory and cannot be compared.
inline std::vector<int64_t> shape_of(const Tensor& t) {
  std::vector<int64_t> shape(t.dim());
  for (int64_t i = 0; i < t.dim(); ++i) shape[i] = t.size(i);
  return shape;
}

// As Python prints it: the stable ABI has no toString(ScalarType).
inline const char* name_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    default: return "another dtype";
  }
}

inline Tensor empty(const Tensor& like, const std::vector<int64_t>& shape, ScalarType dtype,
                    bool channels_last = false) {
  return torch::stable::empty(
      shape, dtype, std::nullopt, like.device(), std::nullopt,
      channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

}  // namespace sspcab
