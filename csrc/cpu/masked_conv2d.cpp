// The masked convolution alone on the CPU, forward and backward.
#include "cpu/convolution_gradient.h"
#include "cpu/operators.h"

namespace sspcab::cpu {

void Cpu::masked_conv2d(const MaskedConv2d& a, const Tensor& y) {
  const Tensor x = dense(a.x, is_channels_last(y));
  with_element_type(x, [&](auto element) {
    using D = decltype(element);
    using T = Compute<D>;
    const Sample s = sample_of(y);
    const int64_t samples = x.size(0);
    const MaskedConvolution<D> conv(s, {a.weights[0].size(3), a.dilation}, samples, a.config);
    const SubKernelWeights<T> sub_kernels(a.weights);
    const Filters<T> filters = conv.prepare(sub_kernels.view(), /*mirrored=*/false);
    const Buffer<T> bias = zeros<T>(s.channels);
    for (const Tensor& b : a.biases) {
      kernels<D>().add_scaled(Parameter<T>(b).get(), 1, s.channels, bias.get());
    }
    for_each_group<D>(s, samples, [&](int64_t first, int64_t count) {
      const int64_t offset = first * s.numel();
      conv.forward(data<D>(x) + offset, count, conv.bands(count), filters, bias.get(), a.relu,
                   mutable_data<D>(y) + offset, /*sums=*/nullptr);
    });
  });
}

std::vector<Tensor> Cpu::masked_conv2d_backward(const MaskedConv2dBackward& a) {
  return with_element_type(a.x, [&](auto element) {
    using D = decltype(element);
    const Sample s = sample_of(a.x);
    const Tensor g = dense(a.grad_y, s.channels_last), y = dense(a.y, s.channels_last),
                 x = dense(a.x, s.channels_last);
    const MaskedConvolution<D> conv(s, {a.weights[0].size(3), a.dilation}, x.size(0), a.config);
    ConvolutionGradient<D> gradient(conv, a.x, a.weights, a.needs);
    const OutputGradient<D> of_y{data<D>(g), data<D>(y), nullptr, nullptr, 0};
    for_each_group<D>(s, x.size(0), [&](int64_t first, int64_t count) {
      gradient.add(of_y, nullptr, a.relu, data<D>(x), first, count);
    });
    std::vector<Tensor> gradients;
    gradient.finish(gradients);
    return gradients;
  });
}

}  // namespace sspcab::cpu
