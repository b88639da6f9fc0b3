// The one main loop of the convolutions: forward, grad_x and grad_weight differ in the operands
// that they bring (operands.cuh) and in what they do with the sums (convolution.cuh).
//
// A block owns a tile of kM × kN results and walks the summed dimension in steps of kDepthBytes. A
// ring of kStages tiles of both operands is filled by asynchronous 16-byte copies, kStages - 1
// steps ahead; a warp owns a quarter of the results in registers and reads its fragments one
// instruction's depth ahead of the instruction that uses them.
#pragma once

#include "cuda/arithmetic.cuh"

namespace sspcab::cuda {

// The compiler would compute an address anew in every step rather than keep it in a register.
template <class T>
__device__ T kept(T value) {
  if constexpr (sizeof(T) == 8) {
    asm("" : "+l"(value));
  } else {
    asm("" : "+r"(value));
  }
  return value;
}

// To the nearest: the tensor cores would cut the last bits off, and every sum would come out
// smaller. nvcuda::wmma's function wants floats, for which the compiler moves each value twice.
template <class Registers>
__device__ void round_to_tf32(Registers&& registers) {
  auto bits = cute::recast<unsigned>(registers);
#if SSPCAB_HAS_PIPELINE
  CUTE_UNROLL
  for (int i = 0; i < cute::size(bits); ++i) {
    asm("cvt.rna.tf32.f32 %0, %0;" : "+r"(bits(i)));
  }
#endif
}

// Four 8 × 8 matrices of 16-bit elements (or 8 × 4 of 32-bit ones) from shared memory, a row of
// them at `from` + constant of each lane. CuTe's takes no constant, and so needs a register for
// each.
template <class Operation, int constant, class To>
__device__ void load_matrices(unsigned from, To&& fragment) {
  auto to = cute::recast<unsigned>(fragment);
  constexpr bool transposed = std::is_same_v<Operation, cute::SM75_U16x8_LDSM_T>;
  if constexpr (transposed) {
    asm volatile("ldmatrix.sync.aligned.x4.trans.m8n8.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=r"(to(0)), "=r"(to(1)), "=r"(to(2)), "=r"(to(3))
                 : "r"(from), "n"(constant));
  } else {
    asm volatile("ldmatrix.sync.aligned.x4.m8n8.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=r"(to(0)), "=r"(to(1)), "=r"(to(2)), "=r"(to(3))
                 : "r"(from), "n"(constant));
  }
}

// Where a thread's fragments of one operand lie in a stage. A fragment's offset is that of the
// thread plus a constant, and the two have no bit in common, so that of the swizzle only an XOR
// with a constant is left to do, once for each constant. Those of `beside` instructions lie side by
// side, where single elements are loaded.
template <class Operand, class Layout, class TiledCopy, class Operation, int beside>
class Fragments {
 public:
  __device__ explicit Fragments(const void* shared) : shared_(static_cast<const char*>(shared)) {
    const int thread = Swizzle::apply(*mine().data()) * static_cast<int>(sizeof(Operand));
    for (int i = 0; i < kFlips; ++i) thread_[i] = kept(thread ^ (i * kFlip));
  }

  // The k-th fragments, for each m (or n), of the stage that begins `stage` bytes on.
  template <class To, int k>
  __device__ void load(int stage, cute::C<k>, To& to) const {
    using namespace cute;
    constexpr int copies = decltype(size<0, 1>(to))::value / beside;
    for_each(make_int_sequence<decltype(size<1>(to))::value>{}, [&](auto m) {
      for_each(make_int_sequence<copies>{}, [&](auto v) {
        constexpr int constant =
            Swizzle::apply(decltype(mine().layout()){}(make_coord(_0{}, v), m, Int<k>{}));
        constexpr int flip = (constant & kSwizzled) * sizeof(Operand) / kFlip;
        constexpr int added = (constant & ~kSwizzled) * sizeof(Operand);
        const int from = thread_[flip] + stage;
        if constexpr (std::is_same_v<Operation, UniversalCopy<Operand>>) {
          const auto loaded =
              sspcab::cuda::load<beside>(reinterpret_cast<const Operand*>(shared_ + from + added));
          for (int i = 0; i < beside; ++i) {
            to(make_coord(_0{}, v + i * copies), m, Int<k>{}) = loaded[i];
          }
        } else {
          load_matrices<Operation, added>(cast_smem_ptr_to_uint(shared_) + from,
                                          to(make_coord(_, v), m, Int<k>{}));
        }
      });
    });
  }

 private:
  using Swizzle = decltype(cute::get_swizzle_portion(Layout{}));
  static constexpr int kSwizzled = Swizzle::zzz_msk::value;
  static constexpr int kFlips = 1 << Swizzle::num_bits;
  static constexpr int kFlip = (1 << Swizzle::num_base) * sizeof(Operand);

  // Offsets without the swizzle: (values, m, k).
  static __device__ auto mine() {
    return TiledCopy{}
        .get_slice(threadIdx.x)
        .partition_S(cute::make_tensor(cute::counting_iterator<int>(0),
                                       cute::get_nonswizzle_portion(Layout{})));
  }

