// Weight gradients: for one block of 16 input channels and one tile of output channels, the sum of
// x ⊗ grad_a over the pixels, for every tap.
//
// A chunk is a few rows (about 128 pixels) that stay in the first-level cache while all taps pass
// over it. For each tap, kInputs input channels are broadcast and multiplied with two vectors of
// output channels, pixel after pixel; the sums stay in registers over the chunk and are then added
// to the result, so a long sum is added in two levels.
#pragma once

constexpr int64_t kGradientChunk = 128;

template <class T, int Vectors>
void weight_gradient_tap(const Sample& s, Rows rows, const T* x, int64_t x_row, const T* grad_a,
                         int64_t grad_row, const int64_t (&vector_offset)[2], T* grad) {
  constexpr int64_t lanes = kLanes<T>;
  Vector<T> sum[kInputs][Vectors] = {};
  for (int64_t row = rows.first; row < rows.last; ++row, x += x_row, grad_a += grad_row) {
    for (int64_t w = 0; w < s.width; ++w) {
      Vector<T> g[Vectors];
      for (int v = 0; v < Vectors; ++v) g[v] = load(grad_a + w * kBlock + vector_offset[v]);
#pragma GCC unroll 16
      for (int i = 0; i < kInputs; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) sum[i][v] += x[w * kBlock + i] * g[v];
      }
    }
  }
  for (int i = 0; i < kInputs; ++i) {
    for (int v = 0; v < Vectors; ++v) {
      T* target = grad + i * 2 * lanes + v * lanes;
      store(target, load(target) + sum[i][v]);
    }
  }
}

template <class D>
void weight_gradient(const Sample& s, Rows rows, SubKernels kernels,
                     const Padded<const Compute<D>>& x, const Padded<const Compute<D>>& grad_a,
                     int64_t block, int64_t tile, const bool corners[4], Compute<D>* grad) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>;
  const int64_t inputs = std::min(kBlock, s.channels - block * kBlock);
  int64_t vector_offset[2];
  for (int64_t v = 0; v < 2; ++v) {
    const int64_t channel = (tile * 2 + v) * lanes;
    vector_offset[v] = channel / kBlock * grad_a.block_stride() + channel % kBlock;
  }
  const bool two_vectors = panel_width<T>(s.channels, tile) == 2 * lanes;
  const int64_t step = std::max<int64_t>(1, kGradientChunk / s.width);
  for (int64_t row = rows.first; row < rows.last; row += step) {
    const Rows chunk{row, std::min(row + step, rows.last)};
    for (int64_t tap = 0; tap < kernels.taps(); ++tap) {
      if (!corners[kernels.corner(tap)]) continue;
      const T* source = x.at(row + kernels.row(tap), kernels.column(tap)) + block * x.block_stride();
      for (int64_t i = 0; i < inputs; i += kInputs) {
        (two_vectors ? weight_gradient_tap<T, 2> : weight_gradient_tap<T, 1>)(
            s, chunk, source + i, x.columns * kBlock, grad_a.at(row, 0), grad_a.columns * kBlock,
            vector_offset, grad + (tap * kBlock + i) * 2 * lanes);
      }
    }
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
