// How one call of the masked convolution or of its gradients runs: on the pipeline or in plain
// kernels, with what copied beforehand. Shared by the whole block and by masked_conv2d alone.
#pragma once

#include "checks.h"
#include "cuda/convolution/plain/plain.h"
#include "cuda/host/device.h"
#include "cuda/host/groups.h"
#include "cuda/host/tensors.h"

namespace sspcab::cuda {

// The values of `config` beyond the tiles.
constexpr int64_t kAutomatic = -1, kPlain = kConfigs;

inline void check_config(int64_t config, bool is_tiled, const Tensor& x) {
  check(is_tiled || config == kAutomatic || config == kPlain, "config ", config,
        " needs compute capability 8.0 or higher, channels that fill 16 bytes and distances within "
        "2^30 pixels; got x of ",
        Shape(x));
}

class MaskedConvolution {
 public:
  // Inside the device guard of x.
  MaskedConvolution(const Tensor& x, const std::vector<Tensor>& weights, int64_t dilation,
                    bool allow_tf32, int64_t config)
      : dtype_(dtype_of(x)), parameter_dtype_(dtype_of(weights[0])), device_(current_device()) {
    convolution_.arithmetic = arithmetic_of(dtype_, allow_tf32);
    convolution_.image = image_of(x);
    convolution_.sub_kernels = {weights[0].size(3), dilation};
    const bool can_be_tiled = cuda::is_tiled(convolution_, device_);
    check_config(config, can_be_tiled, x);
    is_tiled_ = can_be_tiled && config != kPlain;
    convolution_.config = static_cast<int>(config);
    for (const Tensor& weight : weights) weights_.push_back(dense(weight));
  }

  const Image& image() const { return convolution_.image; }
  const SubKernels& sub_kernels() const { return convolution_.sub_kernels; }
  bool is_tf32() const { return is_tiled_ && convolution_.arithmetic == Arithmetic::Tf32; }

  // `images`: see Groups.
  Groups groups(int images) const { return Groups::of(dtype_, image(), images, device_); }

  // What packing() will have: for the forward pass,
  void need(const Groups& groups, Workspace& workspace) {
    need(groups, true, packs_weights(sub_kernels(), dtype_, parameter_dtype_), workspace);
  }
  // for gradients of weights, and for the gradient of x.
  void need_for_gradients(const Groups& groups, bool of_weights, bool of_x, Workspace& workspace) {
    transposed_ = true;
    need(groups, of_weights, of_x, workspace);
  }

  // What was needed and can't be read where it lies: to be packed before any of the following,
  // which are for this group. `x`: its own; the first group packs the weights of all.
  Packing packing(const Group& group, const void* x, const Workspace& workspace) {
    x_ = packed_x_ ? workspace[*packed_x_] : x;
    const int64_t matrix = image().channels * image().channels;
    for (int i = 0; i < 4; ++i) {
      convolution_.corner[i] =
          packed_weights_ ? static_cast<const char*>(workspace[*packed_weights_]) +
                                i * sub_kernels().taps_per_corner() * matrix * element_bytes(dtype_)
                          : data(weights_[i]);
    }
    convolution_.tap_stride = matrix;
    Packing packing{};
    packing.dtype = dtype_;
    packing.parameter_dtype = parameter_dtype_;
    packing.image = group.image;
    packing.taps_per_corner = sub_kernels().taps_per_corner();
    packing.transposed = transposed_;
    packing.as_tf32 = transposed_ && is_tf32();
    if (packed_x_) {
      packing.x = x;
      packing.packed_x = workspace[*packed_x_];
    }
    if (packed_weights_ && group.first == 0) {
      for (int i = 0; i < 4; ++i) packing.weights[i] = data(weights_[i]);
      packing.packed_weights = workspace[*packed_weights_];
    }
    return packing;
  }

  // Where the sums of y will be, for a group's image as in all that follows.
  SumSlots sum_slots(const Image& image) const {
    if (!is_tiled_) return channel_sum_slots(image);
    return {plan_forward(of(image), device_).sum_pixels(), image.pixels()};
  }

  void forward(const Image& image, Forward forward, const ChannelSums& sums,
               cudaStream_t stream) const {
    forward.x = x_;
    forward.parameter_dtype = parameter_dtype_;
    forward.sums = sums.data;
    if (is_tiled_) {
      convolve(of(image), forward, plan_forward(of(image), device_), stream);
    } else {
      plain_convolve(plain(image), forward, stream);
      if (sums.data) channel_sums(dtype_, image, forward.y, sums, stream);
    }
  }

  void input_gradient(const InputGradient& gradient, cudaStream_t stream) const {
    const Image& image = gradient.gradient.image;
    if (is_tiled_) {
      convolve_input_gradient(of(image), gradient, plan_input_gradient(of(image), device_), stream);
    } else {
      plain_input_gradient(plain(image), gradient, stream);
    }
  }

  // Both, in one launch where they can share it.
  void gradients(const InputGradient& input, WeightGradient weights, cudaStream_t stream) const {
    const Image& image = input.gradient.image;
    if (is_tiled_) {
      const LaunchPlan input_plan = plan_input_gradient(of(image), device_);
      const LaunchPlan weight_plan = this->weight_plan(image, weights.needs);
      if (share_a_launch(input_plan, weight_plan)) {
        weights.x = x_;
        return convolve_gradients(of(image), input, input_plan, weights, weight_plan, stream);
      }
    }
    input_gradient(input, stream);
    weight_gradient(image, weights, stream);
  }

  int64_t weight_gradient_splits(const Image& image, const bool (&needs)[4]) const {
    return is_tiled_ ? weight_plan(image, needs).splits : 1;
  }
  void weight_gradient(const Image& image, WeightGradient gradient, cudaStream_t stream) const {
    gradient.x = x_;
    if (is_tiled_) {
      convolve_weight_gradient(of(image), gradient, weight_plan(image, gradient.needs), stream);
    } else {
      plain_weight_gradient(plain(image), gradient, stream);
    }
  }

 private:
  void need(const Groups& groups, bool x, bool weights, Workspace& workspace) {
    const int64_t c = image().channels, bytes = element_bytes(dtype_);
    if (is_tiled_ && x && packs_x(image())) {
      packed_x_ =
          workspace.add(groups.most([&](const Image& image) { return image.numel() * bytes; }));
    }
    if (is_tiled_ && weights) packed_weights_ = workspace.add(sub_kernels().taps() * c * c * bytes);
  }
  Convolution of(const Image& image) const {
    Convolution convolution = convolution_;
    convolution.image = image;
    return convolution;
  }
  LaunchPlan weight_plan(const Image& image, const bool (&needs)[4]) const {
    return plan_weight_gradient(of(image), device_, needs[0] + needs[1] + needs[2] + needs[3]);
  }
  PlainConvolution plain(const Image& image) const {
    return {dtype_,
            parameter_dtype_,
            image,
            sub_kernels(),
            {data(weights_[0]), data(weights_[1]), data(weights_[2]), data(weights_[3])}};
  }

  Dtype dtype_, parameter_dtype_;
  Device device_;
  Convolution convolution_{};
  bool is_tiled_, transposed_ = false;
  std::vector<Tensor> weights_;  // dense
  const void* x_ = nullptr;
  std::optional<size_t> packed_x_, packed_weights_;  // pieces of the workspace
};

}  // namespace sspcab::cuda