  const char* shared_;
  int thread_[kFlips];
};

// What is multiplied. Operands of a gradient of filters are wide, all others deep.
enum class Product { Forward, InputGradient, WeightGradient };

template <class Arithmetic, int config, Product product>
struct MainLoop {
  using Cores = Arithmetic;
  using Element = typename Arithmetic::Element;
  using Operand = typename Arithmetic::Operand;
  static constexpr bool kDeep = product != Product::WeightGradient;
  using Mma = typename Arithmetic::template Mma<kDeep>;
  static constexpr TileShape kTile = tile_shape(Arithmetic::kArithmetic, config);
  static constexpr int kM = kTile.m, kN = kTile.n;
  static constexpr int kDepth = kDepthBytes / sizeof(Element);
  // A thread has kGroups times kTogether neighbours of a row's columns.
  static constexpr int kTogether = Arithmetic::template kTogether<kDeep>;
  static constexpr int kGroups = kN * Arithmetic::kRows / kThreads / kTogether;
  using Neighbours = typename Arithmetic::template Neighbours<kDeep>;

  template <class Deep, int rows>
  using Layout =
      decltype(cute::tile_to_shape(std::conditional_t<kDeep, Deep, typename Arithmetic::Wide>{},
                                   Shape<Int<rows>, Int<kDepth>>{}));
  using LayoutA = Layout<typename Arithmetic::DeepA, kM>;
  using LayoutB = Layout<typename Arithmetic::DeepB, kN>;

  using Operation =
      std::conditional_t<kDeep, typename Arithmetic::CopyDeep, typename Arithmetic::CopyWide>;
  using Atom = cute::Copy_Atom<Operation, Operand>;
  using CopyA = decltype(cute::make_tiled_copy_A(Atom{}, Mma{}));
  using CopyB = decltype(cute::make_tiled_copy_B(Atom{}, Mma{}));

  // A stage of the ring has kM rows of A, then kN rows of B.
  static constexpr int kStageBytes = (kM + kN) * kDepthBytes;
  static __device__ Element* shared_a(void* shared) { return static_cast<Element*>(shared); }
  static __device__ Element* shared_b(void* shared) {
    return static_cast<Element*>(shared) + kM * kDepth;
  }

  // This thread's part of a tensor of kM × kN.
  template <class Tensor>
  static __device__ auto part_of(Tensor&& tensor) {
    return Mma{}.get_slice(threadIdx.x).partition_C(tensor);
  }
  // Registers for it.
  static __device__ auto zeros() {
    auto sums = cute::partition_fragment_C(Mma{}, Shape<Int<kM>, Int<kN>>{});
    cute::clear(sums);
    return sums;
  }

  // start + Σ over `steps` ≥ 1 steps. operands.copy(stage) copies those of the next step into the
  // stage that begins `stage` bytes on, and moves on; beyond the last step it copies zeros: each
  // stage is written at least once, since the last step reads ahead.
  template <class Operands, class Start>
  static __device__ auto run(Operands& operands, int steps, void* shared, const Start& start) {
    using namespace cute;
    constexpr int beside = kDeep ? 1 : Arithmetic::kBeside;
    const Fragments<Operand, LayoutA, CopyA, Operation, beside> from_a(shared_a(shared));
    const Fragments<Operand, LayoutB, CopyB, Operation, beside> from_b(shared_b(shared));
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

    for (int stage = 0; stage < kStages - 1; ++stage) {
      operands.copy(stage * kStageBytes);
      cp_async_fence();
    }
    const int copying = steps < kStages ? 1 : steps - (kStages - 1);  // steps that copy
    int step = 0, read = 0, write = (kStages - 1) * kStageBytes;
    cp_async_wait<kStages - 2>();
    __syncthreads();
    from_a.load(read, _0{}, to_a);
    from_b.load(read, _0{}, to_b);

    // to = from + what the k-th fragments add.
    const auto multiply = [&](auto k, const auto& from, auto& to) {
      if constexpr (k == kBlocks - 1) {
        cp_async_wait<kStages - 2>();
        __syncthreads();
        write = read;
        read = read == (kStages - 1) * kStageBytes ? 0 : read + kStageBytes;
      }
      from_a.load(read, Int<(k + 1) % kBlocks>{}, to_a);
      from_b.load(read, Int<(k + 1) % kBlocks>{}, to_b);
      if constexpr (k == 0) {
        if (step < copying) operands.copy(write);
        cp_async_fence();
      }
      if constexpr (Arithmetic::kArithmetic == sspcab::cuda::Arithmetic::Tf32) {
        // grad_a and the filters of the gradient of x have been rounded when they were written.
        if constexpr (product == Product::Forward) round_to_tf32(rA(_, _, k));
        if constexpr (product != Product::InputGradient) round_to_tf32(rB(_, _, k));
      }
      cute::gemm(mma, to, rA(_, _, k), rB(_, _, k), from);
    };
    const auto multiply_others = [&](auto& sums) {
      for_each(make_int_sequence<kBlocks - 1>{},
               [&](auto k) { multiply(Int<k + 1>{}, sums, sums); });
    };
    auto sums = make_fragment_like(zeros());
    if constexpr (Arithmetic::kChain == 0) {
      // The first products are added to the start: the sums need not be set to it.
      multiply(_0{}, start, sums);
      for (;;) {
        multiply_others(sums);
        if (++step == steps) break;
        multiply(_0{}, sums, sums);
      }
    } else {
      cute::copy(start, sums);
      auto chain = zeros();
      for (; step < steps; ++step) {
        multiply(_0{}, chain, chain);
        multiply_others(chain);
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
