// The gradients of the masked convolution with whatever follows it, stages 3 to 5: grad_a and the
// bias gradient, grad_x, and the four weight gradients. Shared by the whole block and by
// masked_conv2d alone.
#pragma once

#include "cpu/masked_convolution.h"
#include "cpu/tensors.h"

namespace sspcab::cpu {

template <class D>
class ConvolutionGradient {
 public:
  using T = Compute<D>;

  // needs[0]: x, needs[1..4]: the weights, needs[5]: bias
  ConvolutionGradient(const MaskedConvolution<D>& conv, const Tensor& x,
                      const std::vector<Tensor>& weights, const std::vector<bool>& needs)
      : conv_(conv), s_(sample_of(x)), needs_x_(needs[0]) {
    for (int64_t i = 0; i < 4; ++i) {
      corners_[i] = needs[1 + i];
      needs_weights_ |= needs[1 + i];
      grad_weights_.emplace_back(weights[i], needs[1 + i]);
    }
    grad_bias_.emplace_back(weights[0], std::vector<int64_t>{s_.channels}, needs[5]);
    bias_ = zeros<double>(s_.channels);
    grad_x_ = needs_x_ ? empty_image(x) : empty(x, {0}, x.scalar_type());
    if (needs_weights_ && !conv.windows()) weight_gradient_.emplace(conv, corners_);
    if (needs_x_) {
      weights_.emplace(weights);
      mirrored_ = conv.prepare(weights_->view(), /*mirrored=*/true);
    }
  }

  bool needs_any() const { return needs_x_ || needs_weights_ || grad_bias_[0].needed(); }

  // `count` samples from sample `first` on; grad_mean (null: 0) is that of sample `first`.
  void add(const OutputGradient<D>& all, const T* grad_mean, bool relu, const D* x, int64_t first,
           int64_t count) {
    const Kernels<D>& k = kernels<D>();
    const Bands bands = conv_.bands(count);
    const int64_t items = count * bands.per_sample, size = conv_.whole_size();
    const bool packs_x = needs_weights_ && !conv_.reads_in_place();
    const Buffer<T> grad_a(count * size), blocked_x(packs_x ? count * size : 0);
    const Buffer<double> bias = zeros<double>(items * s_.channels);
    conv_.workers().run(items, [&](int64_t item, int64_t) {
      const int64_t i = item / bands.per_sample;
      const Rows rows = bands.rows(item % bands.per_sample);
      k.activation_gradient(of_sample(all, s_, first + i),
                            grad_mean ? grad_mean + i * s_.channels : nullptr, relu, s_, rows,
                            conv_.whole(grad_a.get() + i * size), bias.get() + item * s_.channels);
      if (packs_x) {
        k.pack(x + (first + i) * s_.numel(), s_, rows, conv_.whole(blocked_x.get() + i * size));
      }
    });
    for (int64_t item = 0; item < items; ++item) {
      for (int64_t c = 0; c < s_.channels; ++c) bias_[c] += bias[item * s_.channels + c];
    }
    x += first * s_.numel();
    D* const grad_x = needs_x_ ? mutable_data<D>(grad_x_) + first * s_.numel() : nullptr;
    if (conv_.windows()) {
      add_windows(of_sample(all, s_, first), x, blocked_x.get(), grad_a.get(), count, grad_x);
      return;
    }
    if (needs_x_) {
      conv_.input_gradient(grad_a.get(), count, mirrored_, of_sample(all, s_, first), grad_x);
    }
    if (needs_weights_) weight_gradient_->add(x, blocked_x.get(), grad_a.get(), count);
  }

  // Appends x, the four weights and the bias.
  void finish(std::vector<Tensor>& gradients) {
    if (weight_gradient_) {
      weight_gradient_->finish(grad_weight_pointers().data());
    } else if (starts_) {  // windows, to which nothing was added
      for (const auto& g : grad_weights_) std::fill_n(g.get(), g.numel(), T(0));
    }
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
  std::array<T*, 4> grad_weight_pointers() const {
    return {grad_weights_[0].get(), grad_weights_[1].get(), grad_weights_[2].get(),
            grad_weights_[3].get()};
  }

  void add_windows(const OutputGradient<D>& gradient, const D* x, T* blocked_x, T* grad_a,
                   int64_t count, D* grad_x) {
    const WindowConvolution<D>& windows = *conv_.windows();
    const Buffer<T> gradients = windows.gather_gradient(
        [&](int64_t n) { return View<T>::of(conv_.whole(grad_a + n * conv_.whole_size())); },
        count);
    if (needs_x_) {
      windows.input_gradient(gradients.get(), count, mirrored_.weights, gradient, grad_x);
    }
    if (needs_weights_ && !windows.empty()) {
      windows.weight_gradient([&](int64_t n) { return conv_.view(x, blocked_x, n); },
                              gradients.get(), count, corners_, starts_,
                              grad_weight_pointers().data());
      starts_ = false;
    }
  }

  const MaskedConvolution<D>& conv_;
  Sample s_;
  bool needs_x_, needs_weights_ = false;
  bool corners_[4], starts_ = true;
  std::optional<SubKernelWeights<T>> weights_;  // for the gradient of x
  Tensor grad_x_;
  std::vector<ParameterGradient<T>> grad_weights_, grad_bias_;
  Buffer<double> bias_;
  Filters<T> mirrored_;
  std::optional<typename MaskedConvolution<D>::WeightGradient> weight_gradient_;
};

}  // namespace sspcab::cpu
