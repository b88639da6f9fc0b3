// The operators on CUDA.
#include "cuda/host/operators.h"

#include "operators/operators.h"

STABLE_TORCH_LIBRARY_IMPL(sspcab, CUDA, m) {
  using Device = sspcab::Operators<sspcab::cuda::Cuda>;
  m.impl("masked_conv2d", TORCH_BOX(&Device::masked_conv2d));
  m.impl("masked_conv2d_backward", TORCH_BOX(&Device::masked_conv2d_backward));
  m.impl("squeeze_excite", TORCH_BOX(&Device::squeeze_excite));
  m.impl("squeeze_excite_backward", TORCH_BOX(&Device::squeeze_excite_backward));
  m.impl("reconstruction_loss", TORCH_BOX(&Device::reconstruction_loss));
  m.impl("reconstruction_loss_backward", TORCH_BOX(&Device::reconstruction_loss_backward));
  m.impl("sspcab", TORCH_BOX(&Device::sspcab));
  m.impl("sspcab_inference", TORCH_BOX(&Device::sspcab_inference));
  m.impl("sspcab_backward", TORCH_BOX(&Device::sspcab_backward));
}
