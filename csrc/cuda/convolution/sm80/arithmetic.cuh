// What multiplies and adds in the convolutions: an instruction, the layouts of operands in shared
// memory that it reads without bank conflicts, and the tiles that suit it. A new kind of tensor
// core is a new struct here. kRows threads share each column of the results; row_of numbers them,
// and kRowLanes lie from one to the next.
//
// An instruction leaves kPair neighbouring columns in a thread. Where operands are deep, the
// columns of several instructions are interleaved, so that a thread has kTogether<true> neighbours:
// whole 16-byte pieces of an image, which need no way through shared memory.
#pragma once

#include <cute/tensor.hpp>

#include "cuda/convolution/convolution.h"
#include "cuda/element.cuh"

// Older devices have none of the instructions that the pipeline is made of: their kernels are
// empty, and is_tiled keeps from launching them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define SSPCAB_HAS_PIPELINE 0
#else
#define SSPCAB_HAS_PIPELINE 1
#endif

namespace sspcab::cuda {

using cute::_0;
using cute::_1;
using cute::_2;
using cute::_4;
using cute::_8;
using cute::Int;
using cute::Layout;
using cute::Shape;
using cute::Stride;

// The results of four warps, 2 × 2, of tensor cores.
struct WarpTiles {
  static constexpr int kPair = 2;
  static constexpr int kRows = 16, kRowLanes = 4;
  static __device__ int row_of(int thread) { return thread / 4 % 16; }

