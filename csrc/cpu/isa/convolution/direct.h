// Masked convolution as an implicit matrix product.
//
// A chunk is up to 256 neighbouring pixels; a tile is up to two vectors of output channels. For
// each chunk and tile, rectangles of pixels that have the same taps inside the image are worked off
// in runs along their longer side (run.h); taps outside, which would only add zeros,
// are left out, so the image needs no padding. Few products are added in a row: after kChain of
// them a run's registers are added to its sums in the scratch, as float32 loses digits in long
// sums. A panel too large for the second-level cache is walked through in parts (kPartBytes), each
// by all runs of a chunk, while sums wait in the scratch. Sums are finished (finish.h)
// run by run in channels_last, chunk by chunk otherwise.
#pragma once

constexpr int64_t kChunk = 256;
constexpr int64_t kChain = 64;              // products added one after another, to keep digits
constexpr int64_t kGroupBytes = 512 << 10;  // of panels, walked through by one chunk after another

// Neighbouring pixels [first, first + count) of the image, within one row or in whole rows.
struct Chunk {
  int64_t first, count;
};

// The taps that lie inside the image for a pixel, into share.taps; returns how many.
template <class D>
int64_t taps_inside(const Share<D>& share, int64_t row, int64_t column) {
  const SubKernels& kernels = share.sub_kernels;
  int64_t count = 0;
  for (int64_t corner = 0; corner < 4; ++corner) {
    int64_t tap = 0;
    for (int64_t i = 0; i < kernels.kernel_dim; ++i) {
      const int64_t down = share.sign * kernels.row(corner, i);
      const bool row_inside = row + down >= 0 && row + down < share.sample.height;
      for (int64_t j = 0; j < kernels.kernel_dim; ++j, ++tap) {
        const int64_t right = share.sign * kernels.column(corner, j);
        if (!row_inside || column + right < 0 || column + right >= share.sample.width) continue;
        share.taps[count++] = {down * share.input.row_stride + right * share.input.pixel_stride,
                               share.filter_of(corner), tap};
      }
    }
  }
  return count;
}

inline int64_t next_border(const int64_t* borders, int64_t position) {
  while (*borders <= position) ++borders;
  return *borders;
}

// Calls body(pixels) for runs that together are the chunk. Before, in.taps, in.tap_count and
// in.pixel_stride are set; sum_stride is that of a chunk's sums.
template <class D, class Body>
void for_each_run(const Share<D>& share, const Chunk& chunk, int64_t pixel_sums,
                  RunInput<Compute<D>>& in, const Body& body) {
  const int64_t width = share.sample.width;
  const int64_t first_row = chunk.first / width, first_column = chunk.first % width;
  const int64_t last_row = divide_up(chunk.first + chunk.count, width);
  const int64_t last_column = std::min(width, first_column + chunk.count);
  for (int64_t row = first_row, next_row; row < last_row; row = next_row) {
    next_row = std::min(last_row, next_border(share.row_borders, row));
    for (int64_t column = first_column, next_column; column < last_column; column = next_column) {
      next_column = std::min(last_column, next_border(share.column_borders, column));
      in.tap_count = taps_inside(share, row, column);
      const int64_t rows = next_row - row, columns = next_column - column;
      const bool along_row = columns >= rows;
      const int64_t step = along_row ? 1 : width, across = along_row ? width : 1;
      in.pixel_stride = along_row ? share.input.pixel_stride : share.input.row_stride;
      for (int64_t line = 0; line < std::min(rows, columns); ++line) {
        int64_t pixel = row * width + column + line * across;
        int64_t left = std::max(rows, columns);
        for (int64_t runs = divide_up(left, kMaxRun); runs > 0; --runs) {
          const int64_t run = divide_up(left, runs);  // equal lengths, give or take one pixel
          body(Pixels{pixel, step, run, step * pixel_sums});
          pixel += run * step;
          left -= run;
        }
      }
    }
  }
}

