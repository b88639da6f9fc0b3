// The operators on the CPU.
#include "cpu/operators.h"

#include "operators/operators.h"

STABLE_TORCH_LIBRARY_IMPL(sspcab, CPU, m) { sspcab::register_operators<sspcab::cpu::Cpu>(m); }
