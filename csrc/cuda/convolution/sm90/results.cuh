// A warpgroup's results: the sums over what another block of the cluster has of them, the sums over
// each channel, and the way to global memory in either layout. They pass through shared memory in
// stripes of kHopperStripe channels.
#pragma once

#include "cuda/convolution/results.cuh"
#include "cuda/convolution/sm90/main_loop.cuh"

namespace sspcab::cuda {

// One stripe, kRows × kHopperStripe. A row has the first halves of its eight groups of eight
// neighbours, then their second halves; groups are permuted by the row. So neither the writes (four
// rows of one group), nor the reads (all groups of a row; a column of rows eight apart) meet in a
// bank.
class Stripe {
 public:
  __device__ explicit Stripe(float* data) : data_(data) {}

  // Of `sums`, the stripe-th; it is complete after a barrier of the warpgroup.
  template <class Sums>
  __device__ void fill(const Sums& sums, int stripe) const {
    const int lane = threadIdx.x % 32, row = threadIdx.x % kWarpgroup / 32 * 16 + lane / 4;
    CUTE_UNROLL
    for (int group = 0; group < kHopperStripe / 8; ++group) {
      CUTE_UNROLL
      for (int below = 0; below < 2; ++below) {
        const int i = stripe * kHopperStripe / 2 + group * 4 + below * 2;
        float* to = at(row + 8 * below, group, lane / 2 % 2) + lane % 2 * 2;
        store_shared<0>(to, Vector<float, 2>{{sums(i), sums(i + 1)}});
      }
    }
  }
  // Neighbouring channels.
  template <int count>
  __device__ Vector<float, count> channels(int row, int channel) const {
    Vector<float, count> piece;
    for (int i = 0; i < count; i += 4) {
      const auto half = load<4>(at(row, channel / 8, channel / 4 % 2 + i / 4));
      for (int j = 0; j < 4; ++j) piece[i + j] = half[j];
    }
    return piece;
  }
  __device__ float one(int row, int channel) const {
    return at(row, channel / 8, channel / 4 % 2)[channel % 4];
  }

 private:
  __device__ float* at(int row, int group, int half) const {
    const int permuted = (4 * group) ^ (4 * half) ^ (4 * (row / 8)) ^ (8 * (row % 4));
    return data_ + row * kHopperStripe + half * (kHopperStripe / 2) + permuted;
  }

  float* data_;
};

template <class Loop>
class WarpgroupResults {
 public:
  using Shared = typename Loop::Shared;

  __device__ explicit WarpgroupResults(Shared& shared)
      : shared_(shared), number_(threadIdx.x / kWarpgroup - 1) {}

  __device__ int number() const { return number_; }
  __device__ int first_row() const { return number_ * kRows; }  // of a tile
  __device__ void barrier() const { cutlass::arch::NamedBarrier::sync(kWarpgroup, number_ + 1); }

  // Two blocks have sums of one tile: each sends the other half of its columns to the other block
  // and leaves the totals of its own half at the front.
  template <class Sums>
  __device__ void exchange(Sums& sums, unsigned rank) {
    constexpr int half = Loop::kN / 4, of_stripe = kHopperStripe / 2;  // sums of a thread
    CUTE_UNROLL
    for (int first = 0; first < half; first += of_stripe) {
      barrier();  // everybody has read what was in shared memory
      if (threadIdx.x % kWarpgroup == 0) {
        shared_.received[number_].arrive_and_expect_tx(sizeof(shared_.results[0]));
        arrive_at(shared_.may_send[number_], rank ^ 1);
      }
      wait_for_other(shared_.may_send[number_]);
      float* place = shared_.results[number_] + threadIdx.x % kWarpgroup * 2;
      CUTE_UNROLL
      for (int i = first; i < first + of_stripe; i += 2) {
        send(place + (i - first) * kWarpgroup, rank ^ 1, rank ? sums(i) : sums(half + i),
             rank ? sums(i + 1) : sums(half + i + 1));
      }
      wait_for_other(shared_.received[number_]);
      CUTE_UNROLL
      for (int i = first; i < first + of_stripe; i += 2) {
        const auto others = load<2>(place + (i - first) * kWarpgroup);
        sums(i) = (rank ? sums(half + i) : sums(i)) + others[0];
        sums(i + 1) = (rank ? sums(half + i + 1) : sums(i + 1)) + others[1];
      }
      ++exchanges_;
    }
  }

  // body(stripe, channel): of all stripes of the columns, from that channel of the image on.
  template <class Sums, class Body>
  __device__ void for_each_stripe(const Sums& sums, int columns, int first_channel, int channels,
                                  const Body& body) const {
    CUTE_UNROLL
    for (int i = 0; i < Loop::kN / kHopperStripe; ++i) {
      const int channel = first_channel + i * kHopperStripe;
      if (i * kHopperStripe >= columns || channel >= channels) return;
      const Stripe stripe(shared_.results[number_]);
      barrier();
      stripe.fill(sums, i);
      barrier();
      body(stripe, channel);
    }
  }

