// Squeeze and excitation alone on the CPU, forward and backward.
#include "cpu/host/excitation.h"
#include "cpu/convolution/plan.h"
#include "cpu/host/operators.h"

namespace sspcab::cpu {
namespace {

// body(sample n, band b, rows) for bands of all samples.
template <class Body>
void for_each_band(const Workers& workers, int64_t samples, const Bands& bands, const Body& body) {
  workers.run(samples * bands.per_sample, [&](int64_t item, int64_t) {
    const int64_t b = item % bands.per_sample;
    body(item / bands.per_sample, b, bands.rows(b));
  });
}

}  // namespace

void Cpu::squeeze_excite(const SqueezeExcite& a, const Tensor& out, const Excited& excited) {
  const int64_t samples = a.x.size(0), hidden_size = a.fc1_weight.size(0);
  const Sample s = sample_of(out);
  const Tensor input = dense(a.x, s.channels_last);
  with_element_type(input, [&](auto element) {
    using D = decltype(element);
    using T = Compute<D>;
    const Kernels<D>& k = kernels<D>();
    const Workers workers(static_cast<double>(input.numel()));
    const Bands bands = Bands::choose(s, samples, workers.count(), s.height);
    const Excitation<D> excitation(a.fc1_weight, a.fc2_weight);
    const Parameter<T> bias1(a.fc1_bias), bias2(a.fc2_bias);
    const Buffer<double> sums = zeros<double>(samples * bands.per_sample * s.channels);
    for_each_band(workers, samples, bands, [&](int64_t n, int64_t b, Rows rows) {
      k.channel_sums(data<D>(input) + n * s.numel(), s, rows,
                     sums.get() + (n * bands.per_sample + b) * s.channels);
    });
    Workers(samples * excitation.work()).run(samples, [&](int64_t n, int64_t) {
      excitation.forward(sums.get() + n * bands.per_sample * s.channels, bands.per_sample,
                         s.pixels(), bias1.get(), bias2.get(),
                         mutable_data<T>(excited.mean) + n * s.channels,
                         mutable_data<T>(excited.hidden) + n * hidden_size,
                         mutable_data<T>(excited.gate) + n * s.channels);
    });
    for_each_band(workers, samples, bands, [&](int64_t n, int64_t, Rows rows) {
      k.scale(data<D>(input) + n * s.numel(), data<T>(excited.gate) + n * s.channels, nullptr, s,
              rows, mutable_data<D>(out) + n * s.numel());
    });
  });
}

std::vector<Tensor> Cpu::squeeze_excite_backward(const SqueezeExciteBackward& a) {
  const Tensor& x = a.x;
  const int64_t samples = x.size(0), hidden_size = a.fc1_weight.size(0);
  return with_element_type(x, [&](auto element) {
    using D = decltype(element);
    using T = Compute<D>;
    const Kernels<D>& k = kernels<D>();
    const Sample s = sample_of(x);
    const Tensor g = dense(a.grad_out, s.channels_last), input = dense(x, s.channels_last);
    const Tensor hidden_saved = dense(a.excited.hidden, false),
                 gate_saved = dense(a.excited.gate, false);
    const Tensor grad_x = a.needs[0] ? empty_image(x) : empty(x, {0}, x.scalar_type());
    ParameterGradient<T> grad_fc1_weight(a.fc1_weight, a.needs[1]),
        grad_fc1_bias(a.fc1_weight, {hidden_size}, a.needs[2]),
        grad_fc2_weight(a.fc2_weight, a.needs[3]),
        grad_fc2_bias(a.fc2_weight, {s.channels}, a.needs[4]);
    const Excitation<D> excitation(a.fc1_weight, a.fc2_weight);
    const OutputGradient<D> gradient{data<D>(g), data<D>(input), nullptr, data<T>(gate_saved), 0};
    const Buffer<T> grad_gate_input(samples * s.channels), grad_hidden_input(samples * hidden_size),
        grad_mean(samples * s.channels);
    const int64_t used = x.numel() > 0 ? samples : 0;
    if (used > 0) {
      const Workers workers(2.0 * x.numel());
      const Bands bands = Bands::choose(s, samples, workers.count(), s.height);
      const Buffer<double> grad_gate = zeros<double>(samples * bands.per_sample * s.channels);
      for_each_band(workers, samples, bands, [&](int64_t n, int64_t b, Rows rows) {
        k.gate_gradient(of_sample(gradient, s, n), s, rows,
                        grad_gate.get() + (n * bands.per_sample + b) * s.channels);
      });
      Workers(samples * excitation.work()).run(samples, [&](int64_t n, int64_t) {
        excitation.backward(grad_gate.get() + n * bands.per_sample * s.channels, bands.per_sample,
                            s.pixels(), data<T>(hidden_saved) + n * hidden_size,
                            gradient.gate + n * s.channels, grad_gate_input.get() + n * s.channels,
                            grad_hidden_input.get() + n * hidden_size,
                            grad_mean.get() + n * s.channels);
      });
      if (a.needs[0]) {
        for_each_band(workers, samples, bands, [&](int64_t n, int64_t, Rows rows) {
          k.scale_gradient(of_sample(gradient, s, n), grad_mean.get() + n * s.channels, s, rows,
                           mutable_data<D>(grad_x) + n * s.numel());
        });
      }
    }
    dense_parameter_gradients<D>(grad_hidden_input.get(), data<T>(dense(a.excited.mean, false)),
                                 used, hidden_size, s.channels, grad_fc1_weight, grad_fc1_bias);
    dense_parameter_gradients<D>(grad_gate_input.get(), data<T>(hidden_saved), used, s.channels,
                                 hidden_size, grad_fc2_weight, grad_fc2_bias);
    return std::vector<Tensor>{grad_x, grad_fc1_weight.finish(), grad_fc1_bias.finish(),
                               grad_fc2_weight.finish(), grad_fc2_bias.finish()};
  });
}

}  // namespace sspcab::cpu
