// Packing: images into blocks of 16 channels, weights into panels.
#pragma once

// Rows of an image, or blocks of a weight's row, to ask for in advance: there are more of them than
// the processor's own prefetcher follows.
constexpr int64_t kRowsAhead = 2;

template <class D>
void pack_row(const D* image, const Sample& s, int64_t row, int64_t first_block, int64_t last_block,
              int64_t block_stride, Compute<D>* pixel) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>;
  if (s.channels_last) {
    for (int64_t w = 0; w < s.width; ++w, pixel += kBlock) {
      const D* source = image + (row * s.width + w) * s.channels;
      for (int64_t b = first_block; b < last_block; ++b) {
        const int64_t inside = std::min(kBlock, s.channels - b * kBlock);
        T* target = pixel + b * block_stride;
        for (int64_t c = 0; c < kBlock; c += lanes) {
          const D* p = source + b * kBlock + c;
          if (c + lanes <= inside) {
            store(target + c, load(p));
          } else {
            store(target + c, c < inside ? load(p, Partial{inside - c}) : Vector<T>{});
          }
        }
      }
    }
    return;
  }
  for (int64_t b = first_block; b < last_block; ++b) {
    for (int64_t c = b * kBlock; c < (b + 1) * kBlock; c += lanes) {
      T* target = pixel + b * block_stride + c % kBlock;
      const D* source = image + (c * s.height + row) * s.width;
      for_each_vector<T>(s.width, [&](int64_t w, auto width) {
        Vector<T> square[lanes];
        for (int64_t i = 0; i < lanes; ++i) {
          square[i] = c + i < s.channels ? load(source + i * s.pixels() + w, width) : Vector<T>{};
          __builtin_prefetch(source + i * s.pixels() + w + kRowsAhead * s.width);
        }
        transpose<T>(square);
        const int64_t count = std::min(lanes, s.width - w);
        for (int64_t i = 0; i < count; ++i) store(target + (w + i) * kBlock, square[i]);
      });
    }
  }
}

template <class D>
void pack(const D* image, const Sample& s, Rows rows, const Blocked<Compute<D>>& blocked) {
  constexpr int64_t blocks_at_once = 4;  // 256 contiguous bytes of a channels_last float pixel
  for (int64_t row = rows.first; row < rows.last; ++row) {
    for (int64_t b = 0; b < s.blocks(); b += blocks_at_once) {
      pack_row(image, s, row, b, std::min(b + blocks_at_once, s.blocks()), blocked.block_stride(),
               blocked.at(row, 0));
    }
  }
}

// Width of a tile's panel: two vectors, or one where one holds the rest of the channels.
template <class T>
int64_t panel_width(int64_t channels, int64_t tile) {
  return channels - tile * 2 * kLanes<T> > kLanes<T> ? 2 * kLanes<T> : kLanes<T>;
}

// Row q of a block's transposed weights is (channel q / k'², tap q % k'² of the corner): loads run
// along the input channels and taps of one output channel, stores along the output channels.
template <class T>
void pack_panel_forward(const T* const weights[4], SubKernels kernels, int64_t channels,
                        int64_t tile, T* panel) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t width = panel_width<T>(channels, tile);
  const int64_t per_corner = kernels.taps_per_corner();
  for (int64_t c0 = 0; c0 < channels; c0 += kBlock) {
    const int64_t inside = std::min(kBlock, channels - c0);
    for (int64_t corner = 0; corner < 4; ++corner) {
      for (int64_t v = 0; v < width; v += lanes) {
        const int64_t out = tile * 2 * lanes + v;
        const T* source = weights[corner] + (out * channels + c0) * per_corner;
        for_each_vector<T>(inside * per_corner, [&](int64_t q, auto part) {
          Vector<T> square[lanes];
          for (int64_t i = 0; i < lanes; ++i) {
            const T* row = source + i * channels * per_corner + q;
            square[i] = out + i < channels ? load(row, part) : Vector<T>{};
            __builtin_prefetch(row + kRowsAhead * kBlock * per_corner);
          }
          transpose<T>(square);
          const int64_t count = std::min(lanes, inside * per_corner - q);
          for (int64_t i = 0; i < count; ++i) {
            const int64_t c = (q + i) / per_corner,
                          tap = corner * per_corner + (q + i) % per_corner;
            store(panel + (tap * inside + c) * width + v, square[i]);
          }
        });
      }
    }
    panel += kernels.taps() * inside * width;
  }
}

template <class T>
void pack_panel_mirrored(const T* const weights[4], SubKernels kernels, int64_t channels,
                         int64_t tile, T* panel) {
  const int64_t width = panel_width<T>(channels, tile);
  const int64_t per_corner = kernels.taps_per_corner();
  const int64_t first = tile * 2 * kLanes<T>;
  const int64_t count = std::min(width, channels - first);
  for (int64_t c0 = 0; c0 < channels; c0 += kBlock) {
    const int64_t inside = std::min(kBlock, channels - c0);
    for (int64_t tap = 0; tap < kernels.taps(); ++tap) {
      for (int64_t c = c0; c < c0 + inside; ++c, panel += width) {
        const T* source =
            weights[tap / per_corner] + (c * channels + first) * per_corner + tap % per_corner;
        if (per_corner == 1) {
          memcpy(panel, source, count * sizeof(T));
        } else {
          for (int64_t i = 0; i < count; ++i) panel[i] = source[i * per_corner];
        }
        for (int64_t i = count; i < width; ++i) panel[i] = 0;
      }
    }
  }
}

template <class T>
void pack_panel(const T* const weights[4], SubKernels kernels, int64_t channels, bool mirrored,
                int64_t tile, T* panel) {
  (mirrored ? pack_panel_mirrored<T> : pack_panel_forward<T>)(weights, kernels, channels, tile,
                                                              panel);
}
