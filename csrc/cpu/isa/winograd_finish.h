// Winograd's filtering: products become sums, and what is done to the sums of the direct way
// (convolution_finish.h) is done to them.
#pragma once

// The sums of a tile's 2 × 2 outputs, a vector of channels.
template <class T>
struct TileSums {
  Vector<T> y[2][2];

  TileSums(const T* products, int64_t component) {
    Vector<T> m[2][3];
#pragma GCC unroll 3
    for (int64_t b = 0; b < 3; ++b) {
      const T* column = products + b * component;
      const Vector<T> middle = load(column + 3 * component);
      m[0][b] = load(column) + middle;
      m[1][b] = middle - load(column + 6 * component);
    }
#pragma GCC unroll 2
    for (int64_t i = 0; i < 2; ++i) {
      y[i][0] = m[i][0] + m[i][1];
      y[i][1] = m[i][1] - m[i][2];
    }
  }
  // 0, or NaN unless all are finite.
  Vector<T> nothing() const {
    const Vector<T> sum = (y[0][0] + y[0][1]) + (y[1][0] + y[1][1]);
    return sum - sum;
  }
};

// The products of a chunk and of one tile of output channels.
template <class D, int Vectors>
struct Products {
  using T = Compute<D>;
  static constexpr int64_t kSize = Vectors * kLanes<T>;

  const Convolution<D>& conv;
  const Winograd& winograd;
  const Tiles& tiles;
  int64_t tile;
  const T* data;  // [component][tile][channel]

  int64_t first_channel() const { return tile * 2 * kLanes<T>; }
  int64_t first_column() const { return winograd.columns().first(tiles.columns.first); }
  // Columns of the image.
  int64_t columns() const {
    return std::min(winograd.row_outputs(tiles), conv.sample.width - first_column());
  }

  // body(sums, column) for the tiles of pair of rows r, channels from v on, and after() for every
  // few of them. Whether all sums are finite.
  template <class Width, class Body, class After>
  bool for_each_tile(int64_t r, int64_t v, Width width, const Body& body,
                     const After& after) const {
    const int64_t component = tiles.count() * kSize, apart = winograd.apart();
    const T* from = data + (r - tiles.rows.first) * tiles.columns.count() * kSize + v;
    Vector<T> nothing{};
    int64_t column = first_column();
    for (int64_t c = tiles.columns.first; c < tiles.columns.last; c += apart, column += apart) {
      for (int64_t i = 0; i < std::min(apart, tiles.columns.last - c); ++i, ++column) {
        const TileSums<T> sums(from, component);
        from += kSize;
        nothing += sums.nothing();
        body(sums, column);
      }
      after();
    }
    return sum_of_lanes<T>(inside<T>(nothing, width)) == 0;
  }
};

// Results of a pair of rows, channels_last, straight from the registers. Whether all sums are
// finite: nothing is added to the totals otherwise.
template <class D, int Vectors, class Finish>
bool finish_channels_last(const Products<D, Vectors>& products, int64_t r,
                          const Compute<D>* parameter, D* result, double* totals,
                          const Finish& finish) {
  using T = Compute<D>;
  const Sample& s = products.conv.sample;
  const int64_t apart = products.winograd.apart(), row = products.winograd.rows().first(r);
  const int64_t rows = row + apart < s.height ? 2 : 1;
  double row_totals[products.kSize] = {};
  bool finite = true;
  const int64_t channels = std::min(products.kSize, s.channels - products.first_channel());
  for_each_vector<T>(channels, [&](int64_t v, auto width) {
    const int64_t channel = products.first_channel() + v;
    const Vector<T> p = parameter ? load(parameter + channel, width) : Vector<T>{};
    Vector<T> total{};
    const auto store_results = [&](const TileSums<T>& sums, int64_t column) {
      const int64_t columns = column + apart < s.width ? 2 : 1;
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          const int64_t pixel = (row + i * apart) * s.width + column + j * apart;
          const int64_t offset = pixel * s.channels + channel;
          const Vector<T> value = finish(sums.y[i][j], p, offset, width);
          store(result + offset, value, width);
          total += value;
        }
      }
    };
    const auto add_total = [&] {
      add_to<T>(row_totals + v, total, width);
      total = Vector<T>{};
    };
    finite &= products.for_each_tile(r, v, width, store_results, add_total);
  });
  for (int64_t c = 0; totals && finite && c < channels; ++c) {
    totals[products.first_channel() + c] += row_totals[c];
  }
  return finite;
}

// Channels apart: sums become rows of neighbouring pixels first.
template <class D, int Vectors, class Finish>
bool finish_channels_first(const Products<D, Vectors>& products, int64_t r,
                           const Compute<D>* parameter, D* result, double* totals,
                           const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t size = products.kSize;
  const Sample& s = products.conv.sample;
  const int64_t apart = products.winograd.apart();
  const int64_t row_size = products.winograd.row_outputs(products.tiles) * size;
  T* const rows = products.conv.scratch;
  bool finite = true;
  for (int64_t v = 0; v < size; v += kLanes<T>) {
    const auto store_sums = [&](const TileSums<T>& sums, int64_t column) {
      T* const to = rows + (column - products.first_column()) * size + v;
      for (int64_t i = 0; i < 2; ++i) {
        store(to + i * row_size, sums.y[i][0]);
        store(to + i * row_size + apart * size, sums.y[i][1]);
      }
    };
    finite &= products.for_each_tile(r, v, Full{}, store_sums, [] {});
  }
  for (int64_t i = 0; finite && i < 2; ++i) {
    const int64_t row = products.winograd.rows().first(r) + i * apart;
    if (row >= s.height) break;
    const Pixels pixels{row * s.width + products.first_column(), 1, products.columns(), size};
    finish_squares<D, Vectors>(s, pixels, products.first_channel(), rows + i * row_size, parameter,
                               result, totals, finish);
  }
  return finite;
}

template <class D, int Vectors, class Finish>
void finish_tiles(const Products<D, Vectors>& products, const Compute<D>* parameter, D* result,
                  double* totals, const Finish& finish) {
  const Convolution<D>& conv = products.conv;
  const Sample& s = conv.sample;
  for (int64_t r = products.tiles.rows.first; r < products.tiles.rows.last; ++r) {
    if ((s.channels_last ? finish_channels_last<D, Vectors, Finish>
                         : finish_channels_first<D, Vectors, Finish>)(products, r, parameter,
                                                                      result, totals, finish)) {
      continue;
    }
    for (int64_t i = 0; i < 2; ++i) {
      const int64_t row = products.winograd.rows().first(r) + i * products.winograd.apart();
      if (row >= s.height) break;
      convolve_chunk<D, Vectors>(conv,
                                 {row * s.width + products.first_column(), products.columns()},
                                 products.tile, false, parameter, result, totals, finish);
    }
  }
}
