// The inner loops of the CPU operators as a table of functions, one table for each instruction
// set and element type. Every function is serial and works on one sample or one tile; the files
// beside this one decide who calls it with what, so a table knows neither tensors nor threads.
//
// D is the type of the elements in memory, T = Compute<D> the type of all arithmetic, parameters
// and sums.
//
// Two layouts of our own, both of T:
//   padded image  [block of 16 channels][row][column][16 channels], with `reach` rows and columns
//                 of zeros around the image, so that a tap is a constant offset and no tap needs
//                 a bounds check;
//   panel         the weights of one tile of output channels, [block][tap][16 channels][tile].
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstddef>
#include <cstdint>

#include "geometry.h"

namespace sspcab::cpu {

using Half = c10::Half;
using BFloat16 = c10::BFloat16;

constexpr int64_t kBlock = 16;

template <class D>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class D>
using Compute = typename ComputeType<D>::type;

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One sample: a dense (C, H, W) or (H, W, C) array.
struct Sample {
  int64_t channels, height, width;
  bool channels_last;

  int64_t pixels() const { return height * width; }
  int64_t numel() const { return channels * pixels(); }
  int64_t blocks() const { return divide_up(channels, kBlock); }
};

// Rows [first, last) of a sample.
struct Rows {
  int64_t first, last;

  int64_t count() const { return last - first; }
  // With `reach` more rows at each edge of the image that these rows touch.
  Rows with_border(int64_t height, int64_t reach) const {
    return {first == 0 ? -reach : first, last == height ? height + reach : last};
  }
};

// A padded image, or a band of one: row 0 of the band is image row `first_row`.
template <class T>
struct Padded {
  T* data;
  int64_t rows, columns, first_row, reach;

  int64_t block_stride() const { return rows * columns * kBlock; }
  T* at(int64_t row, int64_t column) const {  // of block 0, in image coordinates
    return data + ((row - first_row) * columns + column + reach) * kBlock;
  }
};

// What the reconstruction loss and the gate add to the gradient of the output:
// G = grad_out + loss_scale · (y · gate - x).
template <class D>
struct OutputGradient {
  const D* grad_out;          // null: zero
  const D* y;
  const D* x;                 // read where loss_scale is not 0
  const Compute<D>* gate;     // (C,); null: 1
  Compute<D> loss_scale;      // grad_loss · 2 / numel
};

template <class D>
OutputGradient<D> of_sample(OutputGradient<D> g, const Sample& s, int64_t n) {
  if (g.grad_out) g.grad_out += n * s.numel();
  if (g.y) g.y += n * s.numel();
  if (g.x) g.x += n * s.numel();
  if (g.gate) g.gate += n * s.channels;
  return g;
}

template <class D>
struct Convolution {
  using T = Compute<D>;
  Sample sample;
  Rows rows;
  Padded<const T> input;
  const int64_t* tap_offsets;  // elements from a pixel of `input` to each tap
  int64_t taps;
  const T* panels;
  int64_t first_tile, last_tile;
  T* scratch;                  // kernels.scratch elements
};

template <class D>
struct Kernels {
  using T = Compute<D>;
  const char* name;
  int64_t tile;     // output channels of a tile
  int64_t scratch;  // elements of T that a convolution needs

  // Image rows into a padded image; rows outside the image (down to -reach) become zeros.
  void (*pack)(const D* image, const Sample&, Rows, const Padded<T>&);
  // Panel of one tile. Forward: inputs are input channels. Mirrored: inputs are output channels.
  void (*pack_panel)(const T* const weights[4], SubKernels, int64_t channels, bool mirrored,
                     int64_t tile, T* panel);

  // y = activation(convolution + bias); sums[c] += Σ y over the rows.
  void (*convolve)(const Convolution<D>&, const T* bias, bool relu, D* y, T* sums);
  // grad_x = convolution - loss_scale · (y · gate - x)
  void (*convolve_input_gradient)(const Convolution<D>&, const OutputGradient<D>&, D* grad_x);
  // grad[tap][16][tile] += Σ over the rows of x ⊗ grad_a, for one block of input channels and one
  // tile of output channels, only for corners in the mask.
  void (*weight_gradient)(const Sample&, Rows, SubKernels, const Padded<const T>& x,
                          const Padded<const T>& grad_a, int64_t block, int64_t tile,
                          const bool corners[4], T* grad);
  // Scatters what weight_gradient summed into the four weights.
  void (*unpack_weight_gradient)(const T* grad, SubKernels, int64_t channels, int64_t block,
                                 int64_t tile, const bool corners[4], T* const grad_weights[4]);

  // sums[c] += Σ image over the rows
  void (*channel_sums)(const D* image, const Sample&, Rows, T* sums);
  // out = y · gate; returns Σ (out - x)², or 0 without x.
  double (*scale)(const D* y, const T* gate, const D* x, const Sample&, Rows, D* out);
  // grad_gate[c] += Σ G · y over the rows
  void (*gate_gradient)(const OutputGradient<D>&, const Sample&, Rows, T* grad_gate);
  // grad_y = G · gate + grad_mean[c]
  void (*scale_gradient)(const OutputGradient<D>&, const T* grad_mean, const Sample&, Rows,
                         D* grad_y);
  // grad_a = G · gate + grad_mean[c] where not (relu and y <= 0), into the rows of a padded image
  // and the zeros beyond its edges; grad_bias[c] += Σ grad_a. grad_mean null: 0.
  void (*activation_gradient)(const OutputGradient<D>&, const T* grad_mean, bool relu,
                              const Sample&, Rows, const Padded<T>& grad_a, T* grad_bias);

  double (*squared_error)(const D* out, const D* x, int64_t count);
  void (*difference)(const D* out, const D* x, T factor, int64_t count, D* result);

  // Rows of a dense layer: result[i] = bias[i] + Σ_j matrix[i][j] · vector[j]
  void (*dense)(const T* matrix, const T* vector, const T* bias, int64_t rows, int64_t columns,
                T* result);
  // result[j] = Σ_i matrix[i][j] · vector[i]
  void (*dense_transposed)(const T* matrix, const T* vector, int64_t rows, int64_t columns,
                           T* result);
  // result[j] += factor · vector[j]
  void (*add_scaled)(const T* vector, T factor, int64_t count, T* result);

  void (*to_compute)(const D* source, int64_t count, T* result);
  void (*from_compute)(const T* source, int64_t count, D* result);
};

// The table for this processor and element type.
template <class D>
const Kernels<D>& kernels();

// "avx512", "avx2" or "baseline"
const char* capability();

}  // namespace sspcab::cpu
