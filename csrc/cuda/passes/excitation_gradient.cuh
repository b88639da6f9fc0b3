// From the gradient of the gate back to that of the mean.
#pragma once

#include "cuda/passes/excitation.cuh"

namespace sspcab::cuda {

// A block has one sample. Its threads add up the slots of all channels, then the columns of fc2,
// then those of fc1; as in gate_kernel, each step reads the results of the one before.
template <class D, class P>
__global__ void __launch_bounds__(kExcitationThreads)
    excitation_gradient_kernel(Excitation excitation, ChannelSums sums, const Wide<D>* hidden_units,
                               const Wide<D>* gates, Wide<D>* grad_gate_inputs,
                               Wide<D>* grad_hidden_inputs, Wide<D>* grad_means) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  const int64_t n = blockIdx.x, channels = excitation.image.channels;
  const int64_t hidden_size = excitation.hidden;
  const W* hidden = hidden_units + n * hidden_size;
  const W* gate = gates + n * channels;
  W* grad_gate_input = grad_gate_inputs + n * channels;
  W* grad_hidden_input = grad_hidden_inputs + n * hidden_size;
  W* grad_mean = grad_means + n * channels;

  add_slots<W>(sums, n, channels,
               [&](int64_t c, W sum) { grad_gate_input[c] = sum * gate[c] * (1 - gate[c]); });
  __syncthreads();
  const P* fc2_weight = static_cast<const P*>(excitation.fc2_weight);
  add_columns<W>(
      channels, hidden_size,
      [&](int64_t c, int64_t j) {
        return widen(fc2_weight[c * hidden_size + j]) * grad_gate_input[c];
      },
      [&](int64_t j, W sum) { grad_hidden_input[j] = hidden[j] <= 0 ? W(0) : sum; });
  __syncthreads();
  const P* fc1_weight = static_cast<const P*>(excitation.fc1_weight);
  const W pixels = static_cast<W>(excitation.image.pixels());
  add_columns<W>(
      hidden_size, channels,
      [&](int64_t j, int64_t c) {
        return widen(fc1_weight[j * channels + c]) * grad_hidden_input[j];
      },
      [&](int64_t c, W sum) { grad_mean[c] = sum / pixels; });
}

}  // namespace sspcab::cuda
