// The whole block on the CPU, forward: (A) masked convolution, bias, ReLU and channel sums, (B)
// gate, (C) scaling and reconstruction error, group of samples by group of samples.
#include "cpu/host/excitation.h"
#include "cpu/convolution/make_convolution.h"
#include "cpu/host/operators.h"

namespace sspcab::cpu {
namespace {

template <class D>
void forward(const Sspcab& block, const Tensor& x, const SspcabResults& result) {
  using T = Compute<D>;
  const Kernels<D>& k = kernels<D>();
  const Sample s = sample_of(result.out);
  const int64_t samples = x.size(0), channels = s.channels, hidden = block.fc1_weight.size(0);
  const MaskedConv2d& a = block.convolution;
  const auto convolution = make_convolution<D>(s, a.sub_kernels(), samples, a.config);
  const Plan& plan = convolution->plan();
  const SubKernelWeights<T> weights(a.weights);
  const Buffer<T> bias = zeros<T>(channels);
  for (const Tensor& b : a.biases) k.add_scaled(Parameter<T>(b).get(), 1, channels, bias.get());
  const Excitation<D> excitation(block.fc1_weight, block.fc2_weight);
  const Parameter<T> fc1_bias(block.fc1_bias), fc2_bias(block.fc2_bias);

  const D* x_data = data<D>(x);
  D* out = mutable_data<D>(result.out);
  const bool keeps = result.keeps();
  const Filters<T> filters = convolution->prepare(weights.view(), /*mirrored=*/false);
  D* y = keeps ? mutable_data<D>(result.y) : out;
  const Buffer<T> excited(keeps ? 0 : samples * (2 * channels + hidden));
  T* mean = keeps ? mutable_data<T>(result.excited.mean) : excited.get();
  T* gate = keeps ? mutable_data<T>(result.excited.gate) : excited.get() + samples * channels;
  T* hidden_data =
      keeps ? mutable_data<T>(result.excited.hidden) : excited.get() + 2 * samples * channels;
  double error = 0;
  for_each_group(plan, [&](int64_t first, int64_t count) {
    const int64_t offset = first * s.numel();
    const Bands bands = plan.bands(count);
    const Buffer<double> sums = zeros<double>(count * bands.per_sample * channels);
    convolution->forward(x_data + offset, count, bands, filters, bias.get(), a.relu, y + offset,
                         sums.get());
    Workers(count * excitation.work()).run(count, [&](int64_t i, int64_t) {
      const int64_t n = first + i;
      excitation.forward(sums.get() + i * bands.per_sample * channels, bands.per_sample, s.pixels(),
                         fc1_bias.get(), fc2_bias.get(), mean + n * channels,
                         hidden_data + n * hidden, gate + n * channels);
    });
    const int64_t items = count * bands.per_sample;
    const Buffer<double> errors(items);
    Workers(static_cast<double>(count) * s.numel()).run(items, [&](int64_t item, int64_t) {
      const int64_t n = first + item / bands.per_sample;
      errors[item] = k.scale(y + n * s.numel(), gate + n * channels,
                             block.with_loss ? x_data + n * s.numel() : nullptr, s,
                             bands.rows(item % bands.per_sample), out + n * s.numel());
    });
    for (int64_t item = 0; item < items; ++item) error += errors[item];
  });
  *mutable_data<T>(result.loss) = block.with_loss ? static_cast<T>(error / (samples * s.numel()))
                                                  : std::numeric_limits<T>::quiet_NaN();
}

}  // namespace

void Cpu::sspcab(const Sspcab& block, const SspcabResults& result) {
  const Tensor x = dense(block.x(), is_channels_last(result.out));
  with_element_type(x, [&](auto element) { forward<decltype(element)>(block, x, result); });
}

}  // namespace sspcab::cpu
