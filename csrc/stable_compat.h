// The only file that works around gaps of the LibTorch stable ABI (target 2.10).
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

// torch 2.13's, which adds the error of the call to the message; goes with support for 2.12.
#if !defined(STABLE_TORCH_ERROR_CODE_CHECK)
#define STABLE_TORCH_ERROR_CODE_CHECK(call) TORCH_ERROR_CODE_CHECK(call)
#endif

namespace sspcab {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A copy to allocate with: what Tensor::sizes() returns borrows the tensor's memory.
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
    case ScalarType::Bool: return "bool";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::ComplexFloat: return "complex64";
    case ScalarType::ComplexDouble: return "complex128";
    default: return "another dtype";
  }
}

// Allocates through the C interface below the dispatcher, which torch::stable::empty goes through:
// backward has ten results, and each takes a microsecond less this way.
inline Tensor empty(const Tensor& like, const std::vector<int64_t>& shape, ScalarType dtype,
                    bool channels_last = false) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  const auto set = [&](int64_t dim) {
    strides[dim] = stride;
    stride *= std::max<int64_t>(shape[dim], 1);
  };
  if (channels_last) {
    for (int64_t dim : {1, 3, 2, 0}) set(dim);
  } else {
    for (int64_t dim = static_cast<int64_t>(shape.size()) - 1; dim >= 0; --dim) set(dim);
  }
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  const auto device = like.device();
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(shape.size()), shape.data(), strides.data(), to<int32_t>(from(dtype)),
      to<int32_t>(from(device.type())), device.index(), &handle));
  return Tensor(handle);
}

}  // namespace sspcab
