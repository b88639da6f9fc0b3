// Working memory of one call.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace sspcab::cpu {

// Fresh memory costs a page fault for every page, which for 4 KiB pages can take longer than to
// compute what goes into it. Asks for 2 MiB pages in large memory that has not been touched yet.
inline void prefer_huge_pages(void* memory, size_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t page = 2 << 20;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(memory) + page - 1) / page * page;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(memory) + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

// Uninitialised, aligned to a cache line.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t count) {
    constexpr size_t line = 64;
    const size_t bytes = (count * sizeof(T) / line + 1) * line;
    memory_.reset(static_cast<T*>(std::aligned_alloc(line, bytes)));
    if (!memory_) throw std::bad_alloc();
    prefer_huge_pages(memory_.get(), bytes);
  }

  T* get() const { return memory_.get(); }
  T& operator[](int64_t i) const { return memory_.get()[i]; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> memory_;
};

template <class T>
Buffer<T> zeros(int64_t count) {
  Buffer<T> buffer(count);
  memset(static_cast<void*>(buffer.get()), 0, count * sizeof(T));
  return buffer;
}

}  // namespace sspcab::cpu
