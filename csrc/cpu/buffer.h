// Working memory of one call.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace sspcab::cpu {

// Uninitialised, aligned to a cache line.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t count)
      : memory_(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{64}))) {}

  T* get() const { return memory_.get(); }
  T& operator[](int64_t i) const { return memory_.get()[i]; }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> memory_;
};

template <class T>
Buffer<T> zeros(int64_t count) {
  Buffer<T> buffer(count);
  memset(buffer.get(), 0, count * sizeof(T));
  return buffer;
}

}  // namespace sspcab::cpu
