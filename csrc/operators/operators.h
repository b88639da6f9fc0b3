// The operators of registration.cpp as the dispatcher calls them: checks, the device's guard,
// results, and what there is to say about images without elements. A Device supplies
//
//   check_config(config), Guard(x), empty_image(x)  and, for images with elements,
//   masked_conv2d, squeeze_excite, reconstruction_loss, reconstruction_loss_backward, sspcab,
//   which fill results; and for all images, as it knows how gradients are laid out,
//   masked_conv2d_backward, squeeze_excite_backward, sspcab_backward, which return gradients.
#pragma once

#include <limits>
#include <tuple>

#include "operators/arguments.h"

namespace sspcab {

template <class Device>
struct Operators {
  static Tensor masked_conv2d(Tensor x, Tensor weight1, Tensor weight2, Tensor weight3,
                              Tensor weight4, Tensor bias1, Tensor bias2, Tensor bias3,
                              Tensor bias4, int64_t dilation, bool relu, bool allow_tf32,
                              int64_t config) {
    const MaskedConv2d arguments{x,
                                 {weight1, weight2, weight3, weight4},
                                 {bias1, bias2, bias3, bias4},
                                 dilation,
                                 relu,
                                 allow_tf32,
                                 config};
    arguments.check();
    Device::check_config(config);
    const typename Device::Guard guard(x);
    const Tensor y = Device::empty_image(x);
    if (x.numel() > 0) Device::masked_conv2d(arguments, y);
    return y;
  }

  static std::vector<Tensor> masked_conv2d_backward(Tensor grad_y, Tensor x, Tensor y,
                                                    std::vector<Tensor> weights, int64_t dilation,
                                                    bool relu, std::vector<bool> needs,
                                                    bool allow_tf32, int64_t config) {
    const MaskedConv2dBackward arguments{grad_y, x,     y,          weights, dilation,
                                         relu,   needs, allow_tf32, config};
    arguments.check();
    Device::check_config(config);
    const typename Device::Guard guard(x);
    return Device::masked_conv2d_backward(arguments);
  }

  static std::tuple<Tensor, Tensor, Tensor, Tensor> squeeze_excite(Tensor x, Tensor fc1_weight,
                                                                   Tensor fc1_bias,
                                                                   Tensor fc2_weight,
                                                                   Tensor fc2_bias) {
    const SqueezeExcite arguments{x, fc1_weight, fc1_bias, fc2_weight, fc2_bias};
    arguments.check();
    const typename Device::Guard guard(x);
    const Tensor out = Device::empty_image(x);
    const Excited excited = empty_excited(x, fc1_weight);
    if (x.numel() > 0) {
      Device::squeeze_excite(arguments, out, excited);
    } else {
      fill_with_nan({excited.mean, excited.hidden, excited.gate});
    }
    return {out, excited.mean, excited.hidden, excited.gate};
  }

  static std::vector<Tensor> squeeze_excite_backward(Tensor grad_out, Tensor x, Tensor mean,
                                                     Tensor hidden, Tensor gate, Tensor fc1_weight,
                                                     Tensor fc2_weight, std::vector<bool> needs) {
    const SqueezeExciteBackward arguments{grad_out,   x,          {mean, hidden, gate},
                                          fc1_weight, fc2_weight, needs};
    arguments.check();
    const typename Device::Guard guard(x);
    return Device::squeeze_excite_backward(arguments);
  }

  static Tensor reconstruction_loss(Tensor out, Tensor x) {
    const ReconstructionLoss arguments{out, x};
    arguments.check();
    const typename Device::Guard guard(x);
    const Tensor loss = empty(x, {}, wide_type(x));
    if (x.numel() > 0) {
      Device::reconstruction_loss(arguments, loss);
    } else {
      fill_with_nan({loss});
    }
    return loss;
  }

  // grad_out; grad_x is its negative.
  static Tensor reconstruction_loss_backward(Tensor grad_loss, Tensor out, Tensor x) {
    const ReconstructionLossBackward arguments{grad_loss, {out, x}};
    arguments.check();
    const typename Device::Guard guard(x);
    const Tensor grad_out = Device::empty_image(x);
    if (x.numel() > 0) Device::reconstruction_loss_backward(grad_loss, arguments.images, grad_out);
    return grad_out;
  }

