// Panels of sub-kernels that are used again and again, as in inference.
//
// Nothing tells for sure that a parameter has not changed (writes through Tensor.data leave its
// version as it is), so what is kept goes by the values themselves: reading them takes a small part
// of the time of packing them. The memory is that of the whole process.
#pragma once

#include <cstdint>
#include <memory>

namespace sspcab::cpu {

struct PanelKey {
  uint64_t digest;  // of the four sub-kernels
  int64_t way, channels, taps, channel_stride, element_bytes;

  bool operator==(const PanelKey&) const = default;
};

// Changes with every bit, but for one chance in 2⁶⁴.
uint64_t digest(const void* memory, int64_t bytes, uint64_t seed);

// Null if they are not kept.
std::shared_ptr<const void> find_panels(const PanelKey& key);
// Lets go of those that were not used for the longest time.
void keep_panels(const PanelKey& key, std::shared_ptr<const void> panels, int64_t bytes);
int64_t kept_panel_bytes();

}  // namespace sspcab::cpu