 private:
  // What the other block of the cluster has a part in is ordered within the cluster; CUTLASS's
  // arrivals and waits order what one block does.
  __device__ void arrive_at(const cutlass::arch::ClusterBarrier& barrier, unsigned rank) const {
#if SSPCAB_HAS_WGMMA
    const unsigned there = cute::set_block_rank(cute::cast_smem_ptr_to_uint(&barrier), rank);
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(there)
                 : "memory");
#endif
  }
  __device__ void wait_for_other(const cutlass::arch::ClusterBarrier& barrier) const {
#if SSPCAB_HAS_WGMMA
    unsigned is_complete = 0;
    while (!is_complete) {
      asm volatile(
          "{\n"
          ".reg .pred complete;\n"
          "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 complete, [%1], %2;\n"
          "selp.u32 %0, 1, 0, complete;\n"
          "}"
          : "=r"(is_complete)
          : "r"(cute::cast_smem_ptr_to_uint(&barrier)), "r"(exchanges_ & 1)
          : "memory");
    }
#endif
  }
  __device__ void send(const float* to, unsigned rank, float first, float second) const {
#if SSPCAB_HAS_WGMMA
    const unsigned there = cute::set_block_rank(cute::cast_smem_ptr_to_uint(to), rank);
    const unsigned barrier =
        cute::set_block_rank(cute::cast_smem_ptr_to_uint(&shared_.received[number_]), rank);
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(
            there),
        "f"(first), "f"(second), "r"(barrier)
        : "memory");
#endif
  }

  Shared& shared_;
  const int number_;
  unsigned exchanges_ = 0;
};

// body(place, piece) for every piece of a stripe inside the image, in the image's layout:
// neighbours in memory where they lie together, otherwise single elements.
template <class T, class Body>
__device__ void for_each_piece(const Stripe& stripe, const Image& image, const TileOrigin& origin,
                               int first_channel, const Body& body) {
  constexpr int count = kVector<T>;
  const int thread = threadIdx.x % kWarpgroup, channels = static_cast<int>(image.channels);
  if (image.channels_last) {
    constexpr int across = kHopperStripe / count;
    const int piece = thread % across;
    // Of float, first halves of groups come before second ones, as they lie.
    const int column = count == 8 ? piece * 8 : piece % 8 * 8 + piece / 8 * 4;
    const int channel = first_channel + column;
    if (channel >= channels) return;
    CUTE_UNROLL
    for (int pixel = thread / across; pixel < kRows; pixel += kWarpgroup / across) {
      if (pixel >= origin.pixels) return;
      const int64_t offset = (origin.pixel + pixel) * channels + channel;
      body(PiecePlace<0>{offset, pixel, channel, 0, false}, stripe.channels<count>(pixel, column));
    }
    return;
  }
  constexpr int along = kRows / count;
  const bool together = image.pixels() % count == 0;
  const int pixel = thread % along * count;
  for (int column = thread / along; column < kHopperStripe; column += kWarpgroup / along) {
    const int channel = first_channel + column;
    if (channel >= channels) return;
    const auto place = [&](int i) {
      const int64_t offset =
          (origin.sample_of(i) * (channels - 1) + channel) * image.pixels() + origin.pixel + i;
      return PiecePlace<0>{offset, i, channel, 0, false};
    };
    Vector<float, count> piece;
    for (int i = 0; i < count; ++i) piece[i] = stripe.one(pixel + i, column);
    if (together && pixel < origin.pixels) {
      body(place(pixel), piece);
    } else {
      for (int i = 0; i < count && pixel + i < origin.pixels; ++i) {
        body(place(pixel + i), Vector<float, 1>{{piece[i]}});
      }
    }
  }
}

// Leaves the sums over the pixels of each sample in its slots; a thread has a channel.
inline __device__ void sum_channels(const Stripe& stripe, const TileOrigin& origin,
                                    int first_channel, int channels, float* sums) {
  const int thread = threadIdx.x % kWarpgroup;
  if (thread >= kHopperStripe) return;
  const int column = thread % 32 / 4 * 8 + thread / 32 * 4 + thread % 4;  // of different banks
  const int channel = first_channel + column;
  if (channel >= channels) return;
  int64_t slot = SumSlots{kRows, origin.pixels_of_sample}.slot(origin.pixel);
  for (int first = 0; first < origin.pixels; ++slot) {
    const int last = min(origin.end_of(origin.sample_of(first)), origin.pixels);
    float sum = 0;
    for (int pixel = first; pixel < last; ++pixel) sum += stripe.one(pixel, column);
    sums[slot * channels + channel] = sum;
    first = last;
  }
}

}  // namespace sspcab::cuda
