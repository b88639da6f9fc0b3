// Products of matrices C = A · B, of which A is read where it lies.
//
// A run is up to kMaxRun rows of A by two vectors of columns of B (or one), whose sums are in
// registers: every step broadcasts one element of each row and multiplies it with a row of B. Few
// products are added in a row (kChain), as in the masked convolution. B is walked through in parts,
// two vectors wide, that stay in the second-level cache for all runs.
#pragma once

template <class T, int Run, int Vectors>
void multiply_run(const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t b_step,
                  int64_t length, int64_t ahead, bool starts, T* __restrict c, int64_t c_row) {
  constexpr int64_t lanes = kLanes<T>;
  constexpr int shared = 3;  // rows that share a pointer: x86 scales the stride by 1 and 2
  Vector<T> sum[Run][Vectors] = {};
  const T* source[(Run + shared - 1) / shared];
  for (int i = 0; i * shared < Run; ++i) source[i] = a + i * shared * a_row;
  for (int64_t k = 0; k < length; ++k) {
    Vector<T> column[Vectors];
    for (int v = 0; v < Vectors; ++v) column[v] = load(b + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < Run; ++r) {
      const T x = source[r / shared][r % shared * a_row];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[r][v] += x * column[v];
    }
    __builtin_prefetch(source[0] + ahead);
    b += b_step;
    for (int i = 0; i * shared < Run; ++i) source[i] += a_step;
  }
#pragma GCC unroll 16
  for (int r = 0; r < Run; ++r, c += c_row) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      store(c + v * lanes, starts ? sum[r][v] : sum[r][v] + load(c + v * lanes));
    }
  }
}

template <class T>
using MultiplyRun = void (*)(const T*, int64_t, int64_t, const T*, int64_t, int64_t, int64_t, bool,
                             T*, int64_t);

template <class T, int Vectors, int... Index>
MultiplyRun<T> multiply_run_of(int64_t run, std::integer_sequence<int, Index...>) {
  static constexpr MultiplyRun<T> table[] = {multiply_run<T, Index + 1, Vectors>...};
  return table[run - 1];
}

// Rows of B and C may be read and written up to the next multiple of a vector.
template <class T>
void multiply(const Product<T>& p) {
  constexpr int64_t lanes = kLanes<T>, width = 2 * lanes;
  // Long pieces of rows of A, of which the processor asks for the next one by itself, or few rows
  // of Aᵀ, so that what lies beside a run's elements is still there for the next run.
  const bool transposed = p.a_row == 1;
  const int64_t part = transposed ? 3 * kChain : 16 * kChain, ahead = transposed ? width : 0;
  const int64_t runs = divide_up(p.rows, kMaxRun);
  for (int64_t first = 0; first < p.length; first += part) {
    const int64_t last = std::min(first + part, p.length);
    for (int64_t column = 0; column < p.columns; column += width) {
      for (int64_t run = 0; run < runs; ++run) {
        const int64_t row = p.rows * run / runs, count = p.rows * (run + 1) / runs - row;
        constexpr auto lengths = std::make_integer_sequence<int, kMaxRun>{};
        const MultiplyRun<T> multiply_this = p.columns - column > lanes
                                                 ? multiply_run_of<T, 2>(count, lengths)
                                                 : multiply_run_of<T, 1>(count, lengths);
        for (int64_t k = first; k < last; k += kChain) {
          multiply_this(p.a + row * p.a_row + k * p.a_step, p.a_row, p.a_step,
                        p.b + k * p.b_step + column, p.b_step, std::min(kChain, last - k), ahead,
                        k == 0 && p.starts, p.c + row * p.c_row + column, p.c_row);
        }
      }
    }
  }
}

// The same, where nothing may be written beyond the rows of C: as they are contiguous, what comes
// there is the next one.
template <class T>
void multiply_dense(const Product<T>& p) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t tail = p.columns % lanes;
  Product<T> whole = p;
  whole.columns = p.columns - tail;
  multiply(whole);
  if (tail == 0) return;
  Product<T> last = p;
  last.columns = tail;
  last.b += whole.columns;
  last.c_row = lanes;
  T sums[kMaxRun * lanes];
  last.c = sums;
  last.starts = true;
  for (int64_t row = 0; row < p.rows; row += last.rows) {
    last.rows = std::min<int64_t>(kMaxRun, p.rows - row);
    last.a = p.a + row * p.a_row;
    multiply(last);
    for (int64_t r = 0; r < last.rows; ++r) {
      T* const target = p.c + (row + r) * p.c_row + whole.columns;
      for (int64_t i = 0; i < tail; ++i) {
        target[i] = sums[r * lanes + i] + (p.starts ? T(0) : target[i]);
      }
    }
  }
}
