// From tensors to the plain data of the stages: types, layouts, streams, workspaces.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>

#include <array>

#include "cuda/convolution/convolution.h"
#include "cuda/stages.h"
#include "layout.h"

namespace sspcab::cuda {

using torch::stable::accelerator::DeviceGuard;

inline Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Half: return Dtype::Half;
    case ScalarType::BFloat16: return Dtype::BFloat16;
    case ScalarType::Double: return Dtype::Double;
    default: return Dtype::Float;
  }
}

inline Image image_of(const Tensor& x) {
  return {x.size(0), x.size(1), x.size(2), x.size(3), is_channels_last(x)};
}

inline cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline const void* data(const Tensor& t) { return t.const_data_ptr(); }
inline void* mutable_data(const Tensor& t) { return t.mutable_data_ptr(); }

inline Tensor empty_image(const Tensor& x) {
  return empty(x, shape_of(x), x.scalar_type(), is_channels_last(x));
}

// The tensor itself if it is dense in the wanted layout and lies on a 16-byte border, as the vector
// copies of the kernels need it; otherwise a copy.
inline Tensor dense(const Tensor& t, bool channels_last = false) {
  const bool aligned = reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
  return aligned && is_dense(t, channels_last) ? t : dense_copy(t, channels_last);
}

// An empty tensor where a gradient isn't needed.
inline Tensor empty_gradient(const Tensor& parameter, const std::vector<int64_t>& shape,
                             bool needed) {
  return empty(parameter, needed ? shape : std::vector<int64_t>{0}, parameter.scalar_type());
}
inline void* if_needed(const Tensor& gradient, bool needed) {
  return needed ? mutable_data(gradient) : nullptr;
}

// Scratch memory of one call, from torch's allocator.
class Scratch {
 public:
  Scratch(const Tensor& like, int64_t bytes) : memory_(empty(like, {bytes}, ScalarType::Byte)) {}

  // `piece`: of the workspace.
  void* operator[](size_t piece) const {
    return static_cast<char*>(memory_.mutable_data_ptr()) + piece;
  }

 private:
  Tensor memory_;
};

// The pieces of the scratch memory, which are asked for first and allocated together.
class Workspace {
 public:
  // A piece of that many bytes.
  size_t add(int64_t bytes) {
    const int64_t piece = size_;
    size_ += divide_up(bytes, kAlignment) * kAlignment;
    return piece;
  }
  Scratch allocate(const Tensor& like) const { return {like, size_}; }

 private:
  static constexpr int64_t kAlignment = 256;
  int64_t size_ = 0;
};

}  // namespace sspcab::cuda
