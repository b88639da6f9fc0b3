// Winograd's filtering: filters and inputs become components, differences and sums of them.
#pragma once

// The 9 components of the filters from those of the four corners, which are among them.
template <class T>
void transform_panel(const T* panel, SubKernels kernels, int64_t channels, bool mirrored,
                     int64_t tile, T* result) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t size = channels * kernels.taps_per_corner() * panel_width<T>(channels, tile);
  for (int64_t i = 0; i < size; i += lanes) {
    Vector<T> g[kComponents];
    for (int64_t corner = 0; corner < 4; ++corner) {
      g[component_of(corner, mirrored)] = load(panel + corner * size + i);
    }
    for (int64_t b : {0, 2}) g[3 + b] = g[b] + g[6 + b];
    for (int64_t a : {0, 3, 6}) g[a + 1] = g[a] + g[a + 2];
    for (int64_t c = 0; c < kComponents; ++c) store(result + c * size + i, g[c]);
  }
}

// Of one tile and tap. input(row, column, offset, width) is a vector of channels. What is stored
// beyond the last channel makes way for the next tap.
template <class T, class Input>
__attribute__((noinline)) void transform_pixels(const Sample& s, const Winograd& winograd,
                                                int64_t tiles, int64_t tap, int64_t block_stride,
                                                const Input& input, T* to) {
  const int64_t part_stride = tiles * winograd.tile_stride();
  const int64_t component = winograd.input_stride(tiles);
  const int64_t part_channels = winograd.blocks_of_part() * kBlock;
  const int64_t taps = winograd.taps_per_corner();
  for (int64_t first = 0; first < s.channels; first += part_channels, to += part_stride) {
    for (int64_t c = first; c < std::min(first + part_channels, s.channels); c += kBlock) {
      const int64_t channels = std::min(kBlock, s.channels - c);
      for_each_vector<T>(channels, [&](int64_t v, auto width) {
        const int64_t offset = c / kBlock * block_stride + v;
        Vector<T> d[3][3];
#pragma GCC unroll 3
        for (int64_t b = 0; b < 3; ++b) {
          const Vector<T> middle = input(1, b, offset, width);
          d[0][b] = input(0, b, offset, width) - middle;
          d[1][b] = middle;
          d[2][b] = middle - input(2, b, offset, width);
        }
        T* row = to + (c - first) * taps + tap * channels + v;
#pragma GCC unroll 3
        for (int64_t a = 0; a < 3; ++a, row += 3 * component) {
          store(row, d[a][0] - d[a][1]);
          store(row + component, d[a][1]);
          store(row + 2 * component, d[a][1] - d[a][2]);
        }
      });
    }
  }
}

// The inputs of a chunk: [component][part][tile][block][tap of a corner][16 channels]
template <class D>
void transform_inputs(const Share<D>& share, const Winograd& winograd, const Tiles& tiles,
                      Compute<D>* result) {
  using T = Compute<D>;
  const Sample& s = share.sample;
  const int64_t apart = winograd.apart(), right = apart * share.input.pixel_stride;
  const int64_t kernel_dim = share.sub_kernels.kernel_dim;
  for (int64_t r = tiles.rows.first; r < tiles.rows.last; ++r) {
    for (int64_t tap = 0; tap < share.sub_kernels.taps_per_corner(); ++tap) {
      const int64_t row = winograd.rows().first(r) + share.first_offset(tap / kernel_dim);
      const bool rows_inside = row >= 0 && row + 2 * apart < s.height;
      T* to = result;
      for (int64_t c = tiles.columns.first; c < tiles.columns.last; c += apart) {
        const int64_t first = winograd.columns().first(c) + share.first_offset(tap % kernel_dim);
        const int64_t last = first + std::min(apart, tiles.columns.last - c);
        for (int64_t column = first; column < last; ++column, to += winograd.tile_stride()) {
          const T* const of_row[3] = {share.input.at(row, column),
                                      share.input.at(row + apart, column),
                                      share.input.at(row + 2 * apart, column)};
          if (rows_inside && column >= 0 && column + 2 * apart < s.width) {
            transform_pixels<T>(
                s, winograd, tiles.count(), tap, share.input.block_stride,
                [=](int64_t a, int64_t b, int64_t offset, auto width) {
                  const T* const from = of_row[a] + b * right + offset;
                  if (b > 0) __builtin_prefetch(from + 4 * right);  // two steps to the right
                  return load(from, width);
                },
                to);
            continue;
          }
          transform_pixels<T>(
              s, winograd, tiles.count(), tap, share.input.block_stride,
              [&](int64_t a, int64_t b, int64_t offset, auto width) {
                const int64_t y = row + a * apart, x = column + b * apart;
                const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
                return inside ? load(of_row[a] + b * right + offset, width) : Vector<T>{};
              },
              to);
        }
      }
    }
    result += tiles.columns.count() * winograd.tile_stride();
  }
}
