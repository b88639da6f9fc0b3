// Element types and the arithmetic that they are computed in.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/dependent_launch.cuh"
#include "cuda/stages.h"

namespace sspcab::cuda {

// W of an element type.
template <class D>
struct WideOf {
  using Type = float;
};
template <>
struct WideOf<double> {
  using Type = double;
};
template <class D>
using Wide = typename WideOf<D>::Type;

// By name: PyTorch's build switches the conversion operators of half types off.
template <class D>
__device__ Wide<D> widen(D value) {
  if constexpr (std::is_same_v<D, __half>) {
    return __half2float(value);
  } else if constexpr (std::is_same_v<D, __nv_bfloat16>) {
    return __bfloat162float(value);
  } else {
    return value;
  }
}
template <class D>
__device__ D narrow(Wide<D> value) {
  if constexpr (std::is_same_v<D, __half>) {
    return __float2half_rn(value);
  } else if constexpr (std::is_same_v<D, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else {
    return value;
  }
}

// The bits of a float become those of the nearest value that tensor cores take as TF32: they'd cut
// the last bits off. From 9.0 on ties go to the even one, as in tensor copies; before, away from
// zero, for which alone there is an instruction.
__device__ inline void round_to_tf32(unsigned& bits) {
#if __CUDA_ARCH__ >= 900
  asm("cvt.rn.tf32.f32 %0, %0;" : "+r"(bits));
#elif __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %0;" : "+r"(bits));
#endif
}

__device__ inline float nearest_tf32(float value) {
  round_to_tf32(reinterpret_cast<unsigned&>(value));
  return value;
}

// Keeps a NaN, as PyTorch's ReLU does; fmax(a, 0) would lose it.
template <class W>
__device__ W relu(W a) {
  return a <= 0 ? W(0) : a;
}

// The widest copy that one thread makes.
constexpr int kVectorBytes = 16;
template <class D>
constexpr int kVector = kVectorBytes / sizeof(D);

// N neighbouring elements, moved as one where N · sizeof(D) is a power of two up to 16.
template <class D, int N>
struct alignas(N * sizeof(D)) Vector {
  D data[N];
  __device__ D& operator[](int i) { return data[i]; }
  __device__ const D& operator[](int i) const { return data[i]; }
};

template <int N, class D>
__device__ Vector<D, N> load(const D* from) {
  return *reinterpret_cast<const Vector<D, N>*>(from);
}
template <class D, int N>
__device__ void store(D* to, const Vector<D, N>& value) {
  *reinterpret_cast<Vector<D, N>*>(to) = value;
}

// Stores that the compiler can't take apart, as it does with the assignment of a Vector, not always
// putting the pieces together again. `constant` elements on, which takes no register.
template <int constant = 0, class D, int N>
__device__ void store_global(D* to, const Vector<D, N>& value) {
  constexpr int offset = constant * static_cast<int>(sizeof(D)), bytes = sizeof(value);
  if constexpr (bytes == 16 && std::is_same_v<D, float>) {
    asm volatile("st.global.v4.f32 [%0 + %5], {%1, %2, %3, %4};" ::"l"(to), "f"(value[0]),
                 "f"(value[1]), "f"(value[2]), "f"(value[3]), "n"(offset)
                 : "memory");
  } else if constexpr (bytes == 16) {
    uint4 raw;
    memcpy(&raw, &value, bytes);
    asm volatile("st.global.v4.b32 [%0 + %5], {%1, %2, %3, %4};" ::"l"(to), "r"(raw.x), "r"(raw.y),
                 "r"(raw.z), "r"(raw.w), "n"(offset)
                 : "memory");
  } else if constexpr (bytes == 8 && std::is_same_v<D, float>) {
    asm volatile("st.global.v2.f32 [%0 + %3], {%1, %2};" ::"l"(to), "f"(value[0]), "f"(value[1]),
                 "n"(offset)
                 : "memory");
  } else if constexpr (bytes == 8) {
    uint64_t raw;
    memcpy(&raw, &value, bytes);
    asm volatile("st.global.b64 [%0 + %2], %1;" ::"l"(to), "l"(raw), "n"(offset) : "memory");
  } else if constexpr (bytes == 4) {
    unsigned raw;
    memcpy(&raw, &value, bytes);
    asm volatile("st.global.b32 [%0 + %2], %1;" ::"l"(to), "r"(raw), "n"(offset) : "memory");
  } else {
    static_assert(bytes == 2);
    unsigned short raw;
    memcpy(&raw, &value, bytes);
    asm volatile("st.global.b16 [%0 + %2], %1;" ::"l"(to), "h"(raw), "n"(offset) : "memory");
  }
}
template <int constant, class W, int N>
__device__ void store_shared(W* to, const Vector<W, N>& value) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  constexpr int offset = constant * static_cast<int>(sizeof(W));
  if constexpr (sizeof(W) == 8) {
    asm volatile("st.shared.v2.f64 [%0 + %3], {%1, %2};" ::"r"(address), "d"(value[0]),
                 "d"(value[1]), "n"(offset)
                 : "memory");
  } else if constexpr (N == 2) {
    asm volatile("st.shared.v2.f32 [%0 + %3], {%1, %2};" ::"r"(address), "f"(value[0]),
                 "f"(value[1]), "n"(offset)
                 : "memory");
  } else {
    asm volatile("st.shared.v4.f32 [%0 + %5], {%1, %2, %3, %4};" ::"r"(address), "f"(value[0]),
                 "f"(value[1]), "f"(value[2]), "f"(value[3]), "n"(offset)
                 : "memory");
  }
}

template <class D, int N>
__device__ Vector<D, N> narrowed(const Vector<Wide<D>, N>& wide) {
  Vector<D, N> all;
  for (int i = 0; i < N; i += 2) {  // two halves take one instruction
    if constexpr (N > 1 && std::is_same_v<D, __half>) {
      const __half2 pair = __floats2half2_rn(wide[i], wide[i + 1]);
      all[i] = pair.x, all[i + 1] = pair.y;
    } else if constexpr (N > 1 && std::is_same_v<D, __nv_bfloat16>) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(wide[i], wide[i + 1]);
      all[i] = pair.x, all[i + 1] = pair.y;
    } else {
      for (int j = i; j < i + 2 && j < N; ++j) all[j] = narrow<D>(wide[j]);
    }
  }
  return all;
}

