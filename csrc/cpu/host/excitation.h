// Squeeze and excitation on (N, C) vectors: m → hidden = relu(fc1 m) → gate = sigmoid(fc2 hidden),
// and back.
#pragma once

#include <cmath>

#include "cpu/host/tensors.h"
#include "cpu/workers.h"

namespace sspcab::cpu {

template <class D>
class Excitation {
 public:
  using T = Compute<D>;

  Excitation(const Tensor& fc1_weight, const Tensor& fc2_weight)
      : channels_(fc1_weight.size(1)),
        hidden_(fc1_weight.size(0)),
        fc1_weight_(fc1_weight),
        fc2_weight_(fc2_weight) {}

  // mean is Σ sums[band] / pixels.
  void forward(const double* sums, int64_t bands, int64_t pixels, const T* fc1_bias,
               const T* fc2_bias, T* mean, T* hidden, T* gate) const {
    for (int64_t c = 0; c < channels_; ++c) {
      double sum = 0;
      for (int64_t b = 0; b < bands; ++b) sum += sums[b * channels_ + c];
      mean[c] = static_cast<T>(sum / pixels);
    }
    k_.dense(fc1_weight_.get(), mean, fc1_bias, hidden_, channels_, hidden);
    for (int64_t j = 0; j < hidden_; ++j) hidden[j] = hidden[j] <= 0 ? 0 : hidden[j];
    k_.dense(fc2_weight_.get(), hidden, fc2_bias, channels_, hidden_, gate);
    for (int64_t c = 0; c < channels_; ++c) gate[c] = 1 / (1 + std::exp(-gate[c]));
  }

  // From grad_gate, Σ over the bands: the gradients before the sigmoid and before the ReLU, and
  // what each pixel's gradient gains through the mean, grad_mean / pixels.
  void backward(const double* grad_gate, int64_t bands, int64_t pixels, const T* hidden,
                const T* gate, T* grad_gate_input, T* grad_hidden_input, T* grad_mean) const {
    for (int64_t c = 0; c < channels_; ++c) {
      double sum = 0;
      for (int64_t b = 0; b < bands; ++b) sum += grad_gate[b * channels_ + c];
      grad_gate_input[c] = static_cast<T>(sum) * gate[c] * (1 - gate[c]);
    }
    k_.dense_transposed(fc2_weight_.get(), grad_gate_input, channels_, hidden_, grad_hidden_input);
    for (int64_t j = 0; j < hidden_; ++j) {
      if (hidden[j] <= 0) grad_hidden_input[j] = 0;
    }
    k_.dense_transposed(fc1_weight_.get(), grad_hidden_input, hidden_, channels_, grad_mean);
    for (int64_t c = 0; c < channels_; ++c) grad_mean[c] /= pixels;
  }

  double work() const { return 4.0 * channels_ * hidden_ + 20.0 * channels_; }

 private:
  const Kernels<D>& k_ = kernels<D>();
  int64_t channels_, hidden_;
  Parameter<T> fc1_weight_, fc2_weight_;
};

// Gradients of one dense layer from those of its results: grad_weight[i][j] = Σ_n grad[n][i] ·
// input[n][j], grad_bias[i] = Σ_n grad[n][i], samples in order.
template <class D>
void dense_parameter_gradients(const Compute<D>* grad, const Compute<D>* input, int64_t samples,
                               int64_t rows, int64_t columns,
                               const ParameterGradient<Compute<D>>& grad_weight,
                               const ParameterGradient<Compute<D>>& grad_bias) {
  using T = Compute<D>;
  Workers(static_cast<double>(samples) * rows * columns).run(rows, [&](int64_t i, int64_t) {
    T bias = 0;
    T* row = grad_weight.needed() ? grad_weight.get() + i * columns : nullptr;
    if (row) memset(row, 0, columns * sizeof(T));
    for (int64_t n = 0; n < samples; ++n) {
      bias += grad[n * rows + i];
      if (row) {
        kernels<D>().add_scaled(input + n * columns, grad[n * rows + i], columns, row);
      }
    }
    if (grad_bias.needed()) grad_bias.get()[i] = bias;
  });
}

}  // namespace sspcab::cpu
