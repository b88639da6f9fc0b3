// Chooses the instruction set at run time, so that one binary runs on every processor.
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <string>

#include "cpu/isa/kernels.h"

namespace sspcab::cpu {

namespace baseline {
template <class D>
const Kernels<D>& table();
}
#if defined(__x86_64__)
namespace avx2 {
template <class D>
const Kernels<D>& table();
}
namespace avx512 {
template <class D>
const Kernels<D>& table();
}
#endif

namespace {

enum class Capability { baseline, avx2, avx512 };

#if defined(__x86_64__)
// __builtin_cpu_supports("f16c"), which clang 14 doesn't know.
bool supports_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

// SSPCAB_CPU_CAPABILITY=avx2 or baseline asks for less than the processor has.
Capability detect() {
#if defined(__x86_64__)
  const char* variable = std::getenv("SSPCAB_CPU_CAPABILITY");
  const std::string wanted = variable ? variable : "avx512";
  if (wanted == "baseline" || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !supports_f16c()) {
    return Capability::baseline;
  }
  if (wanted == "avx2" || !__builtin_cpu_supports("avx512f") ||
      !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512vl")) {
    return Capability::avx2;
  }
  return Capability::avx512;
#else
  return Capability::baseline;
#endif
}

}  // namespace

template <class D>
const Kernels<D>& kernels() {
  static const Capability capability = detect();
  switch (capability) {
#if defined(__x86_64__)
    case Capability::avx512: return avx512::table<D>();
    case Capability::avx2: return avx2::table<D>();
#endif
    default: return baseline::table<D>();
  }
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();
template const Kernels<Half>& kernels<Half>();
template const Kernels<BFloat16>& kernels<BFloat16>();

const char* capability() { return kernels<float>().name; }

}  // namespace sspcab::cpu