template <class D, int N>
__device__ Vector<Wide<D>, N> widened(const Vector<D, N>& narrow) {
  Vector<Wide<D>, N> all;
  if constexpr (N > 1 && std::is_same_v<D, __nv_bfloat16>) {
    for (int i = 0; i < N; i += 2) {  // upper halves of floats; taken as such, no moves are left
      unsigned pair;
      memcpy(&pair, &narrow[i], sizeof(pair));
      asm("shl.b32 %0, %1, 16;" : "=f"(all[i]) : "r"(pair));
      asm("and.b32 %0, %1, 0xffff0000;" : "=f"(all[i + 1]) : "r"(pair));
    }
  } else {
    for (int i = 0; i < N; ++i) all[i] = widen(narrow[i]);
  }
  return all;
}

// More neighbours than one copy moves.
template <int N, class D>
__device__ Vector<D, N> load_wide(const D* from) {
  constexpr int part = N < kVector<D> ? N : kVector<D>;
  Vector<D, N> all;
  for (int i = 0; i < N; i += part) {
    const Vector<D, part> loaded = load<part>(from + i);
    for (int j = 0; j < part; ++j) all[i + j] = loaded[j];
  }
  return all;
}
template <class D, int N>
__device__ void store_wide(D* to, const Vector<D, N>& all) {
  constexpr int part = N < kVector<D> ? N : kVector<D>;
  for (int i = 0; i < N; i += part) {
    Vector<D, part> stored;
    for (int j = 0; j < part; ++j) stored[j] = all[i + j];
    store_global(to + i, stored);
  }
}
template <int N, class D>
__device__ Vector<D, N> repeated(D value) {
  Vector<D, N> all;
  for (int i = 0; i < N; ++i) all[i] = value;
  return all;
}

// body(D{}) with D the element type.
template <class Body>
void with_type(Dtype dtype, Body&& body) {
  switch (dtype) {
    case Dtype::Half: return body(__half{});
    case Dtype::BFloat16: return body(__nv_bfloat16{});
    case Dtype::Float: return body(float{});
    case Dtype::Double: return body(double{});
  }
}

// body(D{}, P{}) for the pairs of image and parameter types that exist.
template <class Body>
void with_types(Dtype dtype, Dtype parameter_dtype, Body&& body) {
  with_type(dtype, [&](auto d) {
    if (parameter_dtype == dtype) {
      body(d, d);
    } else if constexpr (sizeof(d) == 2) {
      body(d, float{});
    }
  });
}

}  // namespace sspcab::cuda
