// The operators on the CPU.
#include "cpu/host/operators.h"

#include "cpu/isa/kernels.h"
#include "operators/operators.h"

namespace sspcab::cpu {

void Cpu::check_config(int64_t config) {
  check(config >= kAutomatic && config <= static_cast<int64_t>(Way::windows),
        "config must be -1 (automatic), 0 (direct), 1 (Winograd) or 2 (windows); got ", config);
}

}  // namespace sspcab::cpu

STABLE_TORCH_LIBRARY_IMPL(sspcab, CPU, m) { sspcab::register_operators<sspcab::cpu::Cpu>(m); }
