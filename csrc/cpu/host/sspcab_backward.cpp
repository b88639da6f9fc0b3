// The whole block on the CPU, backward: (1) gradient of the gate, (2) excitation, (3) gradient of
// the pre-activation and the bias, (4) grad_x, (5) the four weight gradients, group of samples by
// group of samples.
#include "cpu/host/convolution_gradient.h"
#include "cpu/host/excitation.h"
#include "cpu/host/operators.h"

namespace sspcab::cpu {
namespace {

template <class D>
std::vector<Tensor> backward(const SspcabBackward& a, std::optional<double> grad_loss) {
  using T = Compute<D>;
  const Kernels<D>& k = kernels<D>();
  const Sample s = sample_of(a.x);
  const Tensor x = dense(a.x, s.channels_last), y = dense(a.y, s.channels_last);
  const int64_t samples = x.size(0), channels = s.channels, hidden = a.fc1_weight.size(0);
  const auto convolution = make_convolution<D>(s, a.sub_kernels(), samples, a.config);
  const Plan& plan = convolution->plan();
  ConvolutionGradient<D> convolution_gradient(*convolution, a.x, a.weights, a.needs);
  const Excitation<D> excitation(a.fc1_weight, a.fc2_weight);
  ParameterGradient<T> grad_fc1_weight(a.fc1_weight, a.needs[6]),
      grad_fc1_bias(a.fc1_weight, {hidden}, a.needs[7]), grad_fc2_weight(a.fc2_weight, a.needs[8]),
      grad_fc2_bias(a.fc2_weight, {channels}, a.needs[9]);
  const Tensor hidden_saved = dense(a.excited.hidden, false), gate = dense(a.excited.gate, false);

  const std::optional<Tensor> dense_grad_out =
      a.grad_out ? std::optional<Tensor>(dense(*a.grad_out, s.channels_last)) : std::nullopt;
  const OutputGradient<D> gradient{dense_grad_out ? data<D>(*dense_grad_out) : nullptr, data<D>(y),
                                   grad_loss ? data<D>(x) : nullptr, data<T>(gate),
                                   static_cast<T>(grad_loss.value_or(0) * 2 / x.numel())};
  const Buffer<T> grad_gate_input(samples * channels), grad_hidden_input(samples * hidden),
      grad_mean(samples * channels);
  for_each_group(plan, [&](int64_t first, int64_t count) {
    const Bands bands = plan.bands(count);
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
      convolution_gradient.add(gradient, grad_mean.get() + first * channels, a.relu, data<D>(x),
                               first, count);
    }
  });
  const int64_t used = s.numel() > 0 ? samples : 0;
  dense_parameter_gradients<D>(grad_hidden_input.get(), data<T>(dense(a.excited.mean, false)), used,
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

}  // namespace

std::vector<Tensor> Cpu::sspcab_backward(const SspcabBackward& a) {
  std::optional<double> loss;
  if (a.grad_loss) {
    loss = a.grad_loss->scalar_type() == ScalarType::Double ? *data<double>(*a.grad_loss)
                                                            : *data<float>(*a.grad_loss);
  }
  return with_element_type(a.x, [&](auto element) { return backward<decltype(element)>(a, loss); });
}

}  // namespace sspcab::cpu
