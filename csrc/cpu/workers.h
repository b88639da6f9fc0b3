// Threads: items of unequal length are handed out one by one, so a slow core holds nobody up.
// Which worker computes an item never changes its result.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "cpu/threads.h"

namespace sspcab::cpu {

class Workers {
 public:
  // `work` in elementary operations.
  explicit Workers(double work) : count_(threads_for(work, available())) {}
  static Workers exactly(int64_t count) {
    Workers workers(0.0);
    workers.count_ = count;
    return workers;
  }

  static int64_t available() { return torch::stable::get_num_threads(); }
  int64_t count() const { return count_; }

  // body(item, worker) for every item, with worker < count().
  template <class Body>
  void run(int64_t items, const Body& body) const {
    const int64_t workers = std::min(count_, items);
    if (workers <= 1) {
      for (int64_t item = 0; item < items; ++item) body(item, 0);
      return;
    }
    std::atomic<int64_t> next{0};
    torch::stable::parallel_for(0, workers, 1, [&](int64_t first, int64_t last) {
      for (int64_t worker = first; worker < last; ++worker) {
        for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) {
          body(item, worker);
        }
      }
    });
  }

 private:
  int64_t count_;
};

}  // namespace sspcab::cpu
