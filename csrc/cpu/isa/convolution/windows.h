// From images to the matrices of the windows (cpu/geometry/windows.h) and back.
#pragma once

// A pixel's vector of channels [v, v + lanes) of a block; 0 outside the image.
template <class T, class Width>
inline Vector<T> load_pixel(const View<T>& image, const Sample& s, int64_t row, int64_t column,
                            int64_t offset, Width width) {
  const bool inside = row >= 0 && row < s.height && column >= 0 && column < s.width;
  return inside ? load(image.at(row, column) + offset, width) : Vector<T>{};
}

// Channels become rows, `row_stride` apart, and the window's pixels, which begin at (row, column)
// of the image, columns. What is stored beyond the last pixel of a row makes way for the next
// one's.
template <class T>
void gather_rows(const View<T>& image, const Sample& s, const Windows& windows, int64_t row,
                 int64_t column, int64_t block, T* to, int64_t row_stride) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t channels = std::min(kBlock, s.channels - block * kBlock);
  for (int64_t r = 0; r < windows.rows(); ++r) {
    for_each_vector<T>(channels, [&](int64_t v, auto width) {
      const int64_t offset = block * image.block_stride + v;
      for (int64_t c = 0; c < windows.columns(); c += lanes) {
        Vector<T> square[lanes] = {};
        for (int64_t i = 0; i < std::min(lanes, windows.columns() - c); ++i) {
          square[i] = load_pixel(image, s, row + r, column + c + i, offset, width);
        }
        transpose<T>(square);
        T* const target = to + v * row_stride + r * windows.columns() + c;
        for (int64_t i = 0; i < std::min(lanes, channels - v); ++i) {
          store(target + i * row_stride, square[i]);
        }
      }
    });
  }
}

// The window's pixels become rows, `row_stride` apart, and channels columns, `step` apart.
template <class T>
void gather_columns(const View<T>& image, const Sample& s, const Windows& windows, int64_t row,
                    int64_t column, int64_t block, T* to, int64_t row_stride, int64_t step) {
  const int64_t channels = std::min(kBlock, s.channels - block * kBlock);
  for (int64_t r = 0; r < windows.rows(); ++r) {
    for (int64_t c = 0; c < windows.columns(); ++c, to += row_stride) {
      for_each_vector<T>(channels, [&](int64_t v, auto width) {
        const Vector<T> pixel =
            load_pixel(image, s, row + r, column + c, block * image.block_stride + v, width);
        if (step == 1) {
          store(to + v, pixel, width);
        } else {
          for (int64_t i = 0; i < std::min(kLanes<T>, channels - v); ++i) {
            to[(v + i) * step] = pixel[i];
          }
        }
      });
    }
  }
}

// sums[pixel][tile] += the products of one tap (rows row_stride apart), whose window begins at
// (row, column) of the image.
template <class T, int Vectors>
void scatter_rows(const T* products, int64_t row_stride, const Sample& s, const Windows& windows,
                  int64_t row, int64_t column, int64_t channels, T* sums) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t first_row = std::max<int64_t>(0, -row);
  const int64_t last_row = std::min(windows.rows(), s.height - row);
  const int64_t first_column = std::max<int64_t>(0, -column);
  const int64_t last_column = std::min(windows.columns(), s.width - column);
  for (int64_t r = first_row; r < last_row; ++r) {
    for (int64_t v = 0; v < Vectors * lanes; v += lanes) {
      for (int64_t c = first_column; c < last_column; c += lanes) {
        Vector<T> square[lanes] = {};
        const T* const source = products + v * row_stride + r * windows.columns() + c;
        for (int64_t i = 0; i < std::min(lanes, channels - v); ++i) {
          square[i] = load(source + i * row_stride);
        }
        transpose<T>(square);
        T* const sum = sums + ((row + r) * s.width + column + c) * Vectors * lanes + v;
        for (int64_t i = 0; i < std::min(lanes, last_column - c); ++i) {
          T* const target = sum + i * Vectors * lanes;
          store(target, load(target) + square[i]);
        }
      }
    }
  }
}

template <class D, int Vectors, class Finish>
void add_products_of(const Share<D>& share, int64_t tile, const Compute<D>* parameter, D* result,
                     double* totals, const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>, width = Vectors * lanes;
  const Sample& s = share.sample;
  const Windows windows(s, share.sub_kernels);
  const int64_t kernel_dim = share.sub_kernels.kernel_dim;
  const int64_t taps = share.sign > 0 ? 1 : share.sub_kernels.taps_per_corner();
  const int64_t first_channel = tile * 2 * lanes, channels = s.channels - first_channel;
  memset(share.scratch, 0, s.pixels() * width * sizeof(T));
  for (int64_t corner = 0; corner < 4; ++corner) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      int64_t row = windows.first_row(corner), column = windows.first_column(corner);
      if (share.sign < 0) {
        row += share.sub_kernels.row(corner, tap / kernel_dim);
        column += share.sub_kernels.column(corner, tap % kernel_dim);
      }
      const T* const products =
          share.products.data + corner * share.products.corner_stride +
          tap * share.products.tap_stride +
          (tile - share.first_tile) * 2 * lanes * share.products.channel_stride;
      scatter_rows<T, Vectors>(products, share.products.channel_stride, s, windows, row, column,
                               channels, share.scratch);
    }
  }
  // In pieces, as totals of many pixels would lose digits.
  for_each_piece(0, s.pixels(), [&](int64_t first, int64_t last) {
    (s.channels_last ? finish_pixels<D, Vectors, Finish>
                     : finish_squares<D, Vectors, Finish>)(s, {first, 1, last - first, width},
                                                           first_channel,
                                                           share.scratch + first * width, parameter,
                                                           result, totals, finish);
  });
}

// The sums of the corners' products, finished like those of the direct way (finish.h).
template <class D, class Finish>
void add_products(const Share<D>& share, const Compute<D>* parameter, D* result, double* totals,
                  const Finish& finish) {
  using T = Compute<D>;
  for (int64_t tile = share.first_tile; tile < share.last_tile; ++tile) {
    (panel_width<T>(share.sample.channels, tile) == 2 * kLanes<T>
         ? add_products_of<D, 2, Finish>
         : add_products_of<D, 1, Finish>)(share, tile, parameter, result, totals, finish);
  }
}
