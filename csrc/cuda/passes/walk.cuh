// A thread's way through the part of an image that its block has, and sums over a block's threads.
#pragma once

#include "cuda/element.cuh"
#include "cuda/passes/partition.h"

namespace sspcab::cuda {

constexpr int kInFlight = 4;  // copies that a thread starts before it waits for them

// The widest copy that every row of the image is a multiple of, or 1.
template <class D>
int vector_of(const Image& image) {
  const int64_t row = image.channels_last ? image.channels : image.pixels();
  return row % kVector<D> == 0 ? kVector<D> : 1;
}

// body(D{}, vector, channels_last), the last two as std::integral_constant.
template <class Body>
void with_layout(Dtype dtype, const Image& image, Body&& body) {
  with_type(dtype, [&](auto d) {
    using D = decltype(d);
    const auto with_vector = [&](auto vector) {
      if (image.channels_last) {
        body(d, vector, std::true_type{});
      } else {
        body(d, vector, std::false_type{});
      }
    };
    if (vector_of<D>(image) > 1) {
      with_vector(std::integral_constant<int, kVector<D>>{});
    } else {
      with_vector(std::integral_constant<int, 1>{});
    }
  });
}

template <int V, bool ChannelsLast>
struct Walk {
  int64_t n, part, channel;  // the first of the thread's channels
  int64_t first, stride;     // offsets in the image
  int64_t steps;
  int64_t channels;  // of the image
  int lanes;

  __device__ explicit Walk(const Partition& p) : channels(p.image.channels), lanes(p.lanes) {
    const int lane = threadIdx.x % lanes, row = threadIdx.x / lanes;
    const int64_t sample_part = blockIdx.x / p.channel_blocks;
    const int64_t channel_block = blockIdx.x - sample_part * p.channel_blocks;
    n = sample_part / p.parts;
    part = sample_part - n * p.parts;
    const int64_t pixels = p.image.pixels(), begin = part * p.tile;
    const int64_t count = (begin + p.tile < pixels ? begin + p.tile : pixels) - begin;
    if constexpr (ChannelsLast) {
      channel = (channel_block * lanes + lane) * V;
      first = (n * pixels + begin + row) * channels + channel;
      stride = p.rows * channels;
      steps = row < p.rows ? (count - row + p.rows - 1) / p.rows : 0;
    } else {
      channel = channel_block * p.rows + row;
      first = (n * channels + channel) * pixels + begin + lane * V;
      stride = lanes * V;
      steps = divide_up(count - lane * V, stride);
    }
    if (channel >= channels) steps = 0;
  }

  __device__ int64_t offset(int64_t step) const { return first + step * stride; }

  // What (N, C) values hold for the elements of one copy. For all threads of a block.
  template <class W>
  __device__ Vector<W, V> of_channels(const W* values, W otherwise) const {
    if (values == nullptr) return repeated<V>(otherwise);
    values += n * channels;
    if constexpr (!ChannelsLast) {
      return repeated<V>(channel < channels ? values[channel] : otherwise);
    } else if constexpr (V * sizeof(W) <= kVectorBytes) {
      return channel < channels ? load<V>(values + channel) : repeated<V>(otherwise);
    } else {
      // Two copies by each thread would move every sector twice, for every row. In shared memory
      // the parts lie half the banks from each other.
      constexpr int part = kVector<W>, parts = V / part;
      static_assert(parts == 2 && kWalkLanes * V <= kWalkThreads);
      __shared__ alignas(kVectorBytes) W shared[parts][kWalkLanes * part + 16];
      const int thread = threadIdx.x, lane = thread % lanes;
      const int64_t other = channel - lane * V + thread;
      __syncthreads();  // they may still be read from the last time
      if (thread < lanes * V && other < channels) {
        shared[thread / part % parts][thread / V * part + thread % part] = values[other];
      }
      __syncthreads();
      if (channel >= channels) return repeated<V>(otherwise);
      Vector<W, V> all;
      for (int i = 0; i < V; ++i) all[i] = shared[i / part][lane * part + i % part];
      return all;
    }
  }
};

// Adds up the rows of a block's threads in a tree; row 0 has the result. A row hands its sums over
// once, so each has a place of its own and one barrier a level is enough.
template <int V, int Threads, class W>
__device__ void add_rows(Vector<W, V>& sum, W (&handed)[V][Threads], int lanes, int rows) {
  const int row = threadIdx.x / lanes;
  int half = 1;
  while (2 * half < rows) half *= 2;
  for (; half > 0 && rows > 1; half /= 2) {
    if (row >= half && row < 2 * half && row < rows) {
      for (int i = 0; i < V; ++i) handed[i][threadIdx.x] = sum[i];
    }
    __syncthreads();
    if (row < half && row + half < rows) {
      for (int i = 0; i < V; ++i) sum[i] += handed[i][threadIdx.x + half * lanes];
    }
  }
}

// Over `lanes` neighbouring threads of a warp, a power of two; all of them have the result.
template <class W>
__device__ W add_lanes(W sum, int lanes) {
#pragma unroll
  for (int other = 16; other > 0; other /= 2) {
    if (other >= lanes) continue;
    sum += __shfl_xor_sync(0xffffffff, sum, other);
  }
  return sum;
}

// Of what a thread has summed for its channels: `result`, (C,), gets the block's sums.
template <bool ChannelsLast, int V, class W>
__device__ void store_channel_sums(const Walk<V, ChannelsLast>& walk, const Partition& p,
                                   Vector<W, V> sum, W* result) {
  if constexpr (ChannelsLast) {
    __shared__ W handed[V][kWalkThreads];
    add_rows(sum, handed, p.lanes, p.rows);
    if (threadIdx.x < p.lanes && walk.channel < walk.channels) {
      store_wide(result + walk.channel, sum);
    }
  } else {
    W total = 0;
    for (int i = 0; i < V; ++i) total += sum[i];
    total = add_lanes(total, p.lanes);
    if (threadIdx.x % p.lanes == 0 && walk.channel < walk.channels) result[walk.channel] = total;
  }
}

}  // namespace sspcab::cuda
