// What each operator is given, and the rules for it, the same on every device. Shapes and meanings
// are those of registration.cpp; what a single device refuses is checked there.
#pragma once

#include <optional>
#include <vector>

#include "checks.h"
#include "layout.h"

namespace sspcab {

inline void check_needs(const std::vector<bool>& needs, size_t count) {
  check(needs.size() == count, "needs must have ", count, " entries; got ", needs.size());
}

inline void check_grad_loss(const Tensor& grad_loss, const Tensor& x) {
  check_tensor("grad_loss", grad_loss, {}, wide_type(x), x);
}

// What squeeze and excitation leaves for backward.
struct Excited {
  Tensor mean, hidden, gate;

  void check(const Tensor& x, const Tensor& fc1_weight) const {
    check_tensor("mean", mean, {x.size(0), x.size(1)}, wide_type(x), x);
    check_tensor("hidden", hidden, {x.size(0), fc1_weight.size(0)}, wide_type(x), x);
    check_tensor("gate", gate, {x.size(0), x.size(1)}, wide_type(x), x);
  }
};

inline Excited empty_excited(const Tensor& x, const Tensor& fc1_weight) {
  const int64_t n = x.size(0), c = x.size(1), hidden = fc1_weight.size(0);
  const ScalarType wide = wide_type(x);
  return {empty(x, {n, c}, wide), empty(x, {n, hidden}, wide), empty(x, {n, c}, wide)};
}

struct MaskedConv2d {
  Tensor x;
  std::vector<Tensor> weights, biases;
  int64_t dilation;
  bool relu, allow_tf32;
  int64_t config;

  SubKernels sub_kernels() const { return {weights[0].size(3), dilation}; }
  void check() const {
    check_image("x", x);
    check_sub_kernels(x, weights, dilation);
    check_biases(x, biases, weights[0]);
  }
};

struct MaskedConv2dBackward {
  Tensor grad_y, x, y;
  std::vector<Tensor> weights;
  int64_t dilation;
  bool relu;
  std::vector<bool> needs;
  bool allow_tf32;
  int64_t config;

  SubKernels sub_kernels() const { return {weights[0].size(3), dilation}; }
  void check() const {
    check_image("x", x);
    check_sub_kernels(x, weights, dilation);
    check_same_image("y", y, x);
    check_same_image("grad_y", grad_y, x);
    check_needs(needs, 6);
  }
};

struct SqueezeExcite {
  Tensor x, fc1_weight, fc1_bias, fc2_weight, fc2_bias;

  void check() const {
    check_image("x", x);
    check_excitation(x, fc1_weight, fc2_weight, fc1_weight);
    check_excitation_biases(x, fc1_weight, fc1_bias, fc2_bias);
  }
};

struct SqueezeExciteBackward {
  Tensor grad_out, x;
  Excited excited;
  Tensor fc1_weight, fc2_weight;
  std::vector<bool> needs;

  void check() const {
    check_image("x", x);
    check_same_image("grad_out", grad_out, x);
    check_excitation(x, fc1_weight, fc2_weight, fc1_weight);
    excited.check(x, fc1_weight);
    check_needs(needs, 5);
  }
};

struct ReconstructionLoss {
  Tensor out, x;

  void check() const {
    check_image("x", x);
    check_same_image("out", out, x);
  }
};

struct ReconstructionLossBackward {
  Tensor grad_loss;
  ReconstructionLoss images;

  void check() const {
    images.check();
    check_grad_loss(grad_loss, images.x);
  }
};

// The whole block.
struct Sspcab {
  MaskedConv2d convolution;
  Tensor fc1_weight, fc1_bias, fc2_weight, fc2_bias;
  bool with_loss;

  const Tensor& x() const { return convolution.x; }
  void check() const {
    convolution.check();
    check_excitation(x(), fc1_weight, fc2_weight, convolution.weights[0]);
    check_excitation_biases(x(), fc1_weight, fc1_bias, fc2_bias);
  }
};

struct SspcabResults {
  Tensor out, loss, y;  // what backward needs, y and excited, is defined where it is wanted
  Excited excited;

  bool keeps() const { return y.defined(); }
};

struct SspcabBackward {
  std::optional<Tensor> grad_out, grad_loss;
  Tensor x, y;
  Excited excited;
  std::vector<Tensor> weights;
  Tensor fc1_weight, fc2_weight;
  int64_t dilation;
  bool relu;
  std::vector<bool> needs;
  bool allow_tf32;
  int64_t config;

  SubKernels sub_kernels() const { return {weights[0].size(3), dilation}; }
  void check() const {
    check_image("x", x);
    check_sub_kernels(x, weights, dilation);
    check_excitation(x, fc1_weight, fc2_weight, weights[0]);
    check_same_image("y", y, x);
    if (grad_out) check_same_image("grad_out", *grad_out, x);
    if (grad_loss) check_grad_loss(*grad_loss, x);
    excited.check(x, fc1_weight);
    check_needs(needs, 10);
  }
};

}  // namespace sspcab
