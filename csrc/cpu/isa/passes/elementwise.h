// Passes over the elements of a sample: gate, loss and their gradients. Each reads every tensor
// once. In channels_last the channels lie in the lanes and a pixel is a row; otherwise pixels lie
// in the lanes and a channel is a row. Few channels that don't fill vectors: as many pixels as
// lanes, side by side, are one pixel of as many times the channels.
#pragma once

constexpr int64_t kFewVectors = 4;  // of channels

// How many pixels are taken for one.
template <class T>
inline int64_t pixels_at_once(const Sample& s) {
  constexpr int64_t lanes = kLanes<T>;
  const bool few = s.channels % lanes != 0 && s.channels < kFewVectors * lanes;
  return s.channels_last && few ? lanes : 1;
}

// A (C,) parameter for all channels of such a pixel.
template <class T>
class Repeated {
 public:
  Repeated(const T* parameter, const Sample& s) : data_(parameter) {
    const int64_t times = pixels_at_once<T>(s);
    if (times == 1 || !parameter) return;
    for (int64_t i = 0; i < times; ++i) {
      memcpy(memory_ + i * s.channels, parameter, s.channels * sizeof(T));
    }
    data_ = memory_;
  }
  const T* get() const { return data_; }

 private:
  T memory_[kLanes<T> * kFewVectors * kLanes<T>];
  const T* data_;
};

// body(offset, channels, pixels) for pixels of so many channels each, from an offset on.
template <class T, class Body>
inline void for_each_width(const Sample& s, Rows rows, Body&& body) {
  const int64_t at_once = pixels_at_once<T>(s);
  const int64_t first = rows.first * s.width, groups = rows.count() * s.width / at_once;
  body(first * s.channels, at_once * s.channels, groups);
  const int64_t done = first + groups * at_once;
  if (done < rows.last * s.width) body(done * s.channels, s.channels, rows.last * s.width - done);
}

// Splits rows of a sample into vectors and calls body(offset, channel, width) for each: `channel`
// is the first of the lanes' channels (channels_last) or the one of all lanes.
template <class T, bool ChannelsLast, class Body>
inline void for_each_element(const Sample& s, Rows rows, Body&& body) {
  if constexpr (ChannelsLast) {
    for_each_width<T>(s, rows, [&](int64_t offset, int64_t channels, int64_t pixels) {
      for (int64_t pixel = 0; pixel < pixels; ++pixel, offset += channels) {
        for_each_vector<T>(channels, [&](int64_t c, auto width) { body(offset + c, c, width); });
      }
    });
  } else {
    const int64_t count = rows.count() * s.width;
    for (int64_t c = 0; c < s.channels; ++c) {
      const int64_t first = c * s.pixels() + rows.first * s.width;
      for_each_vector<T>(count, [&](int64_t i, auto width) { body(first + i, c, width); });
    }
  }
}

// A parameter, in channels_last a repeated one, in the lanes of for_each_element's body.
template <class T, bool ChannelsLast, class Width>
inline Vector<T> parameter_at(const T* parameter, int64_t channel, Width width) {
  if constexpr (ChannelsLast) {
    return load(parameter + channel, width);
  } else {
    return broadcast(parameter[channel]);
  }
}

// Σ value(i, width) of an array, in the lanes of one vector: within pieces and of pieces, to lose
// fewer digits.
template <class T, class Value>
inline Vector<T> add_up(int64_t count, Value&& value) {
  constexpr int64_t piece = kPiece * kLanes<T>;
  Vector<T> total{};
  for (int64_t first = 0; first < count; first += piece) {
    Vector<T> sum{};
    for_each_vector<T>(std::min(piece, count - first), [&](int64_t i, auto width) {
      sum += inside<T>(value(first + i, width), width);
    });
    total += sum;
  }
  return total;
}

// totals[c] += Σ value(offset, channel, width) over the rows.
template <class T, bool ChannelsLast, class Value>
inline void add_up_channels(const Sample& s, Rows rows, double* totals, Value&& value) {
  if constexpr (ChannelsLast) {
    for_each_width<T>(s, rows, [&](int64_t offset, int64_t channels, int64_t pixels) {
      double repeated[kLanes<T> * kFewVectors * kLanes<T>];
      double* const sums = channels == s.channels ? totals : repeated;
      if (sums == repeated) std::fill_n(repeated, channels, 0);
      for_each_piece(0, pixels, [&](int64_t first, int64_t last) {
        for_each_vector<T>(channels, [&](int64_t c, auto width) {
          Vector<T> total{};
          for (int64_t pixel = first; pixel < last; ++pixel) {
            total += value(offset + pixel * channels + c, c, width);
          }
          add_to<T>(sums + c, total, width);
        });
      });
      for (int64_t c = 0; sums == repeated && c < channels; ++c) {
        totals[c % s.channels] += repeated[c];
      }
    });
  } else {
    const int64_t count = rows.count() * s.width;
    for (int64_t c = 0; c < s.channels; ++c) {
      const int64_t first = c * s.pixels() + rows.first * s.width;
      totals[c] += sum_of_lanes<T>(
          add_up<T>(count, [&](int64_t i, auto width) { return value(first + i, c, width); }));
    }
  }
}

