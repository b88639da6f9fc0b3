// The inner loops of the CPU operators as a table of functions, one table for each instruction
// set and element type. Every function is serial and works on one sample or one tile; cpu/host and
// cpu/convolution decide who calls it with what, so a table knows neither tensors nor threads.
//
// D is the type of the elements in memory, T = Compute<D> the type of all arithmetic, parameters
// and sums; totals of pixels are double.
//
// A layout of our own beside that of images (image.h), also of T:
//   panel  the weights of one tile of output channels, for the filters of the four corners or
//          Winograd's nine: [filter][block][tap][16 channels][tile]
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>

#include "cpu/geometry/image.h"
#include "cpu/geometry/way.h"
#include "cpu/geometry/windows.h"
#include "cpu/geometry/winograd.h"
#include "geometry.h"

namespace sspcab::cpu {

using Half = c10::Half;
using BFloat16 = c10::BFloat16;

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

// What the reconstruction loss and the gate add to the gradient of the output:
// G = grad_out + loss_scale · (y · gate - x).
template <class D>
struct OutputGradient {
  const D* grad_out;  // null: zero
  const D* y;
  const D* x;              // null: no loss
  const Compute<D>* gate;  // (C,); null: 1
  Compute<D> loss_scale;   // grad_loss · 2 / numel
};

template <class D>
OutputGradient<D> of_sample(OutputGradient<D> g, const Sample& s, int64_t n) {
  if (g.grad_out) g.grad_out += n * s.numel();
  if (g.y) g.y += n * s.numel();
  if (g.x) g.x += n * s.numel();
  if (g.gate) g.gate += n * s.channels;
  return g;
}

// A tap that lies inside the image for all pixels of a run.
struct Tap {
  int64_t offset;         // from a pixel of the input, in elements
  int64_t filter, index;  // of a panel
};

// The four sub-kernels where they lie, channels apart or channels_last: the weight of output o,
// input c and tap t of a corner is at o · C · k'² + c · channel_stride + t · tap_stride.
template <class T>
struct Weights {
  const T* corner[4];
  int64_t channel_stride, tap_stride;
};

// C = A · B. Elements of A lie a_row apart along the rows and a_step along what is added up; rows
// of B and C are contiguous.
template <class T>
struct Product {
  const T* a;
  int64_t a_row, a_step;
  const T* b;
  int64_t b_step;
  T* c;
  int64_t c_row;
  int64_t rows, columns, length;
  bool starts = true;  // replaces C rather than adds to it
};

// Of the windows (windows.h), for the tiles of a convolution and one sample; rows of the first tile
// come first. Forward there is one tap.
template <class T>
struct WindowProducts {
  const T* data;
  int64_t corner_stride, tap_stride, channel_stride;
};

// A share of a convolution: some of the rows of one sample, some of the tiles.
template <class D>
struct Share {
  using T = Compute<D>;
  Sample sample;
  Rows rows;  // with Winograd: pairs of rows
  SubKernels sub_kernels;
  int64_t sign;  // of the taps' offsets: 1 forward, -1 for the input's gradient
  Way way;
  // Ascending, the last one the height or width: pixels between two borders have the same taps.
  const int64_t *row_borders, *column_borders;
  View<T> input;
  const T* panels;
  int64_t first_tile, last_tile;
  T* scratch;  // kernels.scratch elements, or what the other ways need
  Tap* taps;   // room for all taps
  WindowProducts<T> products;

  int64_t filters() const { return way == Way::winograd ? kComponents : 4; }
  // Which of them is that of a corner.
  int64_t filter_of(int64_t corner) const {
    return way == Way::winograd ? component_of(corner, sign < 0) : corner;
  }
  // Of step i of a sub-kernel, in whichever corner comes first.
  int64_t first_offset(int64_t i) const {
    return sign > 0 ? sub_kernels.row(0, i) : -sub_kernels.row(1, i);
  }
};

template <class D>
struct Kernels {
  using T = Compute<D>;
  const char* name;
  int64_t tile;     // output channels of a tile
  int64_t scratch;  // elements of T that a convolution needs

  // Rows of an image into a blocked image.
  void (*pack)(const D* image, const Sample&, Rows, const Blocked<T>&);
  // Panel of one tile. Forward: inputs are input channels. Mirrored: inputs are output channels.
  void (*pack_panel)(const Weights<T>&, SubKernels, int64_t channels, bool mirrored, int64_t tile,
                     T* panel);
  // Its Winograd components.
  void (*transform_panel)(const T* panel, SubKernels, int64_t channels, bool mirrored, int64_t tile,
                          T* result);

  // y = activation(convolution + bias); sums[c] += Σ y over the rows.
  void (*convolve)(const Share<D>&, const T* bias, bool relu, D* y, double* sums);
  // grad_x = convolution - loss_scale · (y · gate - x)
  void (*convolve_input_gradient)(const Share<D>&, const OutputGradient<D>&, D* grad_x);
  // grad[tap][16][tile] += Σ over the rows of x ⊗ grad_a, for one block of input channels and one
  // tile of output channels, only for corners in the mask.
  void (*weight_gradient)(const Sample&, Rows, SubKernels, const View<T>& x, const View<T>& grad_a,
                          int64_t block, int64_t tile, const bool corners[4], T* grad);
  // Scatters what weight_gradient summed into the four weights.
  void (*unpack_weight_gradient)(const T* grad, SubKernels, int64_t channels, int64_t block,
                                 int64_t tile, const bool corners[4], T* const grad_weights[4]);

  // The windows' matrices and their products: isa/convolution/{windows,matrix_product}.h
  void (*gather_rows)(const View<T>&, const Sample&, const Windows&, int64_t row, int64_t column,
                      int64_t block, T* to, int64_t row_stride);
  void (*gather_columns)(const View<T>&, const Sample&, const Windows&, int64_t row, int64_t column,
                         int64_t block, T* to, int64_t row_stride, int64_t step);
  void (*multiply)(const Product<T>&);
  void (*multiply_dense)(const Product<T>&);

  // sums[c] += Σ image over the rows
  void (*channel_sums)(const D* image, const Sample&, Rows, double* sums);
  // out = y · gate; returns Σ (out - x)², or 0 without x.
  double (*scale)(const D* y, const T* gate, const D* x, const Sample&, Rows, D* out);
  // grad_gate[c] += Σ G · y over the rows
  void (*gate_gradient)(const OutputGradient<D>&, const Sample&, Rows, double* grad_gate);
  // grad_y = G · gate + grad_mean[c]
  void (*scale_gradient)(const OutputGradient<D>&, const T* grad_mean, const Sample&, Rows,
                         D* grad_y);
  // grad_a = G · gate + grad_mean[c] where not (relu and y <= 0), into a blocked image;
  // grad_bias[c] += Σ grad_a. grad_mean null: 0.
  void (*activation_gradient)(const OutputGradient<D>&, const T* grad_mean, bool relu,
                              const Sample&, Rows, const Blocked<T>& grad_a, double* grad_bias);

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