template <class D, int Vectors, class Finish>
void convolve_chunk(const Share<D>& share, const Chunk& chunk, int64_t tile, bool first_tile,
                    const Compute<D>* parameter, D* result, double* totals, const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t pixel_sums = Vectors * kLanes<T>;
  const Sample& s = share.sample;
  const int64_t taps = share.sub_kernels.taps(), blocks = s.blocks();
  const int64_t first_channel = tile * 2 * kLanes<T>;
  const int64_t part = std::max<int64_t>(1, kPartBytes / (kBlock * taps * pixel_sums * sizeof(T)));
  const int64_t chain = std::max<int64_t>(1, kChain / (kBlock * taps));
  RunInput<T> in;
  in.block_stride = share.input.block_stride;
  in.taps = share.taps;
  in.panel_taps = share.sub_kernels.taps_per_corner();
  in.filter_stride = s.channels * in.panel_taps * pixel_sums;
  if (first_tile) {
    const int64_t rows = divide_up(chunk.count, s.width) + share.sub_kernels.reach();
    in.ahead = rows * share.input.row_stride;
  }
  const T* panel = share.panels + first_channel * s.channels * in.panel_taps * share.filters();
  for (int64_t first = 0; first < blocks; first += part) {
    const int64_t last = std::min(first + part, blocks);
    for_each_run(share, chunk, pixel_sums, in, [&](const Pixels& pixels) {
      T* sums = share.scratch + (pixels.first - chunk.first) * pixel_sums;
      const T* pixel = share.input.at(pixels.first / s.width, pixels.first % s.width);
      in.sum_stride = pixels.sum_stride;
      if (last == blocks) prefetch_result<D, Vectors>(s, pixels, first_channel, result);
      for (int64_t block = first; block < last; block += chain) {
        in.pixel = pixel + block * in.block_stride;
        in.panel = panel + block * kBlock * in.panel_taps * pixel_sums;
        in.blocks = std::min(chain, last - block);
        in.channels_of_last = std::min(kBlock, s.channels - (block + in.blocks - 1) * kBlock);
        in.starts = block == 0;
        accumulate_run_of<T, Vectors>(pixels.count, std::make_integer_sequence<int, kMaxRun>{})(
            in, sums);
      }
      if (last == blocks && s.channels_last) {
        finish_pixels<D, Vectors>(s, pixels, first_channel, sums, parameter, result, totals,
                                  finish);
      }
    });
  }
  if (!s.channels_last) {
    finish_squares<D, Vectors>(s, {chunk.first, 1, chunk.count, pixel_sums}, first_channel,
                               share.scratch, parameter, result, totals, finish);
  }
}

template <class D, class Finish>
void convolve_directly(const Share<D>& share, const Compute<D>* parameter, D* result,
                       double* totals, const Finish& finish) {
  using T = Compute<D>;
  const Sample& s = share.sample;
  const int64_t panel_bytes = 2 * kVectorBytes * s.channels * share.sub_kernels.taps();
  const int64_t group = std::max<int64_t>(1, kGroupBytes / panel_bytes);  // of tiles
  const int64_t end = share.rows.last * s.width;
  for (int64_t tiles = share.first_tile; tiles < share.last_tile; tiles += group) {
    for (Chunk chunk{share.rows.first * s.width, 0}; chunk.first < end;
         chunk.first += chunk.count) {
      chunk.count = s.width < kChunk ? std::min(kChunk / s.width * s.width, end - chunk.first)
                                     : std::min(divide_up(s.width, divide_up(s.width, kChunk)),
                                                s.width - chunk.first % s.width);
      for (int64_t tile = tiles; tile < std::min(tiles + group, share.last_tile); ++tile) {
        (panel_width<T>(s.channels, tile) == 2 * kLanes<T>
             ? convolve_chunk<D, 2, Finish>
             : convolve_chunk<D, 1, Finish>)(share, chunk, tile, tile == tiles, parameter, result,
                                             totals, finish);
      }
    }
  }
}
