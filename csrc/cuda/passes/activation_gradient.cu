#include "cuda/passes/activation_gradient.cuh"

#include "cuda/launch.cuh"

namespace sspcab::cuda {

int64_t bias_parts(const Image& image) {
  const int64_t tile =
      image.channels_last ? Partition::tile_of(image) : Transposition::tile_of(image);
  return image.samples * divide_up(image.pixels(), tile);
}

void activation_gradient(const OutputGradient& gradient, const void* grad_mean, bool relu,
                         bool as_tf32, void* grad_a, void* bias_sums, cudaStream_t stream) {
  const Image& image = gradient.image;
  const ActivationGradient task{gradient, grad_mean, relu, as_tf32, grad_a, bias_sums};
  with_layout(gradient.dtype, image, [&](auto d, auto vector, auto channels_last) {
    using D = decltype(d);
    if constexpr (channels_last) {
      const Partition partition = Partition::of(image, vector);
      launch(activation_gradient_kernel<D, vector>, partition.blocks(), kWalkThreads, 0, stream,
             partition, task);
    } else {
      const Transposition transposition = Transposition::of<D>(image);
      const auto run = [&](auto kernel) {
        launch(kernel, transposition.blocks(), kTransposeThreads, 0, stream, transposition, task);
      };
      if (image.channels % kVector<D> == 0) {
        run(transposed_activation_gradient_kernel<D, vector, kVector<D>>);
      } else {
        run(transposed_activation_gradient_kernel<D, vector, 1>);
      }
    }
  });
}

void scale_gradient(const OutputGradient& gradient, const void* grad_mean, void* grad_x,
                    cudaStream_t stream) {
  with_layout(gradient.dtype, gradient.image, [&](auto d, auto vector, auto channels_last) {
    using D = decltype(d);
    const Partition partition = Partition::of(gradient.image, vector);
    launch(scale_gradient_kernel<D, vector, channels_last>, partition.blocks(), kWalkThreads, 0,
           stream, partition, gradient, static_cast<const Wide<D>*>(grad_mean),
           static_cast<D*>(grad_x));
  });
}

}  // namespace sspcab::cuda
