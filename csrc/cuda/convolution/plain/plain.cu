#include "cuda/convolution/plain/plain.cuh"
#include "cuda/launch.cuh"

namespace sspcab::cuda {
namespace {

constexpr int kPlainThreads = 256;

template <class... Parameters, class... Arguments>
void launch_for(int64_t threads, void (*kernel)(Parameters...), cudaStream_t stream,
                const Arguments&... arguments) {
  launch(kernel, divide_up(threads, kPlainThreads), kPlainThreads, 0, stream, arguments...);
}

}  // namespace

void plain_convolve(const PlainConvolution& convolution, const Forward& forward,
                    cudaStream_t stream) {
  with_types(convolution.dtype, convolution.parameter_dtype, [&](auto d, auto p) {
    launch_for(convolution.image.numel(), plain_forward_kernel<decltype(d), decltype(p)>, stream,
               convolution, forward);
  });
}

void plain_input_gradient(const PlainConvolution& convolution, const InputGradient& gradient,
                          cudaStream_t stream) {
  with_types(convolution.dtype, convolution.parameter_dtype, [&](auto d, auto p) {
    launch_for(convolution.image.numel(), plain_input_gradient_kernel<decltype(d), decltype(p)>,
               stream, convolution, gradient);
  });
}

void plain_weight_gradient(const PlainConvolution& convolution, const WeightGradient& gradient,
                           cudaStream_t stream) {
  const int64_t channels = convolution.image.channels;
  with_type(convolution.dtype, [&](auto d) {
    launch_for(convolution.sub_kernels.taps() * channels * channels,
               plain_weight_gradient_kernel<decltype(d)>, stream, convolution, gradient);
  });
}

}  // namespace sspcab::cuda
