#include "cuda/passes/gate.cuh"

#include "cuda/launch.cuh"

namespace sspcab::cuda {

void gate(const Excitation& excitation, const ChannelSums& sums, void* mean, void* hidden,
          void* gate, unsigned* counter, cudaStream_t stream) {
  with_types(excitation.dtype, excitation.parameter_dtype, [&](auto d, auto p) {
    using W = Wide<decltype(d)>;
    launch(gate_kernel<decltype(d), decltype(p)>, excitation.image.samples, kExcitationThreads, 0,
           stream, excitation, sums, static_cast<W*>(mean), static_cast<W*>(hidden),
           static_cast<W*>(gate), counter);
  });
}

}  // namespace sspcab::cuda