// Calls body with the layout as a compile-time constant.
template <class Body>
inline auto with_layout(const Sample& s, Body&& body) {
  return s.channels_last ? body(std::true_type{}) : body(std::false_type{});
}

// G of the stage table: grad_out + loss_scale · (y · gate - x).
template <class D, class Width>
inline Vector<Compute<D>> output_gradient(const OutputGradient<D>& g, int64_t offset,
                                          Vector<Compute<D>> y, Vector<Compute<D>> gate,
                                          Width width) {
  using T = Compute<D>;
  Vector<T> result = g.grad_out ? load(g.grad_out + offset, width) : Vector<T>{};
  if (g.x) result += g.loss_scale * (y * gate - load(g.x + offset, width));
  return result;
}

template <class D>
void channel_sums(const D* image, const Sample& s, Rows rows, double* sums) {
  using T = Compute<D>;
  with_layout(s, [&](auto layout) {
    add_up_channels<T, layout>(s, rows, sums, [&](int64_t offset, int64_t, auto width) {
      return load(image + offset, width);
    });
  });
}

template <class D>
double scale(const D* y, const Compute<D>* gate, const D* x, const Sample& s, Rows rows, D* out) {
  using T = Compute<D>;
  const auto element = [&](int64_t offset, Vector<T> gate_at, auto width) {
    const Vector<T> value = load(y + offset, width) * gate_at;
    store(out + offset, value, width);
    const Vector<T> difference = x ? value - load(x + offset, width) : Vector<T>{};
    return difference * difference;
  };
  double total = 0;
  if (s.channels_last) {
    const Repeated<T> repeated(gate, s);
    for_each_width<T>(s, rows, [&](int64_t offset, int64_t channels, int64_t pixels) {
      for_each_piece(0, pixels, [&](int64_t first, int64_t last) {
        Vector<T> error{};
        for (int64_t pixel = first; pixel < last; ++pixel) {
          error += add_up<T>(channels, [&](int64_t c, auto width) {
            return element(offset + pixel * channels + c, load(repeated.get() + c, width), width);
          });
        }
        total += sum_of_lanes<T>(error);
      });
    });
  } else {
    const int64_t first = rows.first * s.width, last = rows.last * s.width;
    for (int64_t c = 0; c < s.channels; ++c) {
      total += sum_of_lanes<T>(add_up<T>(last - first, [&](int64_t i, auto width) {
        return element(c * s.pixels() + first + i, broadcast(gate[c]), width);
      }));
    }
  }
  return total;
}

template <class D>
void gate_gradient(const OutputGradient<D>& g, const Sample& s, Rows rows, double* grad_gate) {
  using T = Compute<D>;
  const Repeated<T> gate(g.gate, s);
  with_layout(s, [&](auto layout) {
    add_up_channels<T, layout>(s, rows, grad_gate, [&](int64_t offset, int64_t c, auto width) {
      const Vector<T> y = load(g.y + offset, width);
      return y *
             output_gradient(g, offset, y, parameter_at<T, layout>(gate.get(), c, width), width);
    });
  });
}

template <class D>
void scale_gradient(const OutputGradient<D>& g, const Compute<D>* grad_mean, const Sample& s,
                    Rows rows, D* grad_y) {
  using T = Compute<D>;
  const Repeated<T> gates(g.gate, s), means(grad_mean, s);
  with_layout(s, [&](auto layout) {
    for_each_element<T, layout>(s, rows, [&](int64_t offset, int64_t c, auto width) {
      const Vector<T> gate = parameter_at<T, layout>(gates.get(), c, width);
      store(grad_y + offset,
            output_gradient(g, offset, load(g.y + offset, width), gate, width) * gate +
                parameter_at<T, layout>(means.get(), c, width),
            width);
    });
  });
}

// The gradient of the pre-activation, in the lanes of one vector.
template <class D, class Width>
inline Vector<Compute<D>> activation_gradient_at(const OutputGradient<D>& g, bool relu,
                                                 int64_t offset, Vector<Compute<D>> gate,
                                                 Vector<Compute<D>> grad_mean, Width width) {
  using T = Compute<D>;
  const Vector<T> y = relu || g.x ? load(g.y + offset, width) : Vector<T>{};
  const Vector<T> grad = output_gradient(g, offset, y, gate, width) * gate + grad_mean;
  return relu ? where_active<T>(y, grad) : grad;
}