  static std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> sspcab(
      Tensor x, Tensor weight1, Tensor weight2, Tensor weight3, Tensor weight4, Tensor bias1,
      Tensor bias2, Tensor bias3, Tensor bias4, Tensor fc1_weight, Tensor fc1_bias,
      Tensor fc2_weight, Tensor fc2_bias, int64_t dilation, bool relu, bool with_loss,
      bool allow_tf32, int64_t config) {
    const SspcabResults r = forward({{x,
                                      {weight1, weight2, weight3, weight4},
                                      {bias1, bias2, bias3, bias4},
                                      dilation,
                                      relu,
                                      allow_tf32,
                                      config},
                                     fc1_weight,
                                     fc1_bias,
                                     fc2_weight,
                                     fc2_bias,
                                     with_loss},
                                    /*keeps=*/true);
    return {r.out, r.loss, r.y, r.excited.mean, r.excited.hidden, r.excited.gate};
  }

  static std::tuple<Tensor, Tensor> sspcab_inference(Tensor x, Tensor weight1, Tensor weight2,
                                                     Tensor weight3, Tensor weight4, Tensor bias1,
                                                     Tensor bias2, Tensor bias3, Tensor bias4,
                                                     Tensor fc1_weight, Tensor fc1_bias,
                                                     Tensor fc2_weight, Tensor fc2_bias,
                                                     int64_t dilation, bool relu, bool with_loss,
                                                     bool allow_tf32, int64_t config) {
    const SspcabResults r = forward({{x,
                                      {weight1, weight2, weight3, weight4},
                                      {bias1, bias2, bias3, bias4},
                                      dilation,
                                      relu,
                                      allow_tf32,
                                      config},
                                     fc1_weight,
                                     fc1_bias,
                                     fc2_weight,
                                     fc2_bias,
                                     with_loss},
                                    /*keeps=*/false);
    return {r.out, r.loss};
  }

  static std::vector<Tensor> sspcab_backward(std::optional<Tensor> grad_out,
                                             std::optional<Tensor> grad_loss, Tensor x, Tensor y,
                                             Tensor mean, Tensor hidden, Tensor gate,
                                             std::vector<Tensor> weights, Tensor fc1_weight,
                                             Tensor fc2_weight, int64_t dilation, bool relu,
                                             std::vector<bool> needs, bool allow_tf32,
                                             int64_t config) {
    const SspcabBackward arguments{grad_out, grad_loss,  x,          y,        {mean, hidden, gate},
                                   weights,  fc1_weight, fc2_weight, dilation, relu,
                                   needs,    allow_tf32, config};
    arguments.check();
    Device::check_config(config);
    const typename Device::Guard guard(x);
    return Device::sspcab_backward(arguments);
  }

 private:
  static SspcabResults forward(const Sspcab& arguments, bool keeps) {
    arguments.check();
    Device::check_config(arguments.convolution.config);
    const Tensor& x = arguments.x();
    const typename Device::Guard guard(x);
    SspcabResults results;
    results.out = Device::empty_image(x);
    results.loss = empty(x, {}, wide_type(x));
    if (keeps) {
      results.y = Device::empty_image(x);
      results.excited = empty_excited(x, arguments.fc1_weight);
    }
    if (x.numel() > 0) {
      Device::sspcab(arguments, results);
    } else {
      const Excited& e = results.excited;
      fill_with_nan({results.loss, e.mean, e.hidden, e.gate});
    }
    return results;
  }

  // The mean over nothing.
  static void fill_with_nan(std::initializer_list<Tensor> tensors) {
    for (Tensor t : tensors) {
      if (t.defined()) torch::stable::fill_(t, std::numeric_limits<double>::quiet_NaN());
    }
  }
};

// All of them, for the dispatch key of the library.
template <class Device, class Library>
void register_operators(Library& library) {
  using Own = Operators<Device>;
  library.impl("masked_conv2d", TORCH_BOX(&Own::masked_conv2d));
  library.impl("masked_conv2d_backward", TORCH_BOX(&Own::masked_conv2d_backward));
  library.impl("squeeze_excite", TORCH_BOX(&Own::squeeze_excite));
  library.impl("squeeze_excite_backward", TORCH_BOX(&Own::squeeze_excite_backward));
  library.impl("reconstruction_loss", TORCH_BOX(&Own::reconstruction_loss));
  library.impl("reconstruction_loss_backward", TORCH_BOX(&Own::reconstruction_loss_backward));
  library.impl("sspcab", TORCH_BOX(&Own::sspcab));
  library.impl("sspcab_inference", TORCH_BOX(&Own::sspcab_inference));
  library.impl("sspcab_backward", TORCH_BOX(&Own::sspcab_backward));
}

}  // namespace sspcab
