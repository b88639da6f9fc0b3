// Every operator of the library. The public ones are called by sspcab_cuda/functional.py; those
// that end in _backward, and sspcab_inference, are private parts of them.
//
//   x, y, out             (N, C, H, W)
//   weight1..4, bias1..4  (C, C, k', k') and (C,): corners top-left, bottom-left, top-right,
//                         bottom-right; single arguments, because PyTorch's autograd takes 0.1 ms
//                         longer for lists
//   fc1_*, fc2_*          (C // r, C), (C // r,) and (C, C // r), (C,)
//   mean, gate            (N, C), hidden (N, C // r): float32, or float64 for float64 x
//   allow_tf32            on CUDA, float32 convolutions may round their operands to TF32; the CPU
//                         takes no notice
//   config                how convolutions are computed, -1 chosen by the size. On CUDA 0 to 2 are
//                         tiles from large to small, 3 plain kernels; on a CPU 0 is the direct way,
//                         1 Winograd's filtering, 2 products of windows
//   needs                 which gradients to compute; the others come back empty
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(sspcab, m) {
  m.def(
      "masked_conv2d(Tensor x, Tensor weight1, Tensor weight2, Tensor weight3, Tensor weight4, "
      "Tensor bias1, Tensor bias2, Tensor bias3, Tensor bias4, int dilation, bool relu, "
      "bool allow_tf32=False, int config=-1) -> Tensor");
  // needs: x, the four weights, the (one) gradient of every bias
  m.def(
      "masked_conv2d_backward(Tensor grad_y, Tensor x, Tensor y, Tensor[] weights, int dilation, "
      "bool relu, bool[] needs, bool allow_tf32=False, int config=-1) -> Tensor[]");

  m.def(
      "squeeze_excite(Tensor x, Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight, "
      "Tensor fc2_bias) -> (Tensor out, Tensor mean, Tensor hidden, Tensor gate)");
  // needs: x, fc1_weight, fc1_bias, fc2_weight, fc2_bias
  m.def(
      "squeeze_excite_backward(Tensor grad_out, Tensor x, Tensor mean, Tensor hidden, "
      "Tensor gate, Tensor fc1_weight, Tensor fc2_weight, bool[] needs) -> Tensor[]");

  m.def("reconstruction_loss(Tensor out, Tensor x) -> Tensor");
  m.def("reconstruction_loss_backward(Tensor grad_loss, Tensor out, Tensor x) -> Tensor");

  // The whole block. Without with_loss, loss is NaN.
  m.def(
      "sspcab(Tensor x, Tensor weight1, Tensor weight2, Tensor weight3, Tensor weight4, "
      "Tensor bias1, Tensor bias2, Tensor bias3, Tensor bias4, Tensor fc1_weight, "
      "Tensor fc1_bias, Tensor fc2_weight, Tensor fc2_bias, int dilation, bool relu, "
      "bool with_loss, bool allow_tf32=False, int config=-1) "
      "-> (Tensor out, Tensor loss, Tensor y, Tensor mean, Tensor hidden, Tensor gate)");
  m.def(
      "sspcab_inference(Tensor x, Tensor weight1, Tensor weight2, Tensor weight3, "
      "Tensor weight4, Tensor bias1, Tensor bias2, Tensor bias3, Tensor bias4, "
      "Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight, Tensor fc2_bias, int dilation, "
      "bool relu, bool with_loss, bool allow_tf32=False, int config=-1) "
      "-> (Tensor out, Tensor loss)");
  // needs: x, the four weights, the (one) gradient of every bias, fc1_weight, fc1_bias,
  // fc2_weight, fc2_bias
  m.def(
      "sspcab_backward(Tensor? grad_out, Tensor? grad_loss, Tensor x, Tensor y, Tensor mean, "
      "Tensor hidden, Tensor gate, Tensor[] weights, Tensor fc1_weight, Tensor fc2_weight, "
      "int dilation, bool relu, bool[] needs, bool allow_tf32=False, int config=-1) -> Tensor[]");
}
