// The masked convolution alone on the CPU, forward and backward.
#include "checks.h"
#include "cpu/convolution_gradient.h"

namespace sspcab::cpu {
namespace {

template <class D>
void forward(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
             int64_t dilation, bool relu, int64_t config, const Tensor& y) {
  using T = Compute<D>;
  const Sample s = sample_of(y);
  const int64_t samples = x.size(0);
  const MaskedConvolution<D> conv(s, {weights[0].size(3), dilation}, samples, config);
  const SubKernelWeights<T> sub_kernels(weights);
  const Filters<T> filters = conv.prepare(sub_kernels.view(), /*mirrored=*/false);
  const Buffer<T> bias = zeros<T>(s.channels);
  for (const Tensor& b : biases) {
    kernels<D>().add_scaled(Parameter<T>(b).get(), 1, s.channels, bias.get());
  }
  conv.forward(data<D>(x), samples, conv.bands(samples), filters, bias.get(), relu,
               mutable_data<D>(y), /*sums=*/nullptr);
}

Tensor masked_conv2d(Tensor x, Tensor weight1, Tensor weight2, Tensor weight3, Tensor weight4,
                     Tensor bias1, Tensor bias2, Tensor bias3, Tensor bias4, int64_t dilation,
                     bool relu, bool /*allow_tf32*/, int64_t config) {
  const std::vector<Tensor> weights{weight1, weight2, weight3, weight4};
  const std::vector<Tensor> biases{bias1, bias2, bias3, bias4};
  check_image("x", x);
  check_config(config);
  check_sub_kernels(x, weights, dilation);
  check_biases(x, biases, weights[0]);
  const Tensor y = empty_image(x);
  if (x.numel() == 0) return y;
  const Tensor input = dense(x, is_channels_last(y));
  with_element_type(x, [&](auto element) {
    forward<decltype(element)>(input, weights, biases, dilation, relu, config, y);
  });
  return y;
}

std::vector<Tensor> masked_conv2d_backward(Tensor grad_y, Tensor x, Tensor y,
                                           std::vector<Tensor> weights, int64_t dilation, bool relu,
                                           std::vector<bool> needs, bool /*allow_tf32*/,
                                           int64_t config) {
  check_image("x", x);
  check_config(config);
  check_sub_kernels(x, weights, dilation);
  check_same_image("y", y, x);
  check_same_image("grad_y", grad_y, x);
  check(needs.size() == 6, "needs must have 6 entries; got ", needs.size());
  return with_element_type(x, [&](auto element) {
    using D = decltype(element);
    const Sample s = sample_of(x);
    const Tensor g = dense(grad_y, s.channels_last), y_dense = dense(y, s.channels_last),
                 x_dense = dense(x, s.channels_last);
    const MaskedConvolution<D> conv(s, {weights[0].size(3), dilation}, x.size(0), config);
    ConvolutionGradient<D> gradient(conv, x, weights, needs);
    const OutputGradient<D> of_y{data<D>(g), data<D>(y_dense), nullptr, nullptr, 0};
    for_each_group<D>(s, x.size(0), [&](int64_t first, int64_t count) {
      gradient.add(of_y, nullptr, relu, data<D>(x_dense), first, count);
    });
    std::vector<Tensor> gradients;
    gradient.finish(gradients);
    return gradients;
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CPU, m) {
  m.impl("masked_conv2d", TORCH_BOX(&masked_conv2d));
  m.impl("masked_conv2d_backward", TORCH_BOX(&masked_conv2d_backward));
}

}  // namespace sspcab::cpu
