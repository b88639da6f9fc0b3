// The ways of computing the masked convolution and its gradients.
#pragma once

#include <cstdint>

namespace sspcab::cpu {

// The values of the operators' argument `config`.
enum class Way { direct, winograd, windows };
constexpr int64_t kAutomatic = -1;  // or a Way

}  // namespace sspcab::cpu
