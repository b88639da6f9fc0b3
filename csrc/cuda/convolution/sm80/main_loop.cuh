// The one main loop of the convolutions: forward, grad_x and grad_weight differ in the operands
// that they bring (operands.cuh) and in what they do with the sums (kernels.cuh).
//
// A block owns a tile of kM × kN results and walks the summed dimension in steps of kDepthBytes. A
// ring of kStages tiles of both operands is filled by asynchronous 16-byte copies, kStages - 1
// steps ahead; a warp owns a quarter of the results in registers and reads its fragments one
// instruction's depth ahead of the instruction that uses them. The loop goes once around the ring,
// so that where a stage lies is a constant; not in exact float32, where it would be too long.
#pragma once

#include "cuda/convolution/sm80/arithmetic.cuh"
#include "cuda/convolution/taps.cuh"

namespace sspcab::cuda {

// Stages of the ring are numbers, or constants where the loop is unrolled.
template <class Stage>
__device__ constexpr auto after(Stage stage) {
  return (stage + _1{}) % Int<kStages>{};
}
template <class Stage>
__device__ constexpr auto before(Stage stage) {
  return (stage + Int<kStages - 1>{}) % Int<kStages>{};
}
// body(stage) for one stage after the other, round and round, as long as it's true.
template <class Body>
__device__ __forceinline__ void go_round(const Body& body) {
  static_assert(kStages == 4);
  for (;;) {
    if (!body(_0{})) return;
    if (!body(_1{})) return;
    if (!body(_2{})) return;
    if (!body(Int<3>{})) return;
  }
}

// `bytes` times a stage, as a constant where it is one, and the rest.
template <class Stage, int bytes, bool constant = cute::is_static<Stage>::value>
struct StageOffset {
  static constexpr int kConstant = 0;
  static __device__ int rest(int stage) { return stage * bytes; }
};
template <class Stage, int bytes>
struct StageOffset<Stage, bytes, true> {
  static constexpr int kConstant = Stage::value * bytes;
  static __device__ int rest(int) { return 0; }
};

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

// As bits: as floats the compiler would move each value twice.
template <class Registers>
__device__ void round_all_to_tf32(Registers&& registers) {
  auto bits = cute::recast<unsigned>(registers);
  CUTE_UNROLL
  for (int i = 0; i < cute::size(bits); ++i) round_to_tf32(bits(i));
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

// The same for `count` elements beside one another.
template <int count, int constant, class Operand>
__device__ Vector<Operand, count> load_shared(unsigned from) {
  Vector<Operand, count> loaded;
  if constexpr (sizeof(loaded) == 4) {
    unsigned word;
    asm volatile("ld.shared.b32 %0, [%1 + %2];" : "=r"(word) : "r"(from), "n"(constant));
    memcpy(&loaded, &word, sizeof(loaded));
  } else if constexpr (sizeof(Operand) == 4) {
    uint2 words;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2 + %3];"
                 : "=r"(words.x), "=r"(words.y)
                 : "r"(from), "n"(constant));
    memcpy(&loaded, &words, sizeof(loaded));
  } else {
    uint64_t word;
    asm volatile("ld.shared.b64 %0, [%1 + %2];" : "=l"(word) : "r"(from), "n"(constant));
    memcpy(&loaded, &word, sizeof(loaded));
  }
  return loaded;
}

// Where a thread's fragments of one operand lie in a stage. A fragment's offset is that of the
// thread plus a constant, and the two have no bit in common, so that of the swizzle only an XOR
// with a constant is left to do, once for each constant. `beside` elements lie side by side, where
// single elements are loaded.
template <class Operand, class Layout, class TiledCopy, class Operation, int beside,
          int stage_bytes>
class Fragments {
 public:
  __device__ explicit Fragments(const void* shared) {
    const int thread = Swizzle::apply(*mine().data()) * static_cast<int>(sizeof(Operand));
    for (int i = 0; i < kFlips; ++i) {
      from_[i] = kept(cute::cast_smem_ptr_to_uint(shared) + (thread ^ (i * kFlip)));
    }
  }

