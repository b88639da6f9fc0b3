// The two matrix products of squeeze and excitation, for one block with one sample.
#pragma once

#include "cuda/walk.cuh"

namespace sspcab::cuda {

constexpr int kExcitationThreads = 1024;

// finish(row, Σ over columns of matrix[row][column] · vector[column]). A warp has Rows rows at a
// time: its threads read neighbouring elements, several loads are under way, and neighbouring
// threads finish neighbouring rows.
template <int Rows, class P, class W, class Finish>
__device__ void multiply(const P* matrix, const W* vector, int64_t rows, int64_t columns,
                         Finish&& finish) {
  constexpr int warps = kExcitationThreads / 32;
  const int lane = threadIdx.x % 32;
  for (int64_t row = threadIdx.x / 32 * Rows; row < rows; row += warps * Rows) {
    W sum[Rows] = {};
#pragma unroll(8 / Rows)
    for (int64_t column = lane; column < columns; column += 32) {
      const W factor = vector[column];
#pragma unroll
      for (int i = 0; i < Rows; ++i) {
        if (row + i < rows) sum[i] += widen(matrix[(row + i) * columns + column]) * factor;
      }
    }
    W own = 0;
#pragma unroll
    for (int i = 0; i < Rows; ++i) {
      sum[i] = add_lanes(sum[i], 32);
      if (lane == i) own = sum[i];
    }
    if (lane < Rows && row + lane < rows) finish(row + lane, own);
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
