// The whole block on the CPU, backward: (1) gradient of the gate, (2) excitation, (3) gradient of
// the pre-activation and the bias, (4) grad_x, (5) the four weight gradients, group of samples by
// group of samples.
#include "checks.h"
#include "cpu/convolution_gradient.h"
#include "cpu/excitation.h"

namespace sspcab::cpu {
namespace {

struct Saved {
  Tensor x, y, mean, hidden, gate;
  std::vector<Tensor> weights;
  Tensor fc1_weight, fc2_weight;
  int64_t dilation, config;
  bool relu;
};

void check_arguments(const std::optional<Tensor>& grad_out, const Saved& saved,
                     const std::vector<bool>& needs) {
  const Tensor& x = saved.x;
  check_image("x", x);
  check_config(saved.config);
  check_sub_kernels(x, saved.weights, saved.dilation);
  check_excitation(x, saved.fc1_weight, saved.fc2_weight, saved.weights[0]);
  check_same_image("y", saved.y, x);
  if (grad_out) check_same_image("grad_out", *grad_out, x);
  check_shape("mean", saved.mean, {x.size(0), x.size(1)}, x);
  check_shape("hidden", saved.hidden, {x.size(0), saved.fc1_weight.size(0)}, x);
  check_shape("gate", saved.gate, {x.size(0), x.size(1)}, x);
  check(needs.size() == 10, "needs must have 10 entries; got ", needs.size());
}

template <class D>
std::vector<Tensor> backward(const std::optional<Tensor>& grad_out, std::optional<double> grad_loss,
                             const Saved& saved, const std::vector<bool>& needs) {
  using T = Compute<D>;
  const Kernels<D>& k = kernels<D>();
  const Sample s = sample_of(saved.x);
  const Tensor x = dense(saved.x, s.channels_last), y = dense(saved.y, s.channels_last);
  const int64_t samples = x.size(0), channels = s.channels, hidden = saved.fc1_weight.size(0);
  const MaskedConvolution<D> conv(s, {saved.weights[0].size(3), saved.dilation}, samples,
                                  saved.config);
  ConvolutionGradient<D> convolution_gradient(conv, saved.x, saved.weights, needs);
  const Excitation<D> excitation(saved.fc1_weight, saved.fc2_weight);
  ParameterGradient<T> grad_fc1_weight(saved.fc1_weight, needs[6]),
      grad_fc1_bias(saved.fc1_weight, {hidden}, needs[7]),
      grad_fc2_weight(saved.fc2_weight, needs[8]),
      grad_fc2_bias(saved.fc2_weight, {channels}, needs[9]);
  const Tensor hidden_saved = dense(saved.hidden, false), gate = dense(saved.gate, false);

  const std::optional<Tensor> dense_grad_out =
      grad_out ? std::optional<Tensor>(dense(*grad_out, s.channels_last)) : std::nullopt;
  const OutputGradient<D> gradient{dense_grad_out ? data<D>(*dense_grad_out) : nullptr, data<D>(y),
                                   grad_loss ? data<D>(x) : nullptr, data<T>(gate),
                                   static_cast<T>(grad_loss.value_or(0) * 2 / x.numel())};
  const Buffer<T> grad_gate_input(samples * channels), grad_hidden_input(samples * hidden),
      grad_mean(samples * channels);
  for_each_group<D>(s, samples, [&](int64_t first, int64_t count) {
    const Bands bands = conv.bands(count);
    const int64_t items = count * bands.per_sample;
    const Buffer<double> grad_gate = zeros<double>(items * channels);
    Workers(2.0 * count * s.numel()).run(items, [&](int64_t item, int64_t) {
      k.gate_gradient(of_sample(gradient, s, first + item / bands.per_sample), s,
                      bands.rows(item % bands.per_sample), grad_gate.get() + item * channels);
    });
    Workers(count * excitation.work()).run(count, [&](int64_t i, int64_t) {
      const int64_t n = first + i;
      excitation.backward(grad_gate.get() + i * bands.per_sample * channels, bands.per_sample,
                          s.pixels(), data<T>(hidden_saved) + n * hidden,
                          data<T>(gate) + n * channels, grad_gate_input.get() + n * channels,
                          grad_hidden_input.get() + n * hidden, grad_mean.get() + n * channels);
    });
    if (convolution_gradient.needs_any()) {
      convolution_gradient.add(gradient, grad_mean.get() + first * channels, saved.relu, data<D>(x),
                               first, count);
    }
  });
  const int64_t used = s.numel() > 0 ? samples : 0;
  dense_parameter_gradients<D>(grad_hidden_input.get(), data<T>(dense(saved.mean, false)), used,
                               hidden, channels, grad_fc1_weight, grad_fc1_bias);
  dense_parameter_gradients<D>(grad_gate_input.get(), data<T>(hidden_saved), used, channels, hidden,
                               grad_fc2_weight, grad_fc2_bias);
  std::vector<Tensor> gradients;
  convolution_gradient.finish(gradients);
  for (const auto* g : {&grad_fc1_weight, &grad_fc1_bias, &grad_fc2_weight, &grad_fc2_bias}) {
    gradients.push_back(g->finish());
  }
  return gradients;
}

std::vector<Tensor> sspcab_backward(std::optional<Tensor> grad_out, std::optional<Tensor> grad_loss,
                                    Tensor x, Tensor y, Tensor mean, Tensor hidden, Tensor gate,
                                    std::vector<Tensor> weights, Tensor fc1_weight,
                                    Tensor fc2_weight, int64_t dilation, bool relu,
                                    std::vector<bool> needs, bool /*allow_tf32*/, int64_t config) {
  const Saved saved{x,          y,          mean,     hidden, gate, weights,
                    fc1_weight, fc2_weight, dilation, config, relu};
  check_arguments(grad_out, saved, needs);
  std::optional<double> loss;
  if (grad_loss) {
    loss = grad_loss->scalar_type() == ScalarType::Double ? *data<double>(*grad_loss)
                                                          : *data<float>(*grad_loss);
  }
  return with_element_type(
      x, [&](auto element) { return backward<decltype(element)>(grad_out, loss, saved, needs); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CPU, m) {
  m.impl("sspcab_backward", TORCH_BOX(&sspcab_backward));
}

}  // namespace sspcab::cpu
