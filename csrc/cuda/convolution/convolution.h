// The masked convolution and its gradients on tensor cores (or, for exact float32, CUDA cores):
// what they are given, which tiles they choose, and how they are launched. Plain data, no torch.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/stages.h"
#include "geometry.h"

namespace sspcab::cuda {

enum class Arithmetic { Half, BFloat16, Tf32, Float, Double };
constexpr Arithmetic arithmetic_of(Dtype dtype, bool allow_tf32) {
  switch (dtype) {
    case Dtype::Half: return Arithmetic::Half;
    case Dtype::BFloat16: return Arithmetic::BFloat16;
    case Dtype::Double: return Arithmetic::Double;
    default: return allow_tf32 ? Arithmetic::Tf32 : Arithmetic::Float;
  }
}

constexpr int element_bytes(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::Half:
    case Arithmetic::BFloat16: return 2;
    case Arithmetic::Double: return 8;
    default: return 4;
  }
}

// Whose instructions a kernel is made of: asynchronous copies and mma.sync of 8.0 and later, or
// tensor copies and wgmma of 9.0 alone.
enum class Path { Sm80, Sm90 };

constexpr int kThreads = 128;    // of a block: 2 × 2 warps
constexpr int kDepthBytes = 64;  // of the summed dimension in one stage of the pipeline
constexpr int kStages = 4;       // of the pipeline

// How many results a block has: m pixels × n channels, or in gradients of weights m output × n
// input channels.
struct TileShape {
  int m, n;
};
constexpr int kConfigs = 3;  // large, medium, small tiles: the values of `config`
// A thread has m · n / 128 sums in registers, twice as many of them in exact float32 (sums of
// chains) and twice as wide ones in double; more than 128 registers of them don't fit.
constexpr TileShape kTiles[][kConfigs] = {
    {{128, 128}, {128, 64}, {64, 64}},  // Half
    {{128, 128}, {128, 64}, {64, 64}},  // BFloat16
    {{128, 128}, {128, 64}, {64, 64}},  // Tf32
    {{128, 64}, {64, 64}, {64, 32}},    // Float
    {{64, 64}, {64, 32}, {32, 32}},     // Double
};
constexpr TileShape tile_shape(Arithmetic arithmetic, int config) {
  return kTiles[static_cast<int>(arithmetic)][config];
}

// The results' tile of an NCHW image lies in shared memory in rows of pixels (see ResultTile); this
// is a row's length, padded.
constexpr int padded_pixels(TileShape tile, int bytes) { return tile.m + 16 / bytes; }
constexpr int shared_bytes(TileShape tile, int wide_bytes) {
  const int pipeline = kStages * (tile.m + tile.n) * kDepthBytes;
  const int results = tile.n * padded_pixels(tile, wide_bytes) * wide_bytes;
  return pipeline > results ? pipeline : results;
}

// The same for Sm90: a warpgroup that loads and two that multiply; tiles of all types are alike.
constexpr int kHopperConsumers = 2, kHopperThreads = 128 * (1 + kHopperConsumers);
constexpr int kHopperDepthBytes = 128, kHopperM = 128;
constexpr TileShape kHopperTiles[kConfigs] = {{kHopperM, 256}, {kHopperM, 128}, {kHopperM, 64}};
constexpr int64_t kMostReach = 127;  // offsets of tensor copies are 0 to 255
constexpr int kHopperStripe = 64;    // channels of results that are brought away at a time
constexpr int kHopperRingBytes = 192 << 10;
// All that a block can have: the ring, a stripe of results, what sums begin with, barriers.
constexpr int kHopperSharedBytes = 227 << 10;

struct Device {
  int capability;  // 80 for 8.0
  int processors;
  int64_t cache_bytes;  // of the L2 cache
  bool runs_sm90;       // has loaded code of the kernels for Sm90 that has their instructions
};

// What one launch of a convolution looks like.
struct LaunchPlan {
  Path path;
  int config;
  TileShape tile;
  int64_t units;  // of work: tiles times splits
  int64_t blocks;
  int threads;
  int shared_bytes;
  // Of the summed pixels of gradients of weights; on Sm90 of the taps of others, between the blocks
  // of a cluster.
  int64_t splits;
  int processors;  // which a persistent grid doesn't exceed

