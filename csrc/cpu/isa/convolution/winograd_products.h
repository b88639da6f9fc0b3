// Winograd's filtering: products of the components of inputs and filters.
//
// A run is a few tiles, whose sums over one part of the inputs are in registers. Every step
// broadcasts one input of each tile and multiplies it with a row of the panel, two vectors of
// output channels (or one). The terms are larger than the formula's: lest float32 lose digits, few
// of them, and those of several taps, are added up in two chains, of half the tiles at a time.
#pragma once

// In each run `piece` elements from `next` on are asked for.
template <class T, int Run, int Vectors, int Chains>
void multiply_runs(const T* inputs, int64_t tile_stride, const T* panel, int64_t length,
                   bool starts, const T* next, int64_t piece, int64_t runs,
                   T* __restrict products) {
  constexpr int64_t lanes = kLanes<T>, line = 64 / sizeof(T);
  constexpr int shared = 3;  // tiles that share a pointer: x86 scales the stride by 1 and 2
  const int64_t half = length / Chains;
  for (int64_t run = 0; run < runs; ++run, inputs += Run * tile_stride, next += piece) {
    for (int64_t i = 0; i < piece; i += line) __builtin_prefetch(next + i);
    Vector<T> sum[Chains][Run][Vectors] = {};
    const T* source[(Run + shared - 1) / shared];
    for (int i = 0; i * shared < Run; ++i) source[i] = inputs + i * shared * tile_stride;
    const auto step = [&](int chain, int64_t i) __attribute__((always_inline)) {
      Vector<T> weight[Vectors];
      for (int v = 0; v < Vectors; ++v) weight[v] = load(panel + (i * Vectors + v) * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < Run; ++r) {
        const T x = source[r / shared][r % shared * tile_stride + i];
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) sum[chain][r][v] += x * weight[v];
      }
    };
#pragma GCC unroll 4
    for (int64_t i = 0; i < half; ++i) {
#pragma GCC unroll 2
      for (int chain = 0; chain < Chains; ++chain) step(chain, chain * half + i);
    }
    for (int64_t i = Chains * half; i < length; ++i) step(0, i);
#pragma GCC unroll 16
    for (int r = 0; r < Run; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v, products += lanes) {
        Vector<T> total = sum[0][r][v];
        if constexpr (Chains == 2) total += sum[1][r][v];
        store(products, starts ? total : total + load(products));
      }
    }
  }
}

template <class T>
using MultiplyRuns = void (*)(const T*, int64_t, const T*, int64_t, bool, const T*, int64_t,
                              int64_t, T*);

template <class T, int Vectors, int Chains, int... Index>
MultiplyRuns<T> multiply_runs_of(int64_t run, std::integer_sequence<int, Index...>) {
  static constexpr MultiplyRuns<T> table[] = {multiply_runs<T, Index + 1, Vectors, Chains>...};
  return table[run - 1];
}

// One part of the inputs of all tiles, `length` of each, `chain` of them at a time. Runs are as few
// as there can be, of equal lengths, give or take one. Meanwhile the panel that comes next, if any,
// is asked for, a piece in each run.
template <class T, int Vectors, int Chains>
void multiply_part(const T* inputs, int64_t tile_stride, const T* panel, int64_t length,
                   int64_t chain, bool starts, const T* next, int64_t tiles, T* products) {
  constexpr int64_t size = Vectors * kLanes<T>;
  constexpr int longest = kMaxRun / Chains;
  const int64_t runs = divide_up(tiles, longest), least = tiles / runs, longer = tiles % runs;
  const int64_t piece = next ? divide_up(chain * size, runs) : 0;
  const auto multiply = [&](int64_t run, int64_t count, int64_t run_first, int64_t tile_first) {
    if (count == 0) return;
    multiply_runs_of<T, Vectors, Chains>(run, std::make_integer_sequence<int, longest>{})(
        inputs + tile_first * tile_stride, tile_stride, panel, chain, starts,
        next + run_first * piece, piece, count, products + tile_first * size);
  };
  for (int64_t i = 0; i < length; i += chain) {
    chain = std::min(chain, length - i);
    multiply(least + 1, longer, 0, 0);
    multiply(least, runs - longer, longer, longer * (least + 1));
    inputs += chain;
    panel += chain * size;
    next += runs * piece;
    starts = false;
  }
}

// Products of one component of a chunk, [tile of output channels][component][tile][channel].
template <class D>
void multiply_component(const Share<D>& share, const Winograd& winograd, int64_t tiles,
                        int64_t component, int64_t first_tile, int64_t last_tile,
                        const Compute<D>* inputs, Compute<D>* products) {
  using T = Compute<D>;
  constexpr int64_t width = 2 * kLanes<T>;
  const Sample& s = share.sample;
  const int64_t taps = winograd.taps_per_corner(), stride = winograd.tile_stride();
  const auto panel = [&](int64_t tile, int64_t block) {
    const int64_t w = panel_width<T>(s.channels, tile);
    return share.panels +
           ((tile * width * kComponents + component * w) * s.channels + block * kBlock * w) * taps;
  };
  const int64_t step = winograd.blocks_of_part();
  const bool two_chains = s.channels <= kChain || taps > 1;
  inputs += component * winograd.input_stride(tiles);
  for (int64_t block = 0; block < s.blocks(); block += step, inputs += tiles * stride) {
    const int64_t length = std::min(step * kBlock, s.channels - block * kBlock) * taps;
    const int64_t chain = divide_up(length, divide_up(length, kChain));
    for (int64_t tile = first_tile; tile < last_tile; ++tile) {
      // One tile's panel lies in one piece, which the processor asks for by itself.
      const T* next = last_tile - first_tile == 1 ? nullptr
                      : tile + 1 < last_tile      ? panel(tile + 1, block)
                      : block + step < s.blocks() ? panel(first_tile, block + step)
                                                  : nullptr;
      const int64_t w = panel_width<T>(s.channels, tile);
      (w == width ? two_chains ? multiply_part<T, 2, 2> : multiply_part<T, 2, 1>
       : two_chains
           ? multiply_part<T, 1, 2>
           : multiply_part<T, 1, 1>)(inputs, stride, panel(tile, block), length, chain, block == 0,
                                     next, tiles,
                                     products + (tile - first_tile) * winograd.products(width) +
                                         component * winograd.product_stride(tiles, w));
    }
  }
}