template <class T, bool ChannelsLast, class Width>
inline Vector<T> parameter_or(const T* parameter, int64_t channel, Width width, T otherwise) {
  return parameter ? parameter_at<T, ChannelsLast>(parameter, channel, width)
                   : broadcast(otherwise);
}

template <class D>
void activation_gradient_channels_last(const OutputGradient<D>& g, const Compute<D>* grad_mean,
                                       bool relu, const Sample& s, Rows rows,
                                       const Blocked<Compute<D>>& grad_a, double* grad_bias) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>;
  for_each_piece(rows.first * s.width, rows.last * s.width, [&](int64_t first, int64_t last) {
    for (int64_t c = 0; c < s.blocks() * kBlock; c += lanes) {
      T* block = grad_a.at(0, 0) + c / kBlock * grad_a.block_stride() + c % kBlock;
      const auto piece = [&](auto width) {
        const Vector<T> gate = parameter_or<T, true>(g.gate, c, width, 1);
        const Vector<T> mean = parameter_or<T, true>(grad_mean, c, width, 0);
        Vector<T> total{};
        for (int64_t pixel = first; pixel < last; ++pixel) {
          const Vector<T> value = inside<T>(
              activation_gradient_at(g, relu, pixel * s.channels + c, gate, mean, width), width);
          store(block + pixel * kBlock, value);
          total += value;
        }
        add_to<T>(grad_bias + c, total, width);
      };
      if (c + lanes <= s.channels) {
        piece(Full{});
      } else if (c < s.channels) {
        piece(Partial{s.channels - c});
      } else {
        for (int64_t pixel = first; pixel < last; ++pixel) {
          store(block + pixel * kBlock, Vector<T>{});
        }
      }
    }
  });
}

template <class D>
void activation_gradient_channels_first(const OutputGradient<D>& g, const Compute<D>* grad_mean,
                                        bool relu, const Sample& s, Rows rows,
                                        const Blocked<Compute<D>>& grad_a, double* grad_bias) {
  using T = Compute<D>;
  constexpr int64_t lanes = kLanes<T>;
  const int64_t first = rows.first * s.width, last = rows.last * s.width;
  for (int64_t c = 0; c < s.blocks() * kBlock; c += lanes) {
    T* block = grad_a.at(0, 0) + c / kBlock * grad_a.block_stride() + c % kBlock;
    const int64_t channels = std::clamp<int64_t>(s.channels - c, 0, lanes);
    Vector<T> total[lanes] = {};
    for_each_vector<T>(last - first, [&](int64_t i, auto width) {
      const int64_t pixel = first + i;
      Vector<T> square[lanes] = {};
      for (int64_t j = 0; j < channels; ++j) {
        square[j] = activation_gradient_at(
            g, relu, (c + j) * s.pixels() + pixel, parameter_or<T, false>(g.gate, c + j, width, 1),
            parameter_or<T, false>(grad_mean, c + j, width, 0), width);
        total[j] += inside<T>(square[j], width);
      }
      transpose<T>(square);
      store_rows<T>(square, last - pixel, block + pixel * kBlock);
    });
    for (int64_t j = 0; j < channels; ++j) grad_bias[c + j] += sum_of_lanes<T>(total[j]);
  }
}

template <class D>
void activation_gradient(const OutputGradient<D>& g, const Compute<D>* grad_mean, bool relu,
                         const Sample& s, Rows rows, const Blocked<Compute<D>>& grad_a,
                         double* grad_bias) {
  (s.channels_last
       ? activation_gradient_channels_last<D>
       : activation_gradient_channels_first<D>)(g, grad_mean, relu, s, rows, grad_a, grad_bias);
}

template <class D>
double squared_error(const D* out, const D* x, int64_t count) {
  using T = Compute<D>;
  return sum_of_lanes<T>(add_up<T>(count, [&](int64_t i, auto width) {
    const Vector<T> difference = load(out + i, width) - load(x + i, width);
    return difference * difference;
  }));
}

template <class D>
void difference(const D* out, const D* x, Compute<D> factor, int64_t count, D* result) {
  using T = Compute<D>;
  for_each_vector<T>(count, [&](int64_t i, auto width) {
    store(result + i, factor * (load(out + i, width) - load(x + i, width)), width);
  });
}

template <class D>
void to_compute(const D* source, int64_t count, Compute<D>* result) {
  for_each_vector<Compute<D>>(
      count, [&](int64_t i, auto width) { store(result + i, load(source + i, width), width); });
}

template <class D>
void from_compute(const Compute<D>* source, int64_t count, D* result) {
  for_each_vector<Compute<D>>(
      count, [&](int64_t i, auto width) { store(result + i, load(source + i, width), width); });
}