  // The k-th fragments, for each m (or n), of a stage.
  template <class Stage, class To, int k>
  __device__ void load(Stage stage, cute::C<k>, To& to) const {
    using namespace cute;
    using Offset = StageOffset<Stage, stage_bytes>;
    for_each(make_int_sequence<decltype(size<1>(to))::value>{}, [&](auto m) {
      constexpr int copies = decltype(size<0, 1>(to))::value / beside;
      for_each(make_int_sequence<copies>{}, [&](auto copy) {
        constexpr int v = copy * beside;
        constexpr int constant =
            Swizzle::apply(decltype(mine().layout()){}(make_coord(_0{}, Int<v>{}), m, Int<k>{}));
        constexpr int flip = (constant & kSwizzled) * sizeof(Operand) / kFlip;
        constexpr int added = (constant & ~kSwizzled) * sizeof(Operand) + Offset::kConstant;
        const unsigned from = from_[flip] + Offset::rest(stage);
        if constexpr (std::is_same_v<Operation, UniversalCopy<Operand>>) {
          const auto loaded = load_shared<beside, added, Operand>(from);
          for (int i = 0; i < beside; ++i) to(make_coord(_0{}, v + i), m, Int<k>{}) = loaded[i];
        } else {
          load_matrices<Operation, added>(from, to(make_coord(_, Int<v>{}), m, Int<k>{}));
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

  unsigned from_[kFlips];
};

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

  // start + Σ over `steps` ≥ 1 steps. operands.copy<kStageBytes>(stage) copies those of the next
  // step into that stage, and moves on.
  template <class Operands, class Start>
  static __device__ auto run(Operands& operands, int steps, void* shared, const Start& start) {
    using namespace cute;
    constexpr int beside_a = kDeep ? 1 : Arithmetic::kBesideA;
    const Fragments<Operand, LayoutA, CopyA, Operation, beside_a, kStageBytes> from_a(
        shared_a(shared));
    const Fragments<Operand, LayoutB, CopyB, Operation, 1, kStageBytes> from_b(shared_b(shared));
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

    int left = steps;
    // If there is a step that is so far ahead.
    const auto fill = [&](auto stage, int ahead) {
      if (left > ahead) operands.template copy<kStageBytes>(stage);
      cp_async_fence();
    };
    const auto wait = [] {
      cp_async_wait<kStages - 2>();
      __syncthreads();
    };
    const auto read = [&](auto stage, auto k) {
      from_a.load(stage, k, to_a);
      from_b.load(stage, k, to_b);
    };
    // to = from + what the k-th fragments add.
    const auto multiply = [&](auto k, const auto& from, auto& to) {
      if constexpr (Arithmetic::kArithmetic == sspcab::cuda::Arithmetic::Tf32) {
        // grad_a and the filters of the gradient of x have been rounded when they were written.
        if constexpr (product == Product::Forward) round_all_to_tf32(rA(_, _, k));
        if constexpr (product != Product::InputGradient) round_all_to_tf32(rB(_, _, k));
      }
      cute::gemm(mma, to, rA(_, _, k), rB(_, _, k), from);
    };
    // The first products of a stage.
    const auto begin = [&](auto stage, const auto& from, auto& to) {
      read(stage, _1{});
      fill(before(stage), kStages - 1);
      multiply(_0{}, from, to);
    };
    // All others but the last; the last too, if another step comes, and what that begins with.
    constexpr Int<kBlocks - 1> last{};
    const auto go_on = [&](auto stage, auto& sums) {
      for_each(make_int_sequence<kBlocks - 2>{}, [&](auto i) {
        read(stage, i + _2{});
        multiply(i + _1{}, sums, sums);
      });
      if (--left == 0) return false;
      wait();
      read(after(stage), _0{});
      multiply(last, sums, sums);
      return true;
    };

    for_each(make_int_sequence<kStages - 1>{}, [&](auto stage) { fill(stage, stage); });
    wait();
    read(_0{}, _0{});
    auto sums = make_fragment_like(zeros());
    if constexpr (!Arithmetic::kInChains) {
      // The first products are added to the start: the sums need not be set to it.
      begin(_0{}, start, sums);
      go_round([&](auto stage) {
        if (!go_on(stage, sums)) return false;
        begin(after(stage), sums, sums);
        return true;
      });
      multiply(last, sums, sums);
    } else {
      cute::copy(start, sums);
      auto chain = zeros();
      bool more = true;
      for (int stage = 0; more; stage = after(stage)) {
        begin(stage, chain, chain);
        more = go_on(stage, chain);
        if (!more) multiply(last, chain, chain);
        if (stage == kStages - 1 || !more) {
          cute::axpby(1.f, chain, 1.f, sums);
          cute::clear(chain);
        }
      }
    }
    __syncthreads();  // shared memory is free for what comes after
    return sums;
  }
};

}  // namespace sspcab::cuda
