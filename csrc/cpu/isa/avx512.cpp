// The kernels for x86-64 processors with AVX-512.
#include "cpu/isa/begin.h"

#if defined(__x86_64__)
#include <immintrin.h>

SSPCAB_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
namespace sspcab::cpu::avx512 {

constexpr int64_t kVectorBytes = 64;
constexpr int kMaxRun = 12;  // 24 sums, 2 weights and 1 input of 32 registers
constexpr int kInputs = 8;
constexpr int64_t kPartBytes = 256 << 10;  // of a panel, beside inputs in 1 MB
constexpr const char* kName = "avx512";

constexpr __mmask16 kAllLanes = 0xffff;  // GCC 12 warns about the unmasked conversions
typedef float Floats __attribute__((vector_size(64)));
inline Floats half_to_float(const Half* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return (Floats)_mm512_maskz_cvtph_ps(kAllLanes, bits);
}
inline void float_to_half(Floats v, Half* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(kAllLanes, (__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
#define SSPCAB_HALF_CONVERSION

// `count` elements of an array into the first lanes of a vector, the others 0, and back.
template <class D>
inline void load_part(const D* p, int64_t count, D* lanes) {
  if constexpr (sizeof(D) == 2) {
    const auto mask = static_cast<__mmask16>((1u << count) - 1);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), _mm256_maskz_loadu_epi16(mask, p));
  } else if constexpr (sizeof(D) == 4) {
    const auto mask = static_cast<__mmask16>((1u << count) - 1);
    _mm512_storeu_ps(lanes, _mm512_maskz_loadu_ps(mask, p));
  } else {
    const auto mask = static_cast<__mmask8>((1u << count) - 1);
    _mm512_storeu_pd(lanes, _mm512_maskz_loadu_pd(mask, p));
  }
}
template <class D>
inline void store_part(const D* lanes, int64_t count, D* p) {
  if constexpr (sizeof(D) == 2) {
    const auto mask = static_cast<__mmask16>((1u << count) - 1);
    _mm256_mask_storeu_epi16(p, mask, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes)));
  } else if constexpr (sizeof(D) == 4) {
    const auto mask = static_cast<__mmask16>((1u << count) - 1);
    _mm512_mask_storeu_ps(p, mask, _mm512_loadu_ps(lanes));
  } else {
    const auto mask = static_cast<__mmask8>((1u << count) - 1);
    _mm512_mask_storeu_pd(p, mask, _mm512_loadu_pd(lanes));
  }
}
#define SSPCAB_PARTS

#include "cpu/isa/all.h"

}  // namespace sspcab::cpu::avx512
SSPCAB_TARGET_END
#endif
