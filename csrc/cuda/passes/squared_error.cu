#include "cuda/passes/squared_error.cuh"

#include "cuda/launch.cuh"

namespace sspcab::cuda {
namespace {

// Elements of a block, so that there are about as many blocks as parts: whole passes of 16-byte
// copies by all threads.
template <class D>
int64_t chunk_of(const Image& image) {
  constexpr int64_t pass = kWalkThreads * kVector<D>;
  return divide_up(divide_up(image.numel(), error_parts(image)), pass) * pass;
}

}  // namespace

void reconstruction_loss(Dtype dtype, const Image& image, const void* out, const void* x,
                         const MeanOfErrors& mean, cudaStream_t stream) {
  check_cuda(cudaMemsetAsync(mean.counter, 0, sizeof(*mean.counter), stream), "memset");
  with_type(dtype, [&](auto d) {
    using D = decltype(d);
    const int64_t chunk = chunk_of<D>(image);
    launch(reconstruction_loss_kernel<D>, divide_up(image.numel(), chunk), kWalkThreads, 0, stream,
           mean, chunk, static_cast<const D*>(out), static_cast<const D*>(x));
  });
}

void reconstruction_loss_gradient(Dtype dtype, const Image& image, const void* grad_loss,
                                  const void* out, const void* x, void* grad_out,
                                  cudaStream_t stream) {
  with_type(dtype, [&](auto d) {
    using D = decltype(d);
    const int64_t chunk = chunk_of<D>(image);
    launch(reconstruction_loss_gradient_kernel<D>, divide_up(image.numel(), chunk), kWalkThreads, 0,
           stream, image.numel(), chunk, static_cast<const Wide<D>*>(grad_loss),
           static_cast<const D*>(out), static_cast<const D*>(x), static_cast<D*>(grad_out));
  });
}

}  // namespace sspcab::cuda
