// The kernels for x86-64 processors with AVX2, FMA and F16C.
#include "cpu/isa/begin.h"

#if defined(__x86_64__)
#include <immintrin.h>

SSPCAB_TARGET_BEGIN("avx2,fma,f16c")
namespace sspcab::cpu::avx2 {

constexpr int64_t kVectorBytes = 32;
constexpr int kMaxRun = 6;  // 12 sums, 2 weights and 1 input of 16 registers
constexpr int kInputs = 4;
constexpr int64_t kPartBytes = 128 << 10;  // of a panel, beside inputs in 512 KB
constexpr const char* kName = "avx2";

typedef float Floats __attribute__((vector_size(32)));
inline Floats half_to_float(const Half* p) {
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void float_to_half(Floats v, Half* p) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
#define SSPCAB_HALF_CONVERSION

// `count` elements of an array into the first lanes of a vector, the others 0, and back. Masked
// stores are slow on some processors.
alignas(32) constexpr int32_t kMasks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
template <class D>
inline void load_part(const D* p, int64_t count, D* lanes) {
  if constexpr (sizeof(D) == 2) {
    D copy[8] = {};
    for (int64_t i = 0; i < count; ++i) copy[i] = p[i];
    memcpy(static_cast<void*>(lanes), copy, sizeof(copy));
  } else {
    const int64_t words = count * (sizeof(D) / 4);
    const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks + 8 - words));
    _mm256_storeu_ps(reinterpret_cast<float*>(lanes),
                     _mm256_maskload_ps(reinterpret_cast<const float*>(p), mask));
  }
}
template <class D>
inline void store_part(const D* lanes, int64_t count, D* p) {
  const char* from = reinterpret_cast<const char*>(lanes);
  char* to = reinterpret_cast<char*>(p);
  const int64_t bytes = count * sizeof(D);
  int64_t done = 0;
  if (bytes & 16) memcpy(to, from, 16), done = 16;
  if (bytes & 8) memcpy(to + done, from + done, 8), done += 8;
  if (bytes & 4) memcpy(to + done, from + done, 4), done += 4;
  if (bytes & 2) memcpy(to + done, from + done, 2);
}
#define SSPCAB_PARTS

#include "cpu/isa/all.h"

}  // namespace sspcab::cpu::avx2
SSPCAB_TARGET_END
#endif
