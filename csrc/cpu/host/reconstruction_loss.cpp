// mean((out - x)²) alone on the CPU, forward and backward.
#include "cpu/host/operators.h"
#include "cpu/workers.h"

namespace sspcab::cpu {

constexpr int64_t kPiece = 1 << 16;  // elements of one item of work

void Cpu::reconstruction_loss(const ReconstructionLoss& a, const Tensor& loss) {
  const bool channels_last = is_channels_last(a.x);
  const Tensor out = dense(a.out, channels_last), x = dense(a.x, channels_last);
  const int64_t count = x.numel();
  with_element_type(x, [&](auto element) {
    using D = decltype(element);
    const int64_t pieces = divide_up(count, kPiece);
    const Buffer<double> errors(pieces);
    Workers(static_cast<double>(count)).run(pieces, [&](int64_t i, int64_t) {
      errors[i] = kernels<D>().squared_error(data<D>(out) + i * kPiece, data<D>(x) + i * kPiece,
                                             std::min(kPiece, count - i * kPiece));
    });
    double error = 0;
    for (int64_t i = 0; i < pieces; ++i) error += errors[i];
    *mutable_data<Compute<D>>(loss) = static_cast<Compute<D>>(error / count);
  });
}

void Cpu::reconstruction_loss_backward(const Tensor& grad_loss, const ReconstructionLoss& a,
                                       const Tensor& grad_out) {
  const bool channels_last = is_channels_last(a.x);
  const Tensor out = dense(a.out, channels_last), x = dense(a.x, channels_last);
  const int64_t count = x.numel();
  with_element_type(x, [&](auto element) {
    using D = decltype(element);
    using T = Compute<D>;
    const T factor = *data<T>(grad_loss) * 2 / count;
    Workers(static_cast<double>(count)).run(divide_up(count, kPiece), [&](int64_t i, int64_t) {
      kernels<D>().difference(data<D>(out) + i * kPiece, data<D>(x) + i * kPiece, factor,
                              std::min(kPiece, count - i * kPiece),
                              mutable_data<D>(grad_out) + i * kPiece);
    });
  });
}

}  // namespace sspcab::cpu
