// Winograd's filtering: products become sums, and what is done to the sums of the direct way
// (finish.h) is done to them.
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

// body(v, Full or Last) for the vectors of a tile's channels; v is a constant.
template <int Vectors, class Last, class Body>
__attribute__((always_inline)) inline void for_each_vector_of(Last last, const Body& body) {
  if constexpr (Vectors == 2) body(std::integral_constant<int64_t, 0>{}, Full{});
  body(std::integral_constant<int64_t, Vectors - 1>{}, last);
}

// The products of a chunk and of one tile of output channels.
template <class D, int Vectors>
struct Products {
  using T = Compute<D>;
  static constexpr int64_t kSize = Vectors * kLanes<T>;

  const Share<D>& share;
  const Winograd& winograd;
  const Tiles& tiles;
  int64_t tile;
  const T* data;  // [component][tile][channel]

  int64_t first_channel() const { return tile * 2 * kLanes<T>; }
  int64_t first_column() const { return winograd.columns().first(tiles.columns.first); }
  // Columns of the image.
  int64_t columns() const {
    return std::min(winograd.row_outputs(tiles), share.sample.width - first_column());
  }

  // body(sums, v, width, column) for the vectors v of channels of each tile of pair of rows r, and
  // after() for every few tiles. The last vector is as wide as `last`. Whether all sums are finite.
  template <class Last, class Body, class After>
  __attribute__((always_inline)) bool for_each_tile(int64_t r, Last last, const Body& body,
                                                    const After& after) const {
    const int64_t component = winograd.product_stride(tiles.count(), kSize);
    const int64_t apart = winograd.apart(), last_column = tiles.columns.last;
    const T* from = data + (r - tiles.rows.first) * tiles.columns.count() * kSize;
    Vector<T> nothing{};
    int64_t column = first_column();
    for (int64_t c = tiles.columns.first; c < last_column; c += apart, column += apart) {
      const int64_t end = column + std::min(apart, last_column - c);
      for (; column < end; ++column, from += kSize) {
        for_each_vector_of<Vectors>(last, [&](auto v, auto width) __attribute__((always_inline)) {
          const TileSums<T> sums(from + v * kLanes<T>, component);
          nothing += inside<T>(sums.nothing(), width);
          body(sums, v, width, column);
        });
      }
      after();
    }
    return sum_of_lanes<T>(nothing) == 0;
  }
};

// Results of a pair of rows, channels_last, straight from the registers. Whether all sums are
// finite: nothing is added to the totals otherwise.
template <class D, int Vectors, class Last, class Finish>
bool finish_channels_last(const Products<D, Vectors>& products, int64_t r, Last last,
                          const Compute<D>* parameter, D* result, double* totals,
                          const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>;
  const Sample& s = products.share.sample;
  const int64_t first = products.first_channel(), channels = s.channels, width = s.width;
  const int64_t apart = products.winograd.apart(), row = products.winograd.rows().first(r);
  const int64_t rows = row + apart < s.height ? 2 : 1;
  const int64_t ahead = 8 * apart * channels;  // four steps to the right
  double row_totals[Products<D, Vectors>::kSize] = {};
  Vector<T> total[Vectors] = {}, p[Vectors] = {};
  if (parameter) {
    for_each_vector_of<Vectors>(
        last, [&](auto v, auto part) { p[v] = load(parameter + first + v * lanes, part); });
  }
  const auto store_results = [&](const TileSums<T>& sums, auto v, auto part,
                                 int64_t column) __attribute__((always_inline)) {
    const int64_t columns = column + apart < width ? 2 : 1;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        const int64_t pixel = (row + i * apart) * width + column + j * apart;
        const int64_t offset = pixel * channels + first + v * lanes;
        const Vector<T> value = finish(sums.y[i][j], p[v], offset, part);
        store(result + offset, value, part);
        if (v == 0) __builtin_prefetch(result + offset + ahead, 1);
        total[v] += value;
      }
    }
  };
  const auto add_totals = [&] {
    for_each_vector_of<Vectors>(last, [&](auto v, auto part) {
      add_to<T>(row_totals + v * lanes, total[v], part);
      total[v] = Vector<T>{};
    });
  };
  const bool finite = products.for_each_tile(r, last, store_results, add_totals);
  for (int64_t c = 0; totals && finite && c < std::min(products.kSize, channels - first); ++c) {
    totals[first + c] += row_totals[c];
  }
  return finite;
}

// Channels apart: sums become rows of neighbouring pixels first.
template <class D, int Vectors, class Finish>
bool finish_channels_first(const Products<D, Vectors>& products, int64_t r,
                           const Compute<D>* parameter, D* result, double* totals,
                           const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t size = Products<D, Vectors>::kSize;
  const Sample& s = products.share.sample;
  const int64_t apart = products.winograd.apart();
  const int64_t row_size = products.winograd.row_outputs(products.tiles) * size;
  T* const rows = products.share.scratch;
  T* const first = rows - products.first_column() * size;
  const auto store_sums = [&](const TileSums<T>& sums, auto v, Full, int64_t column)
                              __attribute__((always_inline)) {
                                T* const to = first + column * size + v * kLanes<T>;
                                for (int64_t i = 0; i < 2; ++i) {
                                  store(to + i * row_size, sums.y[i][0]);
                                  store(to + i * row_size + apart * size, sums.y[i][1]);
                                }
                              };
  const bool finite = products.for_each_tile(r, Full{}, store_sums, [] {});
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
bool finish_pair(const Products<D, Vectors>& products, int64_t r, const Compute<D>* parameter,
                 D* result, double* totals, const Finish& finish) {
  using T = Compute<D>;
  const Sample& s = products.share.sample;
  if (!s.channels_last) {
    return finish_channels_first(products, r, parameter, result, totals, finish);
  }
  const int64_t of_last = s.channels - products.first_channel() - (Vectors - 1) * kLanes<T>;
  return of_last < kLanes<T>
             ? finish_channels_last(products, r, Partial{of_last}, parameter, result, totals,
                                    finish)
             : finish_channels_last(products, r, Full{}, parameter, result, totals, finish);
}

template <class D, int Vectors, class Finish>
void finish_tiles(const Products<D, Vectors>& products, const Compute<D>* parameter, D* result,
                  double* totals, const Finish& finish) {
  const Share<D>& share = products.share;
  const Sample& s = share.sample;
  for (int64_t r = products.tiles.rows.first; r < products.tiles.rows.last; ++r) {
    if (finish_pair(products, r, parameter, result, totals, finish)) continue;
    for (int64_t i = 0; i < 2; ++i) {
      const int64_t row = products.winograd.rows().first(r) + i * products.winograd.apart();
      if (row >= s.height) break;
      convolve_chunk<D, Vectors>(share,
                                 {row * s.width + products.first_column(), products.columns()},
                                 products.tile, false, parameter, result, totals, finish);
    }
  }
}
