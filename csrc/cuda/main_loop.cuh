// The one main loop of the convolutions: forward, grad_x and grad_weight differ in the operands
// that they bring (operands.cuh) and in what they do with the sums (convolution.cuh).
//
// A block owns a tile of kM × kN results and walks the summed dimension in steps of kDepthBytes. A
// ring of kStages tiles of both operands is filled by asynchronous 16-byte copies, kStages - 1
// steps ahead; a warp owns a quarter of the results in registers and reads its fragments one
// instruction's depth ahead of the instruction that uses them.
#pragma once

#include <mma.h>

#include "cuda/arithmetic.cuh"

namespace sspcab::cuda {

// The compiler would compute an address anew in every step rather than keep it in a register.
__device__ inline int kept(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// To the nearest: the tensor cores would cut the last bits off, and every sum would come out
// smaller.
template <class Registers>
__device__ void round_to_tf32(Registers&& registers) {
  auto values = cute::recast<float>(registers);
#if SSPCAB_HAS_PIPELINE
  CUTE_UNROLL
  for (int i = 0; i < cute::size(values); ++i) {
    values(i) = nvcuda::wmma::__float_to_tf32(values(i));
  }
#endif
}

// Where a thread's fragments of one operand lie in shared memory. A fragment's offset is that of
// the thread plus a constant, and the two have no bit in common, so that of the swizzle only an XOR
// with a constant is left to do.
template <class Operand, class Layout, class TiledCopy, class Atom>
class Fragments {
 public:
  __device__ explicit Fragments(const void* shared) : shared_(static_cast<const char*>(shared)) {
    thread_ = kept(Swizzle::apply(*mine().data()) * static_cast<int>(sizeof(Operand)));
  }

  // The k-th fragments of a stage, for each m (or n).
  template <class To>
  __device__ void load(int stage, int k, To&& to) const {
    using namespace cute;
    const int base = thread_ + stage * kStageBytes;
    CUTE_UNROLL
    for (int m = 0; m < size<1>(to); ++m) {
      CUTE_UNROLL
      for (int v = 0; v < size<0, 1>(to); ++v) {
        const int constant = Swizzle::apply(mine().layout()(make_coord(0, v), m, k, 0));
        const int flipped = (constant & kSwizzled) * sizeof(Operand);
        const int added = (constant & ~kSwizzled) * sizeof(Operand);
        const auto* from = reinterpret_cast<const Operand*>(shared_ + (base ^ flipped) + added);
        cute::copy(Atom{}, make_tensor(make_smem_ptr(from), cute::Layout<Int<Atom::NumValSrc>>{}),
                   to(make_coord(_, v), m, k));
      }
    }
  }

 private:
  using Swizzle = decltype(cute::get_swizzle_portion(Layout{}));
  static constexpr int kSwizzled = Swizzle::zzz_msk::value;
  static constexpr int kStageBytes =
      cute::size<0>(Layout{}) * cute::size<1>(Layout{}) * sizeof(Operand);

  // Offsets without the swizzle: (values, m, k, stage).
  static __device__ auto mine() {
    return TiledCopy{}
        .get_slice(threadIdx.x)
        .partition_S(cute::make_tensor(cute::counting_iterator<int>(0),
                                       cute::get_nonswizzle_portion(Layout{})));
  }

  const char* shared_;
  int thread_;
};

template <class Arithmetic, int config, bool a_is_deep, bool b_is_deep>
struct MainLoop {
  using Element = typename Arithmetic::Element;
  using Operand = typename Arithmetic::Operand;
  using Mma = typename Arithmetic::Mma;
  static constexpr TileShape kTile = tile_shape(Arithmetic::kArithmetic, config);
  static constexpr int kM = kTile.m, kN = kTile.n;
  static constexpr int kDepth = kDepthBytes / sizeof(Element);

  template <bool deep, int rows>
  using Layout = decltype(cute::tile_to_shape(
      std::conditional_t<deep, typename Arithmetic::Deep, typename Arithmetic::Wide>{},
      Shape<Int<rows>, Int<kDepth>, Int<kStages>>{}));
  using LayoutA = Layout<a_is_deep, kM>;
  using LayoutB = Layout<b_is_deep, kN>;

  template <bool deep>
  using Atom = cute::Copy_Atom<
      std::conditional_t<deep, typename Arithmetic::CopyDeep, typename Arithmetic::CopyWide>,
      Operand>;
  using CopyA = decltype(cute::make_tiled_copy_A(Atom<a_is_deep>{}, Mma{}));
  using CopyB = decltype(cute::make_tiled_copy_B(Atom<b_is_deep>{}, Mma{}));

  static __device__ Element* shared_a(void* shared) { return static_cast<Element*>(shared); }
  static __device__ Element* shared_b(void* shared) {
    return static_cast<Element*>(shared) + kStages * kM * kDepth;
  }

  // This thread's part of the kM × kN results.
  static __device__ auto zeros() {
    auto sums = cute::partition_fragment_C(Mma{}, Shape<Int<kM>, Int<kN>>{});
    cute::clear(sums);
    return sums;
  }
  // Its part of a tensor of that shape.
  template <class Tensor>
  static __device__ auto part_of(Tensor&& tensor) {
    return Mma{}.get_slice(threadIdx.x).partition_C(tensor);
  }

  // Σ over `steps` ≥ 1 steps. operands.copy(stage) copies those of the next step, and moves on.
  template <class Operands>
  static __device__ auto run(Operands& operands, int steps, void* shared) {
    using namespace cute;
    const Fragments<Operand, LayoutA, CopyA, Atom<a_is_deep>> from_a(shared_a(shared));
    const Fragments<Operand, LayoutB, CopyB, Atom<b_is_deep>> from_b(shared_b(shared));
    const Mma mma;
    const auto thread = mma.get_slice(threadIdx.x);
    // (MMA, m, k) and, of the same registers, (values, m, k).
    Tensor rA =
        thread.partition_fragment_A(make_tensor((Operand*)nullptr, Shape<Int<kM>, Int<kDepth>>{}));
    Tensor rB =
        thread.partition_fragment_B(make_tensor((Operand*)nullptr, Shape<Int<kN>, Int<kDepth>>{}));
    Tensor to_a = CopyA{}.get_slice(threadIdx.x).retile_D(rA);
    Tensor to_b = CopyB{}.get_slice(threadIdx.x).retile_D(rB);
    constexpr int kBlocks = size<2>(rA);

    int left = steps;  // not yet on their way into shared memory
    for (int stage = 0; stage < kStages - 1; ++stage) {
      if (left > 0) {
        operands.copy(stage);
        --left;
      }
      cp_async_fence();
    }
    auto sums = zeros();
    [[maybe_unused]] auto chain = zeros();
    int read = 0, write = kStages - 1;
    cp_async_wait<kStages - 2>();
    __syncthreads();
    from_a.load(0, 0, to_a);
    from_b.load(0, 0, to_b);
    for (int step = 0; step < steps; ++step) {
      CUTE_UNROLL
      for (int k = 0; k < kBlocks; ++k) {
        if (k == kBlocks - 1) {
          cp_async_wait<kStages - 2>();
          __syncthreads();
          read = read + 1 == kStages ? 0 : read + 1;
        }
        if (k < kBlocks - 1 || step + 1 < steps) {
          from_a.load(read, (k + 1) % kBlocks, to_a);
          from_b.load(read, (k + 1) % kBlocks, to_b);
        }
        if (k == 0) {
          if (left > 0) {
            operands.copy(write);
            --left;
          }
          cp_async_fence();
          write = write + 1 == kStages ? 0 : write + 1;
        }
        if constexpr (Arithmetic::kArithmetic == sspcab::cuda::Arithmetic::Tf32) {
          round_to_tf32(rA(_, _, k));
          round_to_tf32(rB(_, _, k));
        }
        if constexpr (Arithmetic::kChain > 0) {
          cute::gemm(mma, rA(_, _, k), rB(_, _, k), chain);
        } else {
          cute::gemm(mma, rA(_, _, k), rB(_, _, k), sums);
        }
      }
      if constexpr (Arithmetic::kChain > 0) {
        if (step % Arithmetic::kChain == Arithmetic::kChain - 1 || step + 1 == steps) {
          cute::axpby(1.f, chain, 1.f, sums);
          cute::clear(chain);
        }
      }
    }
    cp_async_wait<0>();
    __syncthreads();  // shared memory is free for what comes after
    return sums;
  }
};

}  // namespace sspcab::cuda
