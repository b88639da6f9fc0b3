// What happens to the sums of the masked convolution: bias and ReLU, or the direct term of the
// loss; then they are stored in the layout and type of the result.
//
// finish(sum, parameter, offset, width) returns the vector of results at an offset, from the sums
// and the channels' parameter (bias or gate; 0 where it is null). Results are added to the
// channels' totals unless these are null.
#pragma once

// Pixels `first`, `first + step`, ..., whose sums lie `sum_stride` apart.
struct Pixels {
  int64_t first, step, count, sum_stride;
};

// channels_last: channels lie in the lanes, as they do in the sums.
template <class D, int Vectors, class Finish>
void finish_pixels(const Sample& s, const Pixels& pixels, int64_t first_channel,
                   const Compute<D>* sums, const Compute<D>* parameter, D* result, double* totals,
                   const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>;
  const int64_t channels = std::min(Vectors * lanes, s.channels - first_channel);
  for_each_vector<T>(channels, [&](int64_t v, auto width) {
    const int64_t channel = first_channel + v;
    const Vector<T> p = parameter ? load(parameter + channel, width) : Vector<T>{};
    Vector<T> total{};
    for (int64_t i = 0; i < pixels.count; ++i) {
      const int64_t offset = (pixels.first + i * pixels.step) * s.channels + channel;
      const Vector<T> value = finish(load(sums + i * pixels.sum_stride + v), p, offset, width);
      store(result + offset, value, width);
      total += value;
    }
    if (totals) add_to<T>(totals + channel, total, width);
  });
}

// Channels apart: squares of sums are transposed, so that neighbouring pixels lie in the lanes.
template <class D, int Vectors, class Finish>
void finish_squares(const Sample& s, const Pixels& pixels, int64_t first_channel,
                    const Compute<D>* sums, const Compute<D>* parameter, D* result, double* totals,
                    const Finish& finish) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>;
  for (int64_t first = first_channel; first < std::min(first_channel + Vectors * lanes, s.channels);
       first += lanes) {
    const int64_t channels = std::min(lanes, s.channels - first);
    const T* rows = sums + first - first_channel;
    Vector<T> total[lanes] = {};
    for_each_vector<T>(pixels.count, [&](int64_t i, auto width) {
      Vector<T> square[lanes];
      for (int64_t j = 0; j < lanes; ++j) square[j] = load(rows + (i + j) * pixels.sum_stride);
      transpose<T>(square);
      for (int64_t j = 0; j < channels; ++j) {
        const int64_t offset = (first + j) * s.pixels() + pixels.first + i;
        const Vector<T> p = broadcast(parameter ? parameter[first + j] : T(0));
        const Vector<T> value = finish(square[j], p, offset, width);
        store(result + offset, value, width);
        total[j] += inside<T>(value, width);
      }
    });
    for (int64_t j = 0; totals && j < channels; ++j) totals[first + j] += sum_of_lanes<T>(total[j]);
  }
}

// Asks for the memory of results before their sums are known: it would hold up the stores.
template <class D, int Vectors>
inline void prefetch_result(const Sample& s, const Pixels& pixels, int64_t first_channel,
                            const D* result) {
  constexpr int64_t channels = Vectors * kLanes<Compute<D>>;
  constexpr int64_t line = 64 / sizeof(D);
  if (s.channels_last) {
    for (int64_t i = 0; i < pixels.count; ++i) {
      const D* pixel = result + (pixels.first + i * pixels.step) * s.channels + first_channel;
      for (int64_t c = 0; c < channels; c += line) __builtin_prefetch(pixel + c);
    }
  } else {
    for (int64_t c = 0; c < channels; ++c) {
      __builtin_prefetch(result + (first_channel + c) * s.pixels() + pixels.first);
    }
  }
}
