// mean((out - x)²) alone on CUDA, forward and backward.
#include "checks.h"
#include "cuda/host/tensors.h"

namespace sspcab::cuda {
namespace {

Tensor forward(Tensor out, Tensor x) {
  check_image("x", x);
  check_same_image("out", out, x);
  const DeviceGuard guard(x.get_device_index());
  Tensor loss = empty(x, {}, wide_type(x));
  if (x.numel() == 0) {  // the mean over nothing
    torch::stable::fill_(loss, std::numeric_limits<double>::quiet_NaN());
    return loss;
  }
  const Image image = image_of(x);
  const Tensor a = dense(out, image.channels_last), b = dense(x, image.channels_last);
  Workspace workspace;
  const size_t errors = workspace.add(error_parts(image) * sizeof(double));
  const size_t counter = workspace.add(sizeof(unsigned));
  workspace.allocate(x);
  reconstruction_loss(dtype_of(x), image, data(a), data(b), mutable_data(loss),
                      static_cast<double*>(workspace[errors]),
                      static_cast<unsigned*>(workspace[counter]), current_stream(x));
  return loss;
}

// grad_out; grad_x is its negative.
Tensor backward(Tensor grad_loss, Tensor out, Tensor x) {
  check_image("x", x);
  check_same_image("out", out, x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor grad_out = empty_image(x);
  if (x.numel() == 0) return grad_out;
  const Image image = image_of(x);
  const Tensor a = dense(out, image.channels_last), b = dense(x, image.channels_last);
  reconstruction_loss_gradient(dtype_of(x), image, data(grad_loss), data(a), data(b),
                               mutable_data(grad_out), current_stream(x));
  return grad_out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sspcab, CUDA, m) {
  m.impl("reconstruction_loss", TORCH_BOX(&forward));
  m.impl("reconstruction_loss_backward", TORCH_BOX(&backward));
}

}  // namespace sspcab::cuda
