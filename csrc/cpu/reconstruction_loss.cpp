// mean((out - x)²) alone on the CPU, forward and backward.
#include "checks.h"
#include "cpu/tensors.h"
#include "cpu/workers.h"

namespace sspcab::cpu {
namespace {

constexpr int64_t kPiece = 1 << 16;  // elements of one item of work

Tensor reconstruction_loss(Tensor out, Tensor x) {
  check_image("x", x);
  check_same_image("out", out, x);
  const bool channels_last = is_channels_last(x);
  const Tensor a = dense(out, channels_last), b = dense(x, channels_last);
  const Tensor loss = empty(x, {}, wide_type(x));
  const int64_t count = x.numel();
  with_element_type(x, [&](auto element) {
    using D = decltype(element);
    const int64_t pieces = divide_up(count, kPiece);
    const Buffer<double> errors(pieces);
    Workers(static_cast<double>(count)).run(pieces, [&](int64_t i, int64_t) {
      errors[i] = kernels<D>().squared_error(data<D>(a) + i * kPiece, data<D>(b) + i * kPiece,
                                             std::min(kPiece, count - i * kPiece));
    });
    double error = 0;
    for (int64_t i = 0; i < pieces; ++i) error += errors[i];
    *mutable_data<Compute<D>>(loss) = static_cast<Compute<D>>(error / count);  // empty: NaN
  });
  return loss;
}

// grad_out; grad_x is its negative.
Tensor reconstruction_loss_backward(Tensor grad_loss, Tensor out, Tensor x) {
  check_image("x", x);
  check_same_image("out", out, x);
  const bool channels_last = is_channels_last(x);
  const Tensor a = dense(out, channels_last), b = dense(x, channels_last);
  const Tensor grad_out = empty_image(x);
  const int64_t count = x.numel();
  with_element_type(x, [&](auto element) {
    using D = decltype(element);
    using T = Compute<D>;
    const T factor = *data<T>(grad_loss) * 2 / count;
    Workers(static_cast<double>(count)).run(divide_up(count, kPiece), [&](int64_t i, int64_t) {
      kernels<D>().difference(data<D>(a) + i * kPiece, data<D>(b) + i * kPiece, factor,
                              std::min(kPiece, count - i * kPiece),
                              mutable_data<D>(grad_out) + i * kPiece);
    });
  });
  return grad_out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CPU, m) {
  m.impl("reconstruction_loss", TORCH_BOX(&reconstruction_loss));
  m.impl("reconstruction_loss_backward", TORCH_BOX(&reconstruction_loss_backward));
}

}  // namespace sspcab::cpu