  // The columns of (pair, thread, warp, instruction).
  template <int together>
  using Interleaved = Layout<Shape<_2, _4, _2, Int<together / 2>>,
                             Stride<_1, Int<together>, Int<4 * together>, _2>>;
};

// Results as the instructions have them: a thread has two neighbours, four threads whole sectors.
struct ResultsAsTheyAre {
  template <bool deep>
  static constexpr int kTogether = 2;
};

// Operands lie in shared memory by their own rows ("deep": the summed dimension is contiguous, 64
// bytes of it a row) or across them ("wide": rows of the summed dimension, each contiguous along m
// or n). Swizzle<B, M, S> keeps 2^M elements together and spreads rows over the banks: of a deep
// operand the rows that are read together, which in B are interleaved.
template <Arithmetic arithmetic, class Element_, class Operand_, class Instruction>
struct TensorCores16 : WarpTiles {
  static constexpr Arithmetic kArithmetic = arithmetic;
  using Element = Element_;
  using Operand = Operand_;
  using DeepA = decltype(cute::composition(cute::Swizzle<2, 3, 3>{},
                                           Layout<Shape<Int<8>, Int<32>>, Stride<Int<32>, _1>>{}));
  using DeepB = decltype(cute::composition(cute::Swizzle<2, 3, 5>{},
                                           Layout<Shape<Int<32>, Int<32>>, Stride<Int<32>, _1>>{}));
  using Wide = decltype(cute::composition(cute::Swizzle<3, 3, 3>{},
                                          Layout<Shape<Int<64>, Int<8>>, Stride<_1, Int<64>>>{}));
  using CopyDeep = cute::SM75_U32x4_LDSM_N;
  using CopyWide = cute::SM75_U16x8_LDSM_T;
  static constexpr int kBesideA = 1;
  template <bool deep>
  static constexpr int kTogether = deep ? 8 : 2;
  template <bool deep>
  using Mma = cute::TiledMMA<
      cute::MMA_Atom<Instruction>, Layout<Shape<_2, _2, _1>>,
      cute::Tile<Int<32>, std::conditional_t<deep, Interleaved<8>, Int<32>>, Int<16>>>;
  static constexpr bool kInChains = false;
};
using HalfTensorCores =
    TensorCores16<Arithmetic::Half, __half, cutlass::half_t, cute::SM80_16x8x16_F32F16F16F32_TN>;
using BFloat16TensorCores = TensorCores16<Arithmetic::BFloat16, __nv_bfloat16, cutlass::bfloat16_t,
                                          cute::SM80_16x8x16_F32BF16BF16F32_TN>;

struct Tf32TensorCores : WarpTiles {
  static constexpr Arithmetic kArithmetic = Arithmetic::Tf32;
  using Element = float;
  using Operand = cutlass::tfloat32_t;
  using DeepA = decltype(cute::composition(cute::Swizzle<2, 2, 3>{},
                                           Layout<Shape<Int<8>, Int<16>>, Stride<Int<16>, _1>>{}));
  using DeepB = decltype(cute::composition(cute::Swizzle<2, 2, 4>{},
                                           Layout<Shape<Int<16>, Int<16>>, Stride<Int<16>, _1>>{}));
  // A warp reads 4 rows × 8 neighbours; of A two words each, an instruction's rows that its
  // registers have side by side.
  using Wide = decltype(cute::composition(cute::Swizzle<2, 3, 2>{},
                                          Layout<Shape<Int<32>, Int<8>>, Stride<_1, Int<32>>>{}));
  using CopyDeep = cute::SM75_U32x4_LDSM_N;
  using CopyWide = cute::UniversalCopy<Operand>;
  static constexpr int kBesideA = 2;
  using BesideM = Layout<Shape<_8, _2, _2>, Stride<_2, _1, Int<16>>>;
  template <bool deep>
  static constexpr int kTogether = deep ? 4 : 2;
  template <bool deep>
  using Mma =
      cute::TiledMMA<cute::MMA_Atom<cute::SM80_16x8x8_F32TF32TF32F32_TN>, Layout<Shape<_2, _2, _1>>,
                     cute::Tile<std::conditional_t<deep, Int<32>, BesideM>,
                                std::conditional_t<deep, Interleaved<4>, Int<16>>, Int<8>>>;
  static constexpr bool kInChains = false;
};

// Exact float32 on CUDA cores.
struct CudaCores : ResultsAsTheyAre {
  static constexpr Arithmetic kArithmetic = Arithmetic::Float;
  using Element = float;
  using Operand = float;
  using DeepA = Tf32TensorCores::DeepA;
  using DeepB = DeepA;
  using Wide = Tf32TensorCores::Wide;
  using CopyDeep = cute::UniversalCopy<float>;
  using CopyWide = cute::UniversalCopy<float>;
  static constexpr int kBesideA = 1;
  template <bool deep>
  using Mma = cute::TiledMMA<cute::MMA_Atom<cute::UniversalFMA<float, float, float, float>>,
                             Layout<Shape<Int<8>, Int<16>, _1>>,
                             cute::Tile<Int<8>, Layout<Shape<Int<16>, _2>, Stride<_2, _1>>, _1>>;
  // Products are added up in chains, each once around the ring of stages, and the chains' sums
  // apart: the error of one long chain would be several times that of PyTorch's convolution.
  static constexpr bool kInChains = true;
  static constexpr int kPair = 1;
  static constexpr int kRows = 8, kRowLanes = 1;
  static __device__ int row_of(int thread) { return thread % 8; }
};

struct DoubleTensorCores : WarpTiles, ResultsAsTheyAre {
  static constexpr Arithmetic kArithmetic = Arithmetic::Double;
  using Element = double;
  using Operand = double;
  using DeepA = decltype(cute::composition(cute::Swizzle<1, 2, 2>{},
                                           Layout<Shape<Int<8>, Int<8>>, Stride<Int<8>, _1>>{}));
  using DeepB = DeepA;
  using Wide = decltype(cute::composition(cute::Swizzle<2, 2, 2>{},
                                          Layout<Shape<Int<16>, Int<8>>, Stride<_1, Int<16>>>{}));
  using CopyDeep = cute::UniversalCopy<double>;
  using CopyWide = cute::UniversalCopy<double>;
  static constexpr int kBesideA = 1;
  template <bool deep>
  using Mma =
      cute::TiledMMA<cute::MMA_Atom<cute::SM80_8x8x4_F64F64F64F64_TN>, Layout<Shape<_2, _2, _1>>>;
  static constexpr bool kInChains = false;
};

template <Arithmetic arithmetic>
struct CoresOf;
template <>
struct CoresOf<Arithmetic::Half> {
  using Type = HalfTensorCores;
};
template <>
struct CoresOf<Arithmetic::BFloat16> {
  using Type = BFloat16TensorCores;
};
template <>
struct CoresOf<Arithmetic::Tf32> {
  using Type = Tf32TensorCores;
};
template <>
struct CoresOf<Arithmetic::Float> {
  using Type = CudaCores;
};
template <>
struct CoresOf<Arithmetic::Double> {
  using Type = DoubleTensorCores;
};

}  // namespace sspcab::cuda
