// Squeeze and excitation alone on the CPU, forward and backward.
#include "checks.h"
#include "cpu/excitation.h"
#include "cpu/masked_convolution.h"

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

std::tuple<Tensor, Tensor, Tensor, Tensor> squeeze_excite(Tensor x, Tensor fc1_weight,
                                                          Tensor fc1_bias, Tensor fc2_weight,
                                                          Tensor fc2_bias) {
  check_image("x", x);
  check_excitation(x, fc1_weight, fc2_weight, fc1_weight);
  check_excitation_biases(x, fc1_weight, fc1_bias, fc2_bias);
  const int64_t samples = x.size(0), hidden_size = fc1_weight.size(0);
  const ScalarType wide = wide_type(x);
  const Tensor out = empty_image(x), mean = empty(x, {samples, x.size(1)}, wide),
               hidden = empty(x, {samples, hidden_size}, wide),
               gate = empty(x, {samples, x.size(1)}, wide);
  if (x.numel() == 0) {
    for (Tensor t : {mean, hidden, gate}) {
      torch::stable::fill_(t, std::numeric_limits<double>::quiet_NaN());
    }
    return {out, mean, hidden, gate};
  }
  const Sample s = sample_of(out);
  const Tensor input = dense(x, s.channels_last);
  with_element_type(x, [&](auto element) {
    using D = decltype(element);
    using T = Compute<D>;
    const Kernels<D>& k = kernels<D>();
    const Workers workers(static_cast<double>(x.numel()));
    const Bands bands = Bands::choose(s, samples, workers.count(), s.height);
    const Excitation<D> excitation(fc1_weight, fc2_weight);
    const Parameter<T> bias1(fc1_bias), bias2(fc2_bias);
    const Buffer<T> sums = zeros<T>(samples * bands.per_sample * s.channels);
    for_each_band(workers, samples, bands, [&](int64_t n, int64_t b, Rows rows) {
      k.channel_sums(data<D>(input) + n * s.numel(), s, rows,
                     sums.get() + (n * bands.per_sample + b) * s.channels);
    });
    Workers(samples * excitation.work()).run(samples, [&](int64_t n, int64_t) {
      excitation.forward(
          sums.get() + n * bands.per_sample * s.channels, bands.per_sample, s.pixels(), bias1.get(),
          bias2.get(), mutable_data<T>(mean) + n * s.channels,
          mutable_data<T>(hidden) + n * hidden_size, mutable_data<T>(gate) + n * s.channels);
    });
    for_each_band(workers, samples, bands, [&](int64_t n, int64_t, Rows rows) {
      k.scale(data<D>(input) + n * s.numel(), data<T>(gate) + n * s.channels, nullptr, s, rows,
              mutable_data<D>(out) + n * s.numel());
    });
  });
  return {out, mean, hidden, gate};
}

std::vector<Tensor> squeeze_excite_backward(Tensor grad_out, Tensor x, Tensor mean, Tensor hidden,
                                            Tensor gate, Tensor fc1_weight, Tensor fc2_weight,
                                            std::vector<bool> needs) {
  check_image("x", x);
  check_same_image("grad_out", grad_out, x);
  check_excitation(x, fc1_weight, fc2_weight, fc1_weight);
  check(needs.size() == 5, "needs must have 5 entries; got ", needs.size());
  const int64_t samples = x.size(0), hidden_size = fc1_weight.size(0);
  check_shape("mean", mean, {samples, x.size(1)}, x);
  check_shape("hidden", hidden, {samples, hidden_size}, x);
  check_shape("gate", gate, {samples, x.size(1)}, x);
  return with_element_type(x, [&](auto element) {
    using D = decltype(element);
    using T = Compute<D>;
    const Kernels<D>& k = kernels<D>();
    const Sample s = sample_of(x);
    const Tensor g = dense(grad_out, s.channels_last), input = dense(x, s.channels_last);
    const Tensor hidden_saved = dense(hidden, false), gate_saved = dense(gate, false);
    const Tensor grad_x = needs[0] ? empty_image(x) : empty(x, {0}, x.scalar_type());
    ParameterGradient<T> grad_fc1_weight(fc1_weight, needs[1]),
        grad_fc1_bias(fc1_weight, {hidden_size}, needs[2]), grad_fc2_weight(fc2_weight, needs[3]),
        grad_fc2_bias(fc2_weight, {s.channels}, needs[4]);
    const Excitation<D> excitation(fc1_weight, fc2_weight);
    const OutputGradient<D> gradient{data<D>(g), data<D>(input), nullptr, data<T>(gate_saved), 0};
    const Buffer<T> grad_gate_input(samples * s.channels), grad_hidden_input(samples * hidden_size),
        grad_mean(samples * s.channels);
    const int64_t used = x.numel() > 0 ? samples : 0;
    if (used > 0) {
      const Workers workers(2.0 * x.numel());
      const Bands bands = Bands::choose(s, samples, workers.count(), s.height);
      const Buffer<T> grad_gate = zeros<T>(samples * bands.per_sample * s.channels);
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
      if (needs[0]) {
        for_each_band(workers, samples, bands, [&](int64_t n, int64_t, Rows rows) {
          k.scale_gradient(of_sample(gradient, s, n), grad_mean.get() + n * s.channels, s, rows,
                           mutable_data<D>(grad_x) + n * s.numel());
        });
      }
    }
    dense_parameter_gradients<D>(grad_hidden_input.get(), data<T>(dense(mean, false)), used,
                                 hidden_size, s.channels, grad_fc1_weight, grad_fc1_bias);
    dense_parameter_gradients<D>(grad_gate_input.get(), data<T>(hidden_saved), used, s.channels,
                                 hidden_size, grad_fc2_weight, grad_fc2_bias);
    return std::vector<Tensor>{grad_x, grad_fc1_weight.finish(), grad_fc1_bias.finish(),
                               grad_fc2_weight.finish(), grad_fc2_bias.finish()};
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CPU, m) {
  m.impl("squeeze_excite", TORCH_BOX(&squeeze_excite));
  m.impl("squeeze_excite_backward", TORCH_BOX(&squeeze_excite_backward));
}

}  // namespace sspcab::cpu
