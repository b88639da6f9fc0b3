// The whole block on CUDA, forward: (A) masked convolution, bias, ReLU and channel sums, (B) gate,
// (C) scaling and reconstruction error, group of samples by group of samples.
#include "cuda/host/masked_convolution.h"
#include "cuda/host/operators.h"

namespace sspcab::cuda {

void Cuda::sspcab(const Sspcab& block, const SspcabResults& r) {
  const MaskedConv2d& a = block.convolution;
  const Tensor& x = a.x;
  const int64_t c = x.size(1), hidden_size = block.fc1_weight.size(0);
  const Tensor y = r.keeps() ? r.y : r.out;
  const Excited excited = r.keeps() ? r.excited : empty_excited(x, block.fc1_weight);
  const Problem problem = problem_of(x, a.weights, a.sub_kernels(), a.allow_tf32, a.config);
  const Image image = image_of(x);
  const Dtype dtype = dtype_of(x);
  const Tensor input = dense(x, image.channels_last);
  const Tensor fc1_weight = dense(block.fc1_weight), fc1_bias = dense(block.fc1_bias),
               fc2_weight = dense(block.fc2_weight), fc2_bias = dense(block.fc2_bias);
  std::vector<Tensor> biases;
  Forward forward{};
  for (int i = 0; i < 4; ++i) {
    biases.push_back(dense(a.biases[i]));
    forward.bias[i] = data(biases[i]);
  }
  forward.relu = a.relu;

  const ForwardPlan plan(problem, problem.groups(kForwardImages));
  const Groups& groups = plan.groups;
  Workspace workspace;
  const MaskedConvolution convolution(problem, a.weights, plan.packed, /*transposed=*/false,
                                      workspace);
  const size_t sums_piece = workspace.add(plan.sum_bytes());
  const size_t errors = workspace.add(groups.count * groups.most(error_parts) * sizeof(double));
  const size_t counter_piece = workspace.add(sizeof(unsigned));
  const Scratch scratch = workspace.allocate(x);
  unsigned* const counter = static_cast<unsigned*>(scratch[counter_piece]);
  MeanOfErrors mean{static_cast<double*>(scratch[errors]), 0, image.numel(), counter, nullptr};

  const cudaStream_t stream = current_stream(x);
  for (int64_t i = 0; i < groups.count; ++i) {
    const Group group = groups[i];
    const void* x_part = group.part(data(input));
    void* gate_part = group.part_of_vectors(mutable_data(excited.gate), c);
    forward.y = group.part(mutable_data(y));
    const ChannelSums sums{scratch[sums_piece], plan.sum_slots(group.image)};
    const Operands operands = convolution.operands(group, x_part, scratch);
    pack(operands.packing, stream);
    run(plan, convolution, operands, forward, sums, stream);
    gate({dtype, dtype_of(fc1_weight), group.image, hidden_size, data(fc1_weight), data(fc1_bias),
          data(fc2_weight), data(fc2_bias)},
         sums, group.part_of_vectors(mutable_data(excited.mean), c),
         group.part_of_vectors(mutable_data(excited.hidden), hidden_size), gate_part, counter,
         stream);
    if (i == groups.count - 1) mean.loss = mutable_data(r.loss);
    mean.earlier +=
        scale(dtype, group.image, forward.y, gate_part, block.with_loss ? x_part : nullptr,
              group.part(mutable_data(r.out)), mean, stream);
  }
}

}  // namespace sspcab::cuda
