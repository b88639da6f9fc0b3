#include "cuda/passes/scale.cuh"

#include "cuda/launch.cuh"

namespace sspcab::cuda {

// As many as narrow copies need; `scale` with wide ones has fewer blocks.
int64_t error_parts(const Image& image) { return Partition::of(image, 1).blocks(); }

int64_t scale(Dtype dtype, const Image& image, const void* y, const void* gate, const void* x,
              void* out, const MeanOfErrors& mean, cudaStream_t stream) {
  int64_t parts = 0;
  with_layout(dtype, image, [&](auto d, auto vector, auto channels_last) {
    using D = decltype(d);
    using W = Wide<D>;
    const Partition partition = Partition::of(image, vector);
    parts = partition.blocks();
    const auto run = [&](auto kernel) {
      launch(kernel, parts, kWalkThreads, 0, stream, partition, mean, static_cast<const D*>(y),
             static_cast<const W*>(gate), static_cast<const D*>(x), static_cast<D*>(out));
    };
    if (x) {
      run(scale_kernel<D, vector, channels_last, true>);
    } else {
      run(scale_kernel<D, vector, channels_last, false>);
    }
  });
  return parts;
}

}  // namespace sspcab::cuda
