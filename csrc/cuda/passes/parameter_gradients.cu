#include "cuda/passes/parameter_gradients.cuh"

#include "cuda/launch.cuh"

namespace sspcab::cuda {

void parameter_gradients(const ParameterGradients& g, cudaStream_t stream) {
  const auto blocks_of = [](const void* result, int64_t results, int64_t of_block) {
    return result ? divide_up(results, of_block) : 0;
  };
  WeightTiling tiling{};
  ParameterBlocks blocks{};
  if (g.grad_weights[0] || g.grad_weights[1] || g.grad_weights[2] || g.grad_weights[3]) {
    tiling = WeightTiling::of(g.channels, g.taps_per_corner);
    blocks.weights = tiling.blocks();
  }
  const int64_t dense = g.channels * g.hidden;
  blocks.bias = blocks_of(g.grad_bias, g.channels, kBiasColumns);
  blocks.fc1_bias = blocks_of(g.grad_fc1_bias, g.hidden, kBiasColumns);
  blocks.fc2_bias = blocks_of(g.grad_fc2_bias, g.channels, kBiasColumns);
  blocks.fc1_weight = blocks_of(g.grad_fc1_weight, dense, kWeightThreads);
  blocks.fc2_weight = blocks_of(g.grad_fc2_weight, dense, kWeightThreads);
  if (blocks.count() == 0) return;
  with_types(g.dtype, g.parameter_dtype, [&](auto d, auto p) {
    launch(parameter_gradients_kernel<decltype(d), decltype(p)>, blocks.count(), kWeightThreads, 0,
           stream, g, tiling, blocks);
  });
}

}  // namespace sspcab::cuda
