// The two matrix products of squeeze and excitation, for one block with one sample.
#pragma once

#include "cuda/passes/walk.cuh"

namespace sspcab::cuda {

constexpr int kExcitationThreads = 1024;

// finish(row, Σ over columns of matrix[row][column] · vector[column]). A warp has at least Rows
// rows at a time: Lanes threads share a row and read neighbouring elements, of neighbouring rows
// where these are short; several loads are under way, and the threads of a warp finish its rows
// together.
template <int Rows, int Lanes = 32, class P, class W, class Finish>
__device__ void multiply(const P* matrix, const W* vector, int64_t rows, int64_t columns,
                         const Finish& finish) {
  if constexpr (Lanes > 1) {
    if (columns <= Lanes / 2) {
      return multiply<Rows, Lanes / 2>(matrix, vector, rows, columns, finish);
    }
  }
  constexpr int warps = kExcitationThreads / 32;
  constexpr int beside = 32 / Lanes, own = Rows > beside ? Rows / beside : 1;
  const int lane = threadIdx.x % Lanes;
  for (int64_t of_warp = threadIdx.x / 32 * own * beside; of_warp < rows;
       of_warp += warps * own * beside) {
    const int64_t row = of_warp + threadIdx.x % 32 / Lanes;
    W sum[own] = {};
#pragma unroll(8 / own)
    for (int64_t column = lane; column < columns; column += Lanes) {
      const W factor = vector[column];
#pragma unroll
      for (int i = 0; i < own; ++i) {
        if (row + i * beside < rows) {
          sum[i] += widen(matrix[(row + i * beside) * columns + column]) * factor;
        }
      }
    }
    W finished = 0;
#pragma unroll
    for (int i = 0; i < own; ++i) {
      sum[i] = add_lanes(sum[i], Lanes);
      if (lane == i) finished = sum[i];
    }
    if (lane < own && row + lane * beside < rows) finish(row + lane * beside, finished);
  }
}

// finish(column, Σ over rows of value(row, column)). Threads have neighbouring columns and, where
// there are more threads than columns, a share of the rows each.
template <class W, class Value, class Finish>
__device__ void add_columns(int64_t rows, int64_t columns, Value&& value, Finish&& finish) {
  __shared__ W handed[1][kExcitationThreads];
  const int lanes = columns < kExcitationThreads ? static_cast<int>(columns) : kExcitationThreads;
  if (lanes == 0) return;
  const int shares = kExcitationThreads / lanes, share = threadIdx.x / lanes;
  for (int64_t first = 0; first < columns; first += lanes) {
    const int64_t column = first + threadIdx.x % lanes;
    Vector<W, 1> sum = {};
    if (column < columns && share < shares) {
#pragma unroll 8
      for (int64_t row = share; row < rows; row += shares) sum[0] += value(row, column);
    }
    __syncthreads();  // handed may still be read from the last time
    add_rows(sum, handed, lanes, shares);
    if (share == 0 && column < columns) finish(column, sum[0]);
  }
}

// Σ over the sample's slots.
template <class W, class Finish>
__device__ void add_slots(const ChannelSums& sums, int64_t n, int64_t channels, Finish&& finish) {
  const int64_t slot = sums.slots.first(n), count = sums.slots.last(n) - slot + 1;
  const W* first = static_cast<const W*>(sums.data) + slot * channels;
  add_columns<W>(
      count, channels, [&](int64_t row, int64_t c) { return first[row * channels + c]; }, finish);
}

}  // namespace sspcab::cuda
