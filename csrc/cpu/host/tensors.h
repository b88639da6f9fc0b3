// From tensors to plain data: layout, element types, parameters in the type of the arithmetic.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/isa/kernels.h"
#include "layout.h"

namespace sspcab::cpu {

inline Sample sample_of(const Tensor& x) {
  return {x.size(1), x.size(2), x.size(3), is_channels_last(x)};
}

inline Tensor empty_image(const Tensor& x) {
  Tensor image = empty(x, shape_of(x), x.scalar_type(), is_channels_last(x));
  prefer_huge_pages(image.mutable_data_ptr(), image.numel() * image.element_size());
  return image;
}

// The tensor itself if it is dense in the wanted layout, otherwise a copy.
inline Tensor dense(const Tensor& t, bool channels_last) {
  return is_dense(t, channels_last) ? t : dense_copy(t, channels_last);
}

template <class D>
struct ScalarTypeOf;
template <>
struct ScalarTypeOf<float> {
  static constexpr ScalarType value = ScalarType::Float;
};
template <>
struct ScalarTypeOf<double> {
  static constexpr ScalarType value = ScalarType::Double;
};

// body(D{}) with D the element type of the tensor.
template <class Body>
auto with_element_type(const Tensor& x, Body&& body) {
  switch (x.scalar_type()) {
    case ScalarType::Half: return body(Half{});
    case ScalarType::BFloat16: return body(BFloat16{});
    case ScalarType::Double: return body(double{});
    default: return body(float{});
  }
}

template <class D>
const D* data(const Tensor& t) {
  return static_cast<const D*>(t.const_data_ptr());
}
template <class D>
D* mutable_data(const Tensor& t) {
  return static_cast<D*>(t.mutable_data_ptr());
}

// A parameter as dense T: the tensor's own memory where that is what it holds.
template <class T>
class Parameter {
 public:
  explicit Parameter(const Tensor& t, bool channels_last = false)
      : tensor_(dense(t, channels_last)) {
    if (tensor_.scalar_type() == ScalarTypeOf<T>::value) {
      data_ = data<T>(tensor_);
      return;
    }
    copy_ = Buffer<T>(tensor_.numel());
    data_ = copy_.get();
    with_element_type(tensor_, [&](auto element) {
      using D = decltype(element);
      if constexpr (std::is_same_v<Compute<D>, T>) {
        kernels<D>().to_compute(data<D>(tensor_), tensor_.numel(), copy_.get());
      }
    });
  }
  const T* get() const { return data_; }

 private:
  Tensor tensor_;
  Buffer<T> copy_;
  const T* data_;
};

// The four sub-kernels as T, in channels_last if all of them are.
template <class T>
class SubKernelWeights {
 public:
  explicit SubKernelWeights(const std::vector<Tensor>& w) {
    const bool channels_last = std::all_of(w.begin(), w.end(), [](const Tensor& t) {
      return is_channels_last(t) && is_dense(t, true);
    });
    for (const Tensor& t : w) parameters_.emplace_back(t, channels_last);
    const int64_t channels = w[0].size(1), taps = w[0].size(2) * w[0].size(3);
    view_.channel_stride = channels_last ? 1 : taps;
    view_.tap_stride = channels_last ? channels : 1;
    for (int64_t i = 0; i < 4; ++i) view_.corner[i] = parameters_[i].get();
  }
  const Weights<T>& view() const { return view_; }

 private:
  std::vector<Parameter<T>> parameters_;
  Weights<T> view_;
};

// A gradient that is computed as T and stored in the type of its parameter.
template <class T>
class ParameterGradient {
 public:
  ParameterGradient(const Tensor& parameter, const std::vector<int64_t>& shape, bool needed)
      : tensor_(
            empty(parameter, needed ? shape : std::vector<int64_t>{0}, parameter.scalar_type())),
        needed_(needed) {
    if (!needed) return;
    prefer_huge_pages(tensor_.mutable_data_ptr(), tensor_.numel() * tensor_.element_size());
    if (tensor_.scalar_type() == ScalarTypeOf<T>::value) {
      data_ = mutable_data<T>(tensor_);
    } else {
      wide_ = Buffer<T>(tensor_.numel());
      data_ = wide_.get();
    }
  }
  ParameterGradient(const Tensor& parameter, bool needed)
      : ParameterGradient(parameter, shape_of(parameter), needed) {}

  bool needed() const { return needed_; }
  T* get() const { return data_; }
  int64_t numel() const { return tensor_.numel(); }

  Tensor finish() const {
    if (wide_.get()) {
      with_element_type(tensor_, [&](auto element) {
        using D = decltype(element);
        if constexpr (std::is_same_v<Compute<D>, T>) {
          kernels<D>().from_compute(wide_.get(), tensor_.numel(), mutable_data<D>(tensor_));
        }
      });
    }
    return tensor_;
  }

 private:
  Tensor tensor_;
  Buffer<T> wide_;
  T* data_ = nullptr;
  bool needed_;
};

}  // namespace sspcab::cpu
