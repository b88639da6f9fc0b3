// The panels that are kept, the most recently used ones first.
#include "cpu/panel_cache.h"

#include <cstring>
#include <list>
#include <mutex>

namespace sspcab::cpu {
namespace {

constexpr int64_t kKeptBytes = 64 << 20;
constexpr uint64_t kFactor = 0x9e3779b97f4a7c15;

struct Kept {
  PanelKey key;
  std::shared_ptr<const void> panels;
  int64_t bytes;
};

std::mutex mutex;
std::list<Kept> kept;
int64_t kept_bytes = 0;

uint64_t mix(uint64_t state, uint64_t word) {
  state = (state ^ word) * kFactor;
  return state ^ (state >> 32);  // else high bits, the signs, would touch no others
}

}  // namespace

uint64_t digest(const void* memory, int64_t bytes, uint64_t seed) {
  constexpr int64_t words = 8;  // that don't wait for each other
  const char* from = static_cast<const char*>(memory);
  uint64_t states[words];
  for (int64_t i = 0; i < words; ++i) states[i] = mix(seed, i);
  for (; bytes > 0; bytes -= sizeof(states), from += sizeof(states)) {
    uint64_t line[words] = {};
    memcpy(line, from, bytes < static_cast<int64_t>(sizeof(line)) ? bytes : sizeof(line));
    for (int64_t i = 0; i < words; ++i) states[i] = mix(states[i], line[i]);
  }
  for (uint64_t state : states) seed = mix(seed, state);
  return seed;
}

std::shared_ptr<const void> find_panels(const PanelKey& key) {
  const std::lock_guard<std::mutex> lock(mutex);
  for (auto it = kept.begin(); it != kept.end(); ++it) {
    if (!(it->key == key)) continue;
    kept.splice(kept.begin(), kept, it);
    return kept.front().panels;
  }
  return nullptr;
}

void keep_panels(const PanelKey& key, std::shared_ptr<const void> panels, int64_t bytes) {
  if (bytes > kKeptBytes) return;
  const std::lock_guard<std::mutex> lock(mutex);
  kept.push_front({key, std::move(panels), bytes});
  kept_bytes += bytes;
  while (kept_bytes > kKeptBytes) {
    kept_bytes -= kept.back().bytes;
    kept.pop_back();
  }
}

int64_t kept_panel_bytes() {
  const std::lock_guard<std::mutex> lock(mutex);
  return kept_bytes;
}

}  // namespace sspcab::cpu
