// The gradient of the output, where several stages need it: G = grad_out + factor · (y · gate - x)
// with factor = grad_loss · 2 / loss_numel.
#pragma once

#include "cuda/element.cuh"

namespace sspcab::cuda {

template <class D, int V>
struct GradientInputs {
  Vector<D, V> grad_out, y, x;
};

template <class D>
class GradientReader {
 public:
  using W = Wide<D>;

  // y is read where the caller needs it or the loss does.
  __device__ GradientReader(const OutputGradient& g, bool reads_y)
      : grad_out_(static_cast<const D*>(g.grad_out)),
        y_(reads_y || g.grad_loss ? static_cast<const D*>(g.y) : nullptr),
        x_(g.grad_loss ? static_cast<const D*>(g.x) : nullptr) {
    if (x_) factor_ = *static_cast<const W*>(g.grad_loss) * 2 / static_cast<W>(g.loss_numel);
  }

  template <int V>
  __device__ GradientInputs<D, V> inputs(int64_t offset) const {
    GradientInputs<D, V> in{};
    if (grad_out_) in.grad_out = load<V>(grad_out_ + offset);
    if (y_) in.y = load<V>(y_ + offset);
    if (x_) in.x = load<V>(x_ + offset);
    return in;
  }

  template <int V>
  __device__ W gradient(const GradientInputs<D, V>& in, int i, W gate) const {
    W g = widen(in.grad_out[i]);
    if (x_) g += factor_ * (widen(in.y[i]) * gate - widen(in.x[i]));
    return g;
  }

 private:
  const D *grad_out_, *y_, *x_;
  W factor_ = 0;
};

}  // namespace sspcab::cuda
