// Argument checks, each with the rule and the values seen. They throw std::runtime_error, which
// arrives in Python as RuntimeError with this text alone (STD_TORCH_CHECK would add a source path).
#pragma once

#include <algorithm>
#include <initializer_list>
#include <sstream>
#include <stdexcept>

#include "geometry.h"
#include "stable_compat.h"

namespace sspcab {

template <class... Parts>
void check(bool holds, const Parts&... parts) {
  if (holds) return;
  std::ostringstream text;
  text << "sspcab: ";
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// A shape as Python prints it, put into words only when a check fails.
struct Shape {
  explicit Shape(const Tensor& t) : first(t.sizes().begin()), last(t.sizes().end()) {}
  Shape(const int64_t* first, const int64_t* last) : first(first), last(last) {}

  friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    out << "(";
    for (const int64_t* size = shape.first; size != shape.last; ++size) {
      out << (size == shape.first ? "" : ", ") << *size;
    }
    return out << (shape.last - shape.first == 1 ? ",)" : ")");
  }

  const int64_t *first, *last;
};

// A device as Python prints it. No other comes here: operators with a tensor elsewhere run there.
struct DeviceOf {
  friend std::ostream& operator<<(std::ostream& out, const DeviceOf& device) {
    return device.t.is_cuda() ? out << "cuda:" << device.t.get_device_index() : out << "cpu";
  }

  const Tensor& t;
};

// `shape`: in words, what has `dim` dimensions.
inline void check_dim(const char* name, const Tensor& t, int64_t dim, const char* shape) {
  check(t.defined(), name, " must be a tensor; got None");
  check(t.dim() == dim, name, " must be ", shape, "; got ", Shape(t));
}

inline void check_image(const char* name, const Tensor& x) {
  check_dim(name, x, 4, "(N, C, H, W)");
  check(x.size(1) > 0, name, " must have at least one channel; got ", Shape(x));
  const ScalarType dtype = x.scalar_type();
  check(dtype == ScalarType::Half || dtype == ScalarType::BFloat16 || dtype == ScalarType::Float ||
            dtype == ScalarType::Double,
        name, " must be float16, bfloat16, float32 or float64; got ", name_of(dtype));
}

inline void check_shape(const char* name, const Tensor& t, std::initializer_list<int64_t> expected,
                        const Tensor& x) {
  check(t.defined(), name, " must be a tensor; got None");
  const Shape actual(t);
  check(std::equal(actual.first, actual.last, expected.begin(), expected.end()), name, " must be ",
        Shape(expected.begin(), expected.end()), " for x of ", Shape(x), "; got ", actual);
}

inline void check_device(const char* name, const Tensor& t, const Tensor& x) {
  check(t.is_cuda() == x.is_cuda() && t.get_device_index() == x.get_device_index(), name,
        " must be on the device of x, ", DeviceOf{x}, "; got ", DeviceOf{t});
}

inline void check_tensor(const char* name, const Tensor& t, std::initializer_list<int64_t> shape,
                         ScalarType dtype, const Tensor& x) {
  check_shape(name, t, shape, x);
  check(t.scalar_type() == dtype, name, " must be ", name_of(dtype), " for x of ",
        name_of(x.scalar_type()), "; got ", name_of(t.scalar_type()));
  check_device(name, t, x);
}

inline void check_same_image(const char* name, const Tensor& t, const Tensor& x) {
  check_tensor(name, t, {x.size(0), x.size(1), x.size(2), x.size(3)}, x.scalar_type(), x);
}

// Parameters share one dtype: that of x, or float32 beside a half-precision x.
inline void check_parameter(const char* name, const Tensor& t, std::initializer_list<int64_t> shape,
                            const Tensor& first, const Tensor& x) {
  check_shape(name, t, shape, x);
  const ScalarType dtype = t.scalar_type();
  const bool half = x.scalar_type() == ScalarType::Half || x.scalar_type() == ScalarType::BFloat16;
  check(dtype == x.scalar_type() || (half && dtype == ScalarType::Float), name,
        " must have the dtype of x", half ? " or float32" : "", "; got ", name_of(dtype),
        " for x of ", name_of(x.scalar_type()));
  check(dtype == first.scalar_type(), name, " must have the dtype of the other parameters, ",
        name_of(first.scalar_type()), "; got ", name_of(dtype));
  check_device(name, t, x);
}

inline void check_sub_kernels(const Tensor& x, const std::vector<Tensor>& weights,
                              int64_t dilation) {
  check(weights.size() == 4, "weights must be four sub-kernels; got ", weights.size());
  check(dilation >= 0, "dilation must be 0 or more; got ", dilation);
  check_dim("weight1", weights[0], 4, "(C, C, k', k')");
  check(weights[0].size(3) > 0, "weight1 must have k' of 1 or more; got ", Shape(weights[0]));
  const int64_t c = x.size(1), k = weights[0].size(3);
  constexpr const char* names[] = {"weight1", "weight2", "weight3", "weight4"};
  for (size_t i = 0; i < 4; ++i) {
    check_parameter(names[i], weights[i], {c, c, k, k}, weights[0], x);
  }
}

inline void check_biases(const Tensor& x, const std::vector<Tensor>& biases, const Tensor& first) {
  constexpr const char* names[] = {"bias1", "bias2", "bias3", "bias4"};
  for (size_t i = 0; i < 4; ++i) {
    check_parameter(names[i], biases[i], {x.size(1)}, first, x);
  }
}

inline void check_excitation(const Tensor& x, const Tensor& fc1_weight, const Tensor& fc2_weight,
                             const Tensor& first) {
  check_dim("fc1_weight", fc1_weight, 2, "(C // r, C)");
  const int64_t c = x.size(1), hidden = fc1_weight.size(0);
  check_parameter("fc1_weight", fc1_weight, {hidden, c}, first, x);
  check_parameter("fc2_weight", fc2_weight, {c, hidden}, first, x);
}

inline void check_excitation_biases(const Tensor& x, const Tensor& fc1_weight,
                                    const Tensor& fc1_bias, const Tensor& fc2_bias) {
  check_parameter("fc1_bias", fc1_bias, {fc1_weight.size(0)}, fc1_weight, x);
  check_parameter("fc2_bias", fc2_bias, {x.size(1)}, fc1_weight, x);
}

}  // namespace sspcab
