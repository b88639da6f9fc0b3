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

#include "cpu/isa/all.h"

}  // namespace sspcab::cpu::avx2
SSPCAB_TARGET_END
#endif
