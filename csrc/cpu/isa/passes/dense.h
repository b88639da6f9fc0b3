// The small dense layers of the excitation, one sample at a time.
#pragma once

template <class T>
void dense(const T* matrix, const T* vector, const T* bias, int64_t rows, int64_t columns,
           T* result) {
  for (int64_t i = 0; i < rows; ++i) {
    Vector<T> sum{};
    for_each_vector<T>(columns, [&](int64_t j, auto width) {
      sum += load(matrix + i * columns + j, width) * load(vector + j, width);
    });
    result[i] = static_cast<T>(bias[i] + sum_of_lanes<T>(sum));
  }
}

template <class T>
void add_scaled(const T* vector, T factor, int64_t count, T* result) {
  for_each_vector<T>(count, [&](int64_t j, auto width) {
    store(result + j, load(result + j, width) + factor * load(vector + j, width), width);
  });
}

template <class T>
void dense_transposed(const T* matrix, const T* vector, int64_t rows, int64_t columns, T* result) {
  for (int64_t j = 0; j < columns; ++j) result[j] = 0;
  for (int64_t i = 0; i < rows; ++i) add_scaled(matrix + i * columns, vector[i], columns, result);
}
