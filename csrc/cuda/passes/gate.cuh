// mean → hidden = relu(fc1 mean) → gate = sigmoid(fc2 hidden).
#pragma once

#include "cuda/passes/excitation.cuh"

namespace sspcab::cuda {

// A block has one sample. Its threads add up the slots of all channels, then take the rows of fc1,
// then those of fc2; what one step leaves for the next lies in the results themselves, so that
// there may be any number of channels.
template <class D, class P>
__global__ void __launch_bounds__(kExcitationThreads)
    gate_kernel(Excitation excitation, ChannelSums sums, Wide<D>* means, Wide<D>* hidden_units,
                Wide<D>* gates, unsigned* counter) {
  wait_for_earlier_launches();
  using W = Wide<D>;
  const int64_t n = blockIdx.x, channels = excitation.image.channels;
  W* mean = means + n * channels;
  W* hidden = hidden_units + n * excitation.hidden;
  W* gate = gates + n * channels;
  if (n == 0 && threadIdx.x == 0) *counter = 0;

  const W pixels = static_cast<W>(excitation.image.pixels());
  add_slots<W>(sums, n, channels, [&](int64_t c, W sum) { mean[c] = sum / pixels; });
  __syncthreads();
  const P* bias1 = static_cast<const P*>(excitation.fc1_bias);
  multiply<2>(static_cast<const P*>(excitation.fc1_weight), mean, excitation.hidden, channels,
              [&](int64_t j, W sum) { hidden[j] = relu(sum + widen(bias1[j])); });
  __syncthreads();
  const P* bias2 = static_cast<const P*>(excitation.fc2_bias);
  multiply<8>(static_cast<const P*>(excitation.fc2_weight), hidden, channels, excitation.hidden,
              [&](int64_t c, W sum) { gate[c] = 1 / (1 + exp(-(sum + widen(bias2[c])))); });
}

}  // namespace sspcab::cuda
