// The kernels for every other processor: SSE2 on x86-64, NEON on aarch64.
#include "cpu/isa/begin.h"

namespace sspcab::cpu::baseline {

constexpr int64_t kVectorBytes = 16;
#if defined(__aarch64__)
constexpr int kMaxRun = 10;  // 20 sums, 2 weights and inputs of 32 registers; 12 would spill
constexpr int kInputs = 8;
#else
constexpr int kMaxRun = 6;  // 12 sums, 2 weights and 1 input of 16 registers
constexpr int kInputs = 4;
#endif
constexpr int64_t kPartBytes = 256 << 10;  // of a panel, beside inputs in 1 MB
constexpr const char* kName = "baseline";

#include "cpu/isa/all.h"

}  // namespace sspcab::cpu::baseline
