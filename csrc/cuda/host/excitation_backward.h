// The backward pass of squeeze and excitation, stages 1 and 2, and what parameter_gradients needs
// of them. Shared by the whole block and by squeeze_excite alone.
#pragma once

#include "cuda/host/tensors.h"
#include "cuda/plan/groups.h"
#include "operators/arguments.h"

namespace sspcab::cuda {

class ExcitationBackward {
 public:
  ExcitationBackward(const Tensor& x, const Excited& excited, const Tensor& fc1_weight,
                     const Tensor& fc2_weight)
      : image_(image_of(x)),
        dtype_(dtype_of(x)),
        hidden_size_(fc1_weight.size(0)),
        mean_(excited.mean),
        hidden_(excited.hidden),
        gate_(excited.gate),
        fc1_weight_(fc1_weight),
        fc2_weight_(fc2_weight) {}

  // Appends the gradients of fc1_weight, fc1_bias, fc2_weight and fc2_bias; needs[first] is that of
  // fc1_weight.
  void allocate(const std::vector<bool>& needs, size_t first, std::vector<Tensor>& gradients,
                ParameterGradients& parameters) const {
    const int64_t c = image_.channels;
    const auto add = [&](const std::vector<int64_t>& shape, bool needed) {
      gradients.push_back(empty_gradient(fc1_weight_, shape, needed));
      return if_needed(gradients.back(), needed);
    };
    parameters.dtype = dtype_;
    parameters.parameter_dtype = dtype_of(fc1_weight_);
    parameters.channels = c;
    parameters.hidden = hidden_size_;
    parameters.grad_fc1_weight = add({hidden_size_, c}, needs[first]);
    parameters.grad_fc1_bias = add({hidden_size_}, needs[first + 1]);
    parameters.grad_fc2_weight = add({c, hidden_size_}, needs[first + 2]);
    parameters.grad_fc2_bias = add({c}, needs[first + 3]);
  }

  // Copies what isn't dense; from here on for images that have elements.
  void need(const Groups& groups, Workspace& workspace) {
    for (Tensor* t : {&mean_, &hidden_, &gate_, &fc1_weight_, &fc2_weight_}) *t = dense(*t);
    const int64_t n = image_.samples, c = image_.channels, wide = wide_bytes(dtype_);
    grad_gate_ = workspace.add(groups.most([&](const Image& image) {
      return channel_sum_slots(image).count(image.samples) * c * wide;
    }));
    grad_gate_input_ = workspace.add(n * c * wide);
    grad_hidden_input_ = workspace.add(n * hidden_size_ * wide);
    grad_mean_ = workspace.add(n * c * wide);
  }

  const void* gate() const { return data(gate_); }
  const void* grad_mean(const Group& group, const Scratch& scratch) const {
    return group.part_of_vectors(scratch[grad_mean_], image_.channels);
  }

  // `gradient`: of the group; `packing`: of weights, on the way.
  void run(const Group& group, const OutputGradient& gradient, const Packing& packing,
           const Scratch& scratch, ParameterGradients& parameters, cudaStream_t stream) const {
    const ChannelSums grad_gate{scratch[grad_gate_], channel_sum_slots(group.image)};
    gate_gradient(gradient, packing, grad_gate, stream);
    const auto of_channels = [&](auto* v) { return group.part_of_vectors(v, image_.channels); };
    const auto of_hidden = [&](auto* v) { return group.part_of_vectors(v, hidden_size_); };
    excitation_gradient({dtype_, dtype_of(fc1_weight_), group.image, hidden_size_,
                         data(fc1_weight_), nullptr, data(fc2_weight_), nullptr},
                        grad_gate, of_hidden(data(hidden_)), of_channels(data(gate_)),
                        of_channels(scratch[grad_gate_input_]),
                        of_hidden(scratch[grad_hidden_input_]), of_channels(scratch[grad_mean_]),
                        stream);
    parameters.samples = image_.samples;
    parameters.mean = data(mean_);
    parameters.hidden_units = data(hidden_);
    parameters.grad_gate_input = scratch[grad_gate_input_];
    parameters.grad_hidden_input = scratch[grad_hidden_input_];
  }

 private:
  Image image_;
  Dtype dtype_;
  int64_t hidden_size_;
  Tensor mean_, hidden_, gate_, fc1_weight_, fc2_weight_;
  // Pieces of the workspace.
  size_t grad_gate_ = 0, grad_gate_input_ = 0, grad_hidden_input_ = 0, grad_mean_ = 0;
};

}  // namespace sspcab::cuda
