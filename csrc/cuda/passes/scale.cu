#include "cuda/passes/scale.cuh"

#include "cuda/launch.cuh"

namespace sspcab::cuda {

// As many as narrow copies need; `scale` with wide ones has fewer blocks.
int64_t error_parts(const Image& image) { return Partition::of(image, 1).blocks(); }

void scale(Dtype dtype, const Image& image, const void* y, const void* gate, const void* x,
           void* out, void* loss, double* errors, unsigned* counter, cudaStream_t stream) {
  with_layout(dtype, image, [&](auto d, auto vector, auto channels_last) {
    using D = decltype(d);
    using W = Wide<D>;
    const Partition partition = Partition::of(image, vector);
    const MeanError<W> mean_error{static_cast<W*>(loss), errors, counter, image.numel()};
    const auto run = [&](auto kernel) {
      launch(kernel, partition.blocks(), kWalkThreads, 0, stream, partition, mean_error,
             static_cast<const D*>(y), static_cast<const W*>(gate), static_cast<const D*>(x),
             static_cast<D*>(out));
    };
    if (x) {
      run(scale_kernel<D, vector, channels_last, true>);
    } else {
      run(scale_kernel<D, vector, channels_last, false>);
    }
  });
}

}  // namespace sspcab::cuda
