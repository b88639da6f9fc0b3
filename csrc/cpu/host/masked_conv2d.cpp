// The masked convolution alone on the CPU, forward and backward.
#include "cpu/host/convolution_gradient.h"
#include "cpu/host/operators.h"

namespace sspcab::cpu {

void Cpu::masked_conv2d(const MaskedConv2d& a, const Tensor& y) {
  const Tensor x = dense(a.x, is_channels_last(y));
  with_element_type(x, [&](auto element) {
    using D = decltype(element);
    using T = Compute<D>;
    const Sample s = sample_of(y);
    const auto convolution = make_convolution<D>(s, a.sub_kernels(), x.size(0), a.config);
    const Plan& plan = convolution->plan();
    const SubKernelWeights<T> weights(a.weights);
    const Filters<T> filters = convolution->prepare(weights.view(), /*mirrored=*/false);
    const Buffer<T> bias = zeros<T>(s.channels);
    for (const Tensor& b : a.biases) {
      kernels<D>().add_scaled(Parameter<T>(b).get(), 1, s.channels, bias.get());
    }
    for_each_group(plan, [&](int64_t first, int64_t count) {
      const int64_t offset = first * s.numel();
      convolution->forward(data<D>(x) + offset, count, plan.bands(count), filters, bias.get(),
                           a.relu, mutable_data<D>(y) + offset, /*sums=*/nullptr);
    });
  });
}

std::vector<Tensor> Cpu::masked_conv2d_backward(const MaskedConv2dBackward& a) {
  return with_element_type(a.x, [&](auto element) {
    using D = decltype(element);
    const Sample s = sample_of(a.x);
    const Tensor g = dense(a.grad_y, s.channels_last), y = dense(a.y, s.channels_last),
                 x = dense(a.x, s.channels_last);
    const auto convolution = make_convolution<D>(s, a.sub_kernels(), x.size(0), a.config);
    ConvolutionGradient<D> gradient(*convolution, a.x, a.weights, a.needs);
    const OutputGradient<D> of_y{data<D>(g), data<D>(y), nullptr, nullptr, 0};
    for_each_group(convolution->plan(), [&](int64_t first, int64_t count) {
      gradient.add(of_y, nullptr, a.relu, data<D>(x), first, count);
    });
    std::vector<Tensor> gradients;
    gradient.finish(gradients);
    return gradients;
  });
}

}  // namespace sspcab::cpu
