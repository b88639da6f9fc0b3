#include "cuda/passes/excitation_gradient.cuh"

#include "cuda/launch.cuh"

namespace sspcab::cuda {

void excitation_gradient(const Excitation& excitation, const ChannelSums& grad_gate,
                         const void* hidden, const void* gate, void* grad_gate_input,
                         void* grad_hidden_input, void* grad_mean, cudaStream_t stream) {
  with_types(excitation.dtype, excitation.parameter_dtype, [&](auto d, auto p) {
    using W = Wide<decltype(d)>;
    launch(excitation_gradient_kernel<decltype(d), decltype(p)>, excitation.image.samples,
           kExcitationThreads, 0, stream, excitation, grad_gate, static_cast<const W*>(hidden),
           static_cast<const W*>(gate), static_cast<W*>(grad_gate_input),
           static_cast<W*>(grad_hidden_input), static_cast<W*>(grad_mean));
  });
}

}  // namespace sspcab::cuda
