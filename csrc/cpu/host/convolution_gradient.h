// The gradients of the masked convolution with whatever follows it, stages 3 to 5: grad_a and the
// bias gradient, grad_x, and the four weight gradients. Shared by the whole block and by
// masked_conv2d alone.
#pragma once

#include "cpu/convolution/make_convolution.h"
#include "cpu/host/tensors.h"

namespace sspcab::cpu {

template <class D>
class ConvolutionGradient {
 public:
  using T = Compute<D>;

  // needs[0]: x, needs[1..4]: the weights, needs[5]: bias
  ConvolutionGradient(const Convolution<D>& convolution, const Tensor& x,
                      const std::vector<Tensor>& weights, const std::vector<bool>& needs)
      : convolution_(convolution), s_(sample_of(x)) {
    wanted_.x = needs[0];
    for (int64_t i = 0; i < 4; ++i) {
      wanted_.corners[i] = needs[1 + i];
      grad_weights_.emplace_back(weights[i], needs[1 + i]);
      wanted_.weights[i] = grad_weights_[i].get();
    }
    grad_bias_.emplace_back(weights[0], std::vector<int64_t>{s_.channels}, needs[5]);
    bias_ = zeros<double>(s_.channels);
    grad_x_ = wanted_.x ? empty_image(x) : empty(x, {0}, x.scalar_type());
    if (wanted_.x) {
      weights_.emplace(weights);
      mirrored_ = convolution.prepare(weights_->view(), /*mirrored=*/true);
      wanted_.mirrored = &mirrored_;
    }
    gradients_ = convolution.gradients(wanted_);
  }

  bool needs_any() const { return wanted_.x || wanted_.any_weight() || grad_bias_[0].needed(); }

  // `count` samples from sample `first` on; grad_mean (null: 0) is that of sample `first`.
  void add(const OutputGradient<D>& all, const T* grad_mean, bool relu, const D* x, int64_t first,
           int64_t count) {
    const Kernels<D>& k = kernels<D>();
    const Plan& plan = convolution_.plan();
    const Bands bands = plan.bands(count);
    const int64_t items = count * bands.per_sample, size = Images<D>::blocked_size(s_);
    const bool packs_x = wanted_.any_weight() && !plan.reads_in_place;
    const Buffer<T> grad_a(count * size), blocked_x(packs_x ? count * size : 0);
    const Buffer<double> bias = zeros<double>(items * s_.channels);
    convolution_.workers().run(items, [&](int64_t item, int64_t) {
      const int64_t i = item / bands.per_sample;
      const Rows rows = bands.rows(item % bands.per_sample);
      k.activation_gradient(
          of_sample(all, s_, first + i), grad_mean ? grad_mean + i * s_.channels : nullptr, relu,
          s_, rows, Images<D>::blocked(grad_a.get(), s_, i), bias.get() + item * s_.channels);
      if (packs_x) {
        k.pack(x + (first + i) * s_.numel(), s_, rows, Images<D>::blocked(blocked_x.get(), s_, i));
      }
    });
    for (int64_t item = 0; item < items; ++item) {
      for (int64_t c = 0; c < s_.channels; ++c) bias_[c] += bias[item * s_.channels + c];
    }
    gradients_->add({count,
                     Images<D>(plan, x + first * s_.numel(), packs_x ? blocked_x.get() : nullptr),
                     Images<D>(plan, nullptr, grad_a.get()), of_sample(all, s_, first),
                     wanted_.x ? mutable_data<D>(grad_x_) + first * s_.numel() : nullptr});
  }

  // Appends x, the four weights and the bias.
  void finish(std::vector<Tensor>& gradients) {
    gradients_->finish();
    gradients.push_back(grad_x_);
    for (const auto& grad_weight : grad_weights_) gradients.push_back(grad_weight.finish());
    if (grad_bias_[0].needed()) {
      for (int64_t c = 0; c < s_.channels; ++c) {
        grad_bias_[0].get()[c] = static_cast<T>(bias_[c]);
      }
    }
    gradients.push_back(grad_bias_[0].finish());
  }

 private:
  const Convolution<D>& convolution_;
  Sample s_;
  WantedGradients<T> wanted_{};
  std::optional<SubKernelWeights<T>> weights_;  // for the gradient of x
  Tensor grad_x_;
  std::vector<ParameterGradient<T>> grad_weights_, grad_bias_;
  Buffer<double> bias_;
  Filters<T> mirrored_;
  std::unique_ptr<Gradients<D>> gradients_;
};

}  // namespace sspcab::cpu
