// Weight gradients: for one block of 16 input channels and one tile of output channels, the sum of
// x ⊗ grad_a over the pixels, for every tap.
//
// A chunk is a few rows (about 128 pixels) that stay in the first-level cache while all taps pass
// over it. For each tap, up to kInputs input channels are broadcast and multiplied with two vectors
// of output channels, pixel after pixel; the sums stay in registers over the chunk and are then
// added to the result, so a long sum is added in two levels. No input is read that isn't one of x:
// an image in place may be the last thing in readable memory.
#pragma once

constexpr int64_t kGradientChunk = 128;

// Pixels of grad_a whose tap lies inside the image.
struct Window {
  Rows rows, columns;
};

template <class T, int Inputs, int Vectors>
void weight_gradient_tap(const Window& window, const T* x, int64_t x_pixel, int64_t x_row,
                         const T* grad_a, const View<T>& grad_view,
                         const int64_t (&vector_offset)[2], T* grad) {
  constexpr int64_t lanes = kLanes<T>;
  Vector<T> sum[Inputs][Vectors] = {};
  for (int64_t row = window.rows.first; row < window.rows.last; ++row) {
    const T* input = x;
    const T* pixel = grad_a;
    for (int64_t w = 0; w < window.columns.count(); ++w) {
      Vector<T> g[Vectors];
      for (int v = 0; v < Vectors; ++v) g[v] = load(pixel + vector_offset[v]);
#pragma GCC unroll 16
      for (int i = 0; i < Inputs; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) sum[i][v] += input[i] * g[v];
      }
      input += x_pixel;
      pixel += grad_view.pixel_stride;
    }
    x += x_row;
    grad_a += grad_view.row_stride;
  }
  for (int i = 0; i < Inputs; ++i) {
    for (int v = 0; v < Vectors; ++v) {
      T* target = grad + i * 2 * lanes + v * lanes;
      store(target, load(target) + sum[i][v]);
    }
  }
}

template <class T>
using WeightGradientTap = void (*)(const Window&, const T*, int64_t, int64_t, const T*,
                                   const View<T>&, const int64_t (&)[2], T*);

template <class T, int Vectors, int... Index>
WeightGradientTap<T> weight_gradient_tap_of(int64_t inputs, std::integer_sequence<int, Index...>) {
  static constexpr WeightGradientTap<T> table[] = {weight_gradient_tap<T, Index + 1, Vectors>...};
  return table[inputs - 1];
}

// body(corner, row, column) for every tap, in order.
template <class Body>
inline void for_each_tap(SubKernels kernels, const Body& body) {
  for (int64_t corner = 0; corner < 4; ++corner) {
    for (int64_t i = 0; i < kernels.kernel_dim; ++i) {
      for (int64_t j = 0; j < kernels.kernel_dim; ++j) {
        body(corner, kernels.row(corner, i), kernels.column(corner, j));
      }
    }
  }
}

template <class D>
void weight_gradient(const Sample& s, Rows rows, SubKernels kernels, const View<Compute<D>>& x,
                     const View<Compute<D>>& grad_a, int64_t block, int64_t tile,
                     const bool corners[4], Compute<D>* grad) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>;
  const int64_t inputs = std::min(kBlock, s.channels - block * kBlock);
  int64_t vector_offset[2];
  for (int64_t v = 0; v < 2; ++v) {
    const int64_t channel = (tile * 2 + v) * lanes;
    vector_offset[v] = channel / kBlock * grad_a.block_stride + channel % kBlock;
  }
  const bool two_vectors = panel_width<T>(s.channels, tile) == 2 * lanes;
  const int64_t step = std::max<int64_t>(1, kGradientChunk / s.width);
  for (int64_t row = rows.first; row < rows.last; row += step) {
    int64_t tap = 0;
    for_each_tap(kernels, [&](int64_t corner, int64_t down, int64_t right) {
      T* target = grad + tap++ * kBlock * 2 * lanes;
      if (!corners[corner]) return;
      const Window window{
          {std::max(row, -down), std::min(std::min(row + step, rows.last), s.height - down)},
          {std::max<int64_t>(0, -right), std::min(s.width, s.width - right)}};
      if (window.rows.count() <= 0 || window.columns.count() <= 0) return;
      const T* source =
          x.at(window.rows.first + down, window.columns.first + right) + block * x.block_stride;
      const T* pixel = grad_a.at(window.rows.first, window.columns.first);
      for (int64_t i = 0; i < inputs; i += kInputs) {
        constexpr auto counts = std::make_integer_sequence<int, kInputs>{};
        const int64_t count = std::min<int64_t>(kInputs, inputs - i);
        const WeightGradientTap<T> add_tap = two_vectors
                                                 ? weight_gradient_tap_of<T, 2>(count, counts)
                                                 : weight_gradient_tap_of<T, 1>(count, counts);
        add_tap(window, source + i, x.pixel_stride, x.row_stride, pixel, grad_a, vector_offset,
                target + i * 2 * lanes);
      }
    });
  }
}

// Row q of the gradients is (channel q / k'², tap q % k'² of the corner), as in pack_panel_forward.
template <class T>
void unpack_weight_gradient(const T* grad, SubKernels kernels, int64_t channels, int64_t block,
                            int64_t tile, const bool corners[4], T* const grad_weights[4]) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t per_corner = kernels.taps_per_corner();
  const int64_t first_in = block * kBlock;
  const int64_t rows = std::min(kBlock, channels - first_in) * per_corner;
  for (int64_t corner = 0; corner < 4; ++corner) {
    if (!corners[corner]) continue;
    for (int64_t v = 0; v < 2; ++v) {
      const int64_t out = (tile * 2 + v) * lanes;
      if (out >= channels) break;
      T* target = grad_weights[corner] + (out * channels + first_in) * per_corner;
      for_each_vector<T>(rows, [&](int64_t q, auto width) {
        Vector<T> square[lanes] = {};
        const int64_t count = std::min(lanes, rows - q);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t c = (q + i) / per_corner, tap = corner * per_corner + (q + i) % per_corner;
          square[i] = load(grad + (tap * kBlock + c) * 2 * lanes + v * lanes);
        }
        transpose<T>(square);
        for (int64_t i = 0; i < std::min(lanes, channels - out); ++i) {
          store(target + i * channels * per_corner + q, square[i], width);
        }
      });
    }
  }
}
