// The masked convolution and its gradients as they were planned (plan/plan.h): what is packed, what
// is launched. Shared by the whole block and by masked_conv2d alone.
#pragma once

#include "checks.h"
#include "cuda/convolution/plain/plain.h"
#include "cuda/host/device.h"
#include "cuda/host/tensors.h"
#include "cuda/plan/plan.h"

namespace sspcab::cuda {

// Inside the device guard of x.
inline Problem problem_of(const Tensor& x, const std::vector<Tensor>& weights,
                          SubKernels sub_kernels, bool allow_tf32, int64_t config) {
  const Problem problem{dtype_of(x), dtype_of(weights[0]),     image_of(x),     sub_kernels,
                        allow_tf32,  static_cast<int>(config), current_device()};
  check(problem.can_be_tiled() || config == kAutomatic || config == kPlain, "config ", config,
        " needs compute capability 8.0 or higher, channels that fill 16 bytes and distances within "
        "2^30 pixels; got x of ",
        Shape(x));
  return problem;
}

// What a convolution reads, for one group of samples.
struct Operands {
  Convolution convolution;  // with the filters
  const void* x;
  Packing packing;  // to be launched before
};

class MaskedConvolution {
 public:
  // Transposed filters are for gradients.
  MaskedConvolution(const Problem& problem, const std::vector<Tensor>& weights,
                    const PackedBytes& packed, bool transposed, Workspace& workspace)
      : problem_(problem), transposed_(transposed) {
    for (const Tensor& weight : weights) weights_.push_back(dense(weight));
    if (packed.x > 0) packed_x_ = workspace.add(packed.x);
    if (packed.weights > 0) packed_weights_ = workspace.add(packed.weights);
  }

  // `x`: the group's own; the first group packs the weights of all.
  Operands operands(const Group& group, const void* x, const Scratch& scratch) const {
    const int64_t matrix = group.image.channels * group.image.channels;
    const int64_t taps = problem_.sub_kernels.taps_per_corner();
    Operands operands{problem_.convolution(group.image), x, {}};
    operands.convolution.tap_stride = matrix;
    for (int i = 0; i < 4; ++i) {
      operands.convolution.corner[i] = packed_weights_
                                           ? static_cast<const char*>(scratch[*packed_weights_]) +
                                                 i * taps * matrix * element_bytes(problem_.dtype)
                                           : data(weights_[i]);
    }
    Packing& packing = operands.packing;
    packing.dtype = problem_.dtype;
    packing.parameter_dtype = problem_.parameter_dtype;
    packing.image = group.image;
    packing.taps_per_corner = taps;
    packing.transposed = transposed_;
    packing.as_tf32 = transposed_ && problem_.is_tf32();
    if (packed_x_) {
      packing.x = x;
      operands.x = packing.packed_x = scratch[*packed_x_];
    }
    if (packed_weights_ && group.first == 0) {
      for (int i = 0; i < 4; ++i) packing.weights[i] = data(weights_[i]);
      packing.packed_weights = scratch[*packed_weights_];
    }
    return operands;
  }

  PlainConvolution plain(const Image& image) const {
    return {problem_.dtype,
            problem_.parameter_dtype,
            image,
            problem_.sub_kernels,
            {data(weights_[0]), data(weights_[1]), data(weights_[2]), data(weights_[3])}};
  }

 private:
  Problem problem_;
  bool transposed_;
  std::vector<Tensor> weights_;  // dense
  std::optional<size_t> packed_x_, packed_weights_;
};

// y and, where they are wanted, its sums.
inline void run(const ForwardPlan& plan, const MaskedConvolution& convolution,
                const Operands& operands, Forward forward, const ChannelSums& sums,
                cudaStream_t stream) {
  const Image& image = operands.convolution.image;
  forward.x = operands.x;
  forward.parameter_dtype = plan.problem.parameter_dtype;
  forward.sums = sums.data;
  if (plan.is_tiled) {
    convolve(operands.convolution, forward, plan.launches[image], stream);
    return;
  }
  plain_convolve(convolution.plain(image), forward, stream);
  if (sums.data) channel_sums(plan.problem.dtype, image, forward.y, sums, stream);
}

// The gradients that were planned: of x, of the sub-kernels, or both, in one launch where they
// share it.
inline void run(const BackwardPlan& plan, const MaskedConvolution& convolution,
                const Operands& operands, const InputGradient& input, WeightGradient weights,
                cudaStream_t stream) {
  const Image& image = operands.convolution.image;
  const GradientLaunches& launches = plan.launches[image];
  weights.x = operands.x;
  if (!plan.is_tiled) {
    const PlainConvolution plain = convolution.plain(image);
    if (plan.needs_x) plain_input_gradient(plain, input, stream);
    if (plan.needs_weights()) plain_weight_gradient(plain, weights, stream);
    return;
  }
  if (launches.shared) {
    convolve_gradients(operands.convolution, input, launches.x, weights, launches.weights, stream);
    return;
  }
  if (plan.needs_x) convolve_input_gradient(operands.convolution, input, launches.x, stream);
  if (plan.needs_weights()) {
    convolve_weight_gradient(operands.convolution, weights, launches.weights, stream);
  }
}

}  // namespace sspcab::cuda
