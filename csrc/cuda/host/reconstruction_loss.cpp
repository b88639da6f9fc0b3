// mean((out - x)²) alone on CUDA, forward and backward.
#include "cuda/host/operators.h"

namespace sspcab::cuda {

void Cuda::reconstruction_loss(const ReconstructionLoss& a, const Tensor& loss) {
  const Image image = image_of(a.x);
  const Tensor out = dense(a.out, image.channels_last), x = dense(a.x, image.channels_last);
  Workspace workspace;
  const size_t errors = workspace.add(error_parts(image) * sizeof(double));
  const size_t counter = workspace.add(sizeof(unsigned));
  const Scratch scratch = workspace.allocate(x);
  cuda::reconstruction_loss(dtype_of(x), image, data(out), data(x),
                            {static_cast<double*>(scratch[errors]), /*earlier=*/0, image.numel(),
                             static_cast<unsigned*>(scratch[counter]), mutable_data(loss)},
                            current_stream(x));
}

void Cuda::reconstruction_loss_backward(const Tensor& grad_loss, const ReconstructionLoss& a,
                                        const Tensor& grad_out) {
  const Image image = image_of(a.x);
  const Tensor out = dense(a.out, image.channels_last), x = dense(a.x, image.channels_last);
  reconstruction_loss_gradient(dtype_of(x), image, data(grad_loss), data(out), data(x),
                               mutable_data(grad_out), current_stream(x));
}

}  // namespace sspcab::cuda
