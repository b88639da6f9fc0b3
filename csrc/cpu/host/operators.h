// The CPU's part of the operators (operators/operators.h).
#pragma once

#include "cpu/host/tensors.h"
#include "operators/arguments.h"

namespace sspcab::cpu {

struct Cpu {
  static void check_config(int64_t config);
  struct Guard {
    explicit Guard(const Tensor&) {}
  };
  static Tensor empty_image(const Tensor& x) { return cpu::empty_image(x); }

  static void masked_conv2d(const MaskedConv2d&, const Tensor& y);
  static std::vector<Tensor> masked_conv2d_backward(const MaskedConv2dBackward&);
  static void squeeze_excite(const SqueezeExcite&, const Tensor& out, const Excited&);
  static std::vector<Tensor> squeeze_excite_backward(const SqueezeExciteBackward&);
  static void reconstruction_loss(const ReconstructionLoss&, const Tensor& loss);
  static void reconstruction_loss_backward(const Tensor& grad_loss, const ReconstructionLoss&,
                                           const Tensor& grad_out);
  // Without what backward needs, y is computed in the memory of out.
  static void sspcab(const Sspcab&, const SspcabResults&);
  static std::vector<Tensor> sspcab_backward(const SspcabBackward&);
};

}  // namespace sspcab::cpu