  // Pixels with one sum of each channel.
  int sum_pixels() const { return path == Path::Sm90 ? kHopperM / kHopperConsumers : tile.m; }
};

// Of a grid whose blocks take units in turn, in whole clusters.
constexpr int64_t persistent_blocks(int64_t units, int processors, int64_t cluster) {
  const int64_t clusters = (units < processors ? units : processors) / cluster;
  return clusters > 1 ? clusters * cluster : cluster;
}

// Images are D (N, H, W, C); filters D (C, C), `tap_stride` elements from tap to tap of a corner:
// (o, c), or (c, o) for the gradient of x, for TF32 rounded to it.
struct Convolution {
  Arithmetic arithmetic;
  Image image;  // channels_last tells the layout of y, out and grad_x
  SubKernels sub_kernels;
  int config;  // -1: chosen by the size
  const void* corner[4];
  int64_t tap_stride;
};

// What the pipeline can't read where it lies, and so has packed beforehand; for the gradient of x
// the filters are always packed, transposed.
constexpr bool packs_x(const Image& image) {
  return !image.channels_last && image.channels > 1 && image.pixels() > 1;
}
constexpr bool packs_weights(const SubKernels& sub_kernels, Dtype dtype, Dtype parameter_dtype) {
  return sub_kernels.kernel_dim > 1 || dtype != parameter_dtype;
}

// Whether the pipeline can take it: 16-byte pieces of channels, asynchronous copies, 32-bit
// coordinates.
bool is_tiled(const Convolution& convolution, const Device& device);

// Of the current device, whose capability this is.
bool runs_sm90(int capability);

LaunchPlan plan_forward(const Convolution& convolution, const Device& device);
LaunchPlan plan_input_gradient(const Convolution& convolution, const Device& device);
// `corners`: how many of the four have a gradient.
LaunchPlan plan_weight_gradient(const Convolution& convolution, const Device& device, int corners);

// --- (A) y = relu(Σ taps + biases), and the sums of y with the slots of SumSlots{sum_pixels,
// pixels}.
struct Forward {
  const void* x;        // D (N, H, W, C)
  const void* bias[4];  // P (C,)
  Dtype parameter_dtype;
  bool relu;
  void* y;     // D, in the layout of the image
  void* sums;  // W (slots, C), null: not wanted
};
void convolve(const Convolution& convolution, const Forward& forward, const LaunchPlan& plan,
              cudaStream_t stream);

// --- (backward 4) grad_x = mirrored taps on grad_a, minus the direct gradient of the loss,
// grad_loss · 2 / loss_numel · (y · gate - x).
struct InputGradient {
  const void* grad_a;       // D (N, H, W, C), for TF32 rounded to it
  OutputGradient gradient;  // its y, x, gate and grad_loss; no direct gradient without grad_loss
  void* grad_x;             // D, in the layout of the image
};
void convolve_input_gradient(const Convolution& convolution, const InputGradient& gradient,
                             const LaunchPlan& plan, cudaStream_t stream);

// --- (backward 5) Σ over pixels of grad_a ⊗ moved x, for the corners that need it. The first
// `earlier_splits` of the sums are added to what earlier groups of samples have left there.
struct WeightGradient {
  const void* grad_a;  // D (N, H, W, C), for TF32 rounded to it
  const void* x;       // D (N, H, W, C)
  bool needs[4];
  void* sums;  // W (splits, 4 k'², C, C)
  int64_t earlier_splits;
};
void convolve_weight_gradient(const Convolution& convolution, const WeightGradient& gradient,
                              const LaunchPlan& plan, cudaStream_t stream);

// --- (backward 4 and 5) in one launch, for which there are kernels with tiles of the same size,
// and with medium ones for x and small ones for the weights, as 64 channels want them.
constexpr bool share_a_launch(const LaunchPlan& input, const LaunchPlan& weights) {
  const bool medium_and_small = input.config == 1 && weights.config == 2;
  return input.path == weights.path &&
         (input.config == weights.config || (input.path == Path::Sm80 && medium_and_small));
}
void convolve_gradients(const Convolution& convolution, const InputGradient& input,
                        const LaunchPlan& input_plan, const WeightGradient& weights,
                        const LaunchPlan& weight_plan, cudaStream_t stream);

}  // namespace sspcab::cuda
