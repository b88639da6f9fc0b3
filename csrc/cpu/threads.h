// How many threads some work is worth.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sspcab::cpu {

// `work` in elementary operations; starting a thread pays from about 10 µs of them.
inline int64_t threads_for(double work, int64_t available) {
  constexpr double per_thread = 250e3;
  return std::clamp<int64_t>(static_cast<int64_t>(work / per_thread), 1, available);
}

}  // namespace sspcab::cpu
