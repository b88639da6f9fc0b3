// The one main loop of the convolutions on Hopper.
//
// A block has one thread that loads and two warpgroups that multiply. They share a ring of stages,
// each of kM rows of A and kN rows of B, 128 bytes of the summed dimension deep: a load is a box of
// the tensor memory accelerator, which moves pixels by their tap, fills in zeros outside the image
// and swizzles; a stage has a barrier that says it is full and one that says it is empty. Each
// warpgroup multiplies its 64 rows of A with all of B, one step's products in flight while those of
// the step before are waited for. The grid is persistent: while the warpgroups bring one tile's
// sums away, the next tile's stages are filled.
#pragma once

#include <cutlass/arch/barrier.h>

#include <cute/tensor.hpp>

#include "cuda/convolution/convolution.h"
#include "cuda/convolution/sm90/tensor_map.h"
#include "cuda/convolution/taps.cuh"

// Other code has none of the instructions, and the plan keeps from launching it.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SSPCAB_HAS_WGMMA 1
#else
#define SSPCAB_HAS_WGMMA 0
#endif

namespace sspcab::cuda {

using cute::_;
using cute::_0;
using cute::_1;
using cute::_2;
using cute::_3;
using cute::Int;
using cute::Layout;
using cute::Shape;

constexpr int kWarpgroup = 128;                     // threads
constexpr int kRows = kHopperM / kHopperConsumers;  // of a warpgroup's results
constexpr int kPixelBox = 64;                       // pixels of a box across the pixels

template <Arithmetic arithmetic>
struct Wgmma;
template <>
struct Wgmma<Arithmetic::Half> {
  using Element = __half;
  using Operand = cutlass::half_t;
};
template <>
struct Wgmma<Arithmetic::BFloat16> {
  using Element = __nv_bfloat16;
  using Operand = cutlass::bfloat16_t;
};
template <>
struct Wgmma<Arithmetic::Tf32> {
  using Element = float;
  using Operand = cutlass::tfloat32_t;
};

// Where a thread is in the ring: the stage, and how often it has gone round.
template <int stages>
struct RingPlace {
  int stage = 0;
  unsigned round = 0;
  __device__ void move_on() {
    const bool is_last = ++stage == stages;
    stage = is_last ? 0 : stage;
    round += is_last;
  }
};

// A block's shared memory.
template <int n>
struct HopperShared {
  static constexpr int kBytesA = kHopperM * kHopperDepthBytes, kBytesB = n * kHopperDepthBytes;
  static constexpr int kStages = kHopperRingBytes / (kBytesA + kBytesB);

  alignas(1024) unsigned char a[kStages][kBytesA];
  alignas(1024) unsigned char b[kStages][kBytesB];
  alignas(1024) float results[kHopperConsumers][kRows * kHopperStripe];
  float start[kHopperConsumers][n];
  cutlass::arch::ClusterTransactionBarrier full[kStages], received[kHopperConsumers];
  cutlass::arch::ClusterBarrier empty[kStages], may_send[kHopperConsumers];
};

template <Arithmetic arithmetic, int config, Product product>
struct HopperLoop {
  using Element = typename Wgmma<arithmetic>::Element;
  using Operand = typename Wgmma<arithmetic>::Operand;
  static constexpr TileShape kTile = kHopperTiles[config];
  static constexpr int kM = kTile.m, kN = kTile.n;
  static constexpr int kDepth = kHopperDepthBytes / sizeof(Element);
  using Shared = HopperShared<kN>;
  static constexpr int kStages = Shared::kStages;
  static constexpr bool kDeep = product != Product::WeightGradient;

  static constexpr auto kMajor = kDeep ? cute::GMMA::Major::K : cute::GMMA::Major::MN;
  using Mma = decltype(cute::make_tiled_mma(
      cute::GMMA::ss_op_selector<Operand, Operand, float, Shape<Int<kM>, Int<kN>, Int<kDepth>>,
                                 kMajor, kMajor>(),
      Layout<Shape<Int<kHopperConsumers>, _1, _1>>{}));
  // Boxes lie one after the other, each with all of a step's depth.
  using Atom = std::conditional_t<kDeep, cute::GMMA::Layout_K_SW128_Atom<Operand>,
                                  cute::GMMA::Layout_MN_SW128_Atom<Operand>>;
  using Order = std::conditional_t<kDeep, cute::Step<_1, _2, _3>, cute::Step<_2, _1, _3>>;
  template <int rows>
  using Stages =
      decltype(cute::tile_to_shape(Atom{}, Shape<Int<rows>, Int<kDepth>, Int<kStages>>{}, Order{}));

  static_assert(sizeof(Shared) <= kHopperSharedBytes);

  static __device__ void set_up(Shared& shared) {
    if (threadIdx.x == 0) {
      for (int i = 0; i < kStages; ++i) {
        shared.full[i].init(1);
        shared.empty[i].init(kHopperConsumers);
      }
      for (int i = 0; i < kHopperConsumers; ++i) {
        shared.received[i].init(1);
        shared.may_send[i].init(1);
      }
      cutlass::arch::fence_barrier_init();
    }
    cute::cluster_sync();
  }

  // A thread's sums: two neighbours of every eight columns, in the rows `row` and `row` + 8.
  static __device__ auto sums() {
    return cute::partition_fragment_C(Mma{}, Shape<Int<kM>, Int<kN>>{});
  }

  // sums += the products of `steps` ≥ 1 steps, for a thread of the consumers.
  template <class Sums>
  static __device__ void multiply(Shared& shared, RingPlace<kStages>& place, int64_t steps,
                                  Sums& sums) {
    using namespace cute;
    Mma mma;
    const auto thread = mma.get_slice(threadIdx.x - kWarpgroup);
    const auto a = thread.make_fragment_A(thread.partition_A(
        make_tensor(make_smem_ptr(reinterpret_cast<Operand*>(shared.a)), Stages<kM>{})));
    const auto b = thread.make_fragment_B(thread.partition_B(
        make_tensor(make_smem_ptr(reinterpret_cast<Operand*>(shared.b)), Stages<kN>{})));
    mma.accumulate_ = GMMA::ScaleOut::One;
    const auto release = [&](int stage) {
      if (threadIdx.x % kWarpgroup == 0) shared.empty[stage].arrive();
    };
    int before = 0;
    warpgroup_fence_operand(sums);
    for (int64_t step = 0; step < steps; ++step) {
      shared.full[place.stage].wait(place.round & 1);
      warpgroup_arrive();
      CUTE_UNROLL
      for (int k = 0; k < size<2>(a); ++k) {
        cute::gemm(mma, a(_, _, k, place.stage), b(_, _, k, place.stage), sums);
      }
      warpgroup_commit_batch();
      warpgroup_wait<1>();
      if (step > 0) release(before);
      before = place.stage;
      place.move_on();
    }
    warpgroup_wait<0>();
    warpgroup_fence_operand(sums);
    release(before);
  }

  // Fills the next stage by load(stage, barrier), for the thread that loads.
  template <class Load>
  static __device__ void fill(Shared& shared, RingPlace<kStages>& place, const Load& load) {
    shared.empty[place.stage].wait(~place.round & 1);
    auto& full = shared.full[place.stage];
    full.arrive_and_expect_tx(Shared::kBytesA + Shared::kBytesB);
    load(shared.a[place.stage], shared.b[place.stage], reinterpret_cast<uint64_t*>(&full));
    place.move_on();
  }
};

}  // namespace sspcab::cuda
