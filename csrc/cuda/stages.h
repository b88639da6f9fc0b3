// What each CUDA stage is given and leaves behind: pointers and sizes, no torch. A stage is one
// launch; its kernel is in the .cuh file, its launcher in the .cu file of the same name in passes/
// (channel_sums and gate_gradient share one, activation_gradient and scale_gradient too;
// reconstruction_loss is in squared_error).
//
// D is the element type of images; W, of sums, gates and the loss: float, or double for double; P,
// of parameters and their gradients: D, or float beside a half-precision D. Every pointer is dense
// device memory of its stated type and shape. Launchers are called for images that have elements;
// C // r may be 0.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/image.h"

namespace sspcab::cuda {

enum class Dtype { Half, BFloat16, Float, Double };
constexpr int element_bytes(Dtype dtype) {
  return dtype == Dtype::Double ? 8 : dtype == Dtype::Float ? 4 : 2;
}
constexpr int wide_bytes(Dtype dtype) { return dtype == Dtype::Double ? 8 : 4; }

// Partial sums over the pixels of each sample and channel: W (slots, C).
struct ChannelSums {
  void* data = nullptr;
  SumSlots slots = {};
};

// The gradient of out = y · gate plus that of the loss, computed where it is needed:
// G = grad_out + grad_loss · 2 / loss_numel · (y · gate - x).
struct OutputGradient {
  Dtype dtype;
  Image image;
  const void* grad_out;   // D, null: 0
  const void* y;          // D
  const void* x;          // D, read where there is a grad_loss
  const void* gate;       // W (N, C), null: 1
  const void* grad_loss;  // W scalar, null: 0
  int64_t loss_numel;     // of what the loss is a mean of, the images of all groups of samples
};

struct Excitation {
  Dtype dtype, parameter_dtype;
  Image image;
  int64_t hidden;          // C // r
  const void* fc1_weight;  // P (C // r, C)
  const void* fc1_bias;    // P (C // r,); not for backward
  const void* fc2_weight;  // P (C, C // r)
  const void* fc2_bias;    // P (C,); not for backward
};

// --- pack: NCHW to channels_last, and sub-kernels to (tap, o, c) or, transposed, to (tap, c, o) in
// the type of images; either may be left out (x or weights[0] null), both are one launch, neither
// is none.
struct Packing {
  Dtype dtype, parameter_dtype;
  Image image;             // of x, NCHW
  const void* x;           // D (N, C, H, W)
  void* packed_x;          // D (N, H, W, C)
  const void* weights[4];  // P (C, C, k', k')
  void* packed_weights;    // D (4 k'², C, C), taps in the order of SubKernels
  int64_t taps_per_corner;
  bool transposed, as_tf32;  // as_tf32: float is rounded to TF32
};
void pack(const Packing& packing, cudaStream_t stream);

// --- channel_sums: Σ over pixels of x.
SumSlots channel_sum_slots(const Image& image);
void channel_sums(Dtype dtype, const Image& image, const void* x, const ChannelSums& sums,
                  cudaStream_t stream);

// --- gate: mean, hidden = relu(fc1 mean), gate = sigmoid(fc2 hidden); clears the counter that
// `scale` will use.
void gate(const Excitation& excitation, const ChannelSums& sums, void* mean /* W (N, C) */,
          void* hidden /* W (N, C // r) */, void* gate /* W (N, C) */, unsigned* counter,
          cudaStream_t stream);

// Where a launch leaves its partial errors, and what its last block does with them.
struct MeanOfErrors {
  double* errors;     // (parts of all launches)
  int64_t earlier;    // parts that earlier launches have left
  int64_t numel;      // of the images of all launches
  unsigned* counter;  // 0
  void* loss;         // W scalar, gets the mean; null: a later launch sees to it
};

// --- scale: out = y · gate and loss = mean((out - x)²) of the rounded out, whose last block adds
// up the partial errors, in order. Where x is null, loss is NaN. Returns the number of its parts,
// error_parts at most.
int64_t error_parts(const Image& image);
int64_t scale(Dtype dtype, const Image& image, const void* y, const void* gate, const void* x,
              void* out, const MeanOfErrors& mean, cudaStream_t stream);

// --- reconstruction_loss: the loss alone (its memset of the counter is a launch of its own), and
// its gradient grad_out = grad_loss · 2 / numel · (out - x). out and x have one layout.
void reconstruction_loss(Dtype dtype, const Image& image, const void* out, const void* x,
                         const MeanOfErrors& mean, cudaStream_t stream);
void reconstruction_loss_gradient(Dtype dtype, const Image& image, const void* grad_loss,
                                  const void* out, const void* x, void* grad_out,
                                  cudaStream_t stream);

// --- gate_gradient (backward 1): Σ over pixels of G · y, with channel_sum_slots; and the
// transposed weights of a packing without x, which needs no launch of its own then.
void gate_gradient(const OutputGradient& gradient, const Packing& packing,
                   const ChannelSums& grad_gate, cudaStream_t stream);

// --- excitation_gradient (backward 2): the gradients before the sigmoid and before the ReLU, and
// what each pixel's gradient gains through the mean (grad_mean, already divided by H · W).
void excitation_gradient(const Excitation& excitation, const ChannelSums& grad_gate,
                         const void* hidden /* W (N, C // r) */, const void* gate /* W (N, C) */,
                         void* grad_gate_input /* W (N, C) */,
                         void* grad_hidden_input /* W (N, C // r) */,
                         void* grad_mean /* W (N, C) */, cudaStream_t stream);

// --- activation_gradient (backward 3): grad_a = G · gate + grad_mean where not (y <= 0) or where
// there is no ReLU, else 0; D (N, H, W, C), channels_last whatever the layout of the images. The
// bias gradient's partial sums are of grad_a as D. as_tf32: float is then rounded to TF32, once for
// all of the products that it will be in.
int64_t bias_parts(const Image& image);
void activation_gradient(const OutputGradient& gradient, const void* grad_mean /* W, null: 0 */,
                         bool relu, bool as_tf32, void* grad_a,
                         void* bias_sums /* W (bias_parts, C) */, cudaStream_t stream);

// --- scale_gradient: grad_x = G · gate + grad_mean, in the layout of the images (for
// squeeze_excite alone, where y is its x).
void scale_gradient(const OutputGradient& gradient, const void* grad_mean, void* grad_x,
                    cudaStream_t stream);

// --- parameter_gradients (backward 6): finishes every parameter's gradient from sums of earlier
// stages, in order. A null result is not needed; with no splits, parts or samples it is 0.
struct ParameterGradients {
  Dtype dtype, parameter_dtype;
  int64_t samples, channels, hidden, taps_per_corner;
  const void* weight_sums;  // W (splits, 4 k'², C, C): tap, o, c; corners without need untouched
  int64_t splits;
  const void* bias_sums;  // W (bias_parts, C)
  int64_t bias_parts;
  const void* mean;               // W (N, C)
  const void* hidden_units;       // W (N, C // r)
  const void* grad_gate_input;    // W (N, C)
  const void* grad_hidden_input;  // W (N, C // r)
  void* grad_weights[4];          // P (C, C, k', k')
  void* grad_bias;                // P (C,)
  void* grad_fc1_weight;          // P (C // r, C)
  void* grad_fc1_bias;            // P (C // r,)
  void* grad_fc2_weight;          // P (C, C // r)
  void* grad_fc2_bias;            // P (C,)
};
void parameter_gradients(const ParameterGradients& gradients, cudaStream_t stream);

}  // namespace sspcab::cuda
