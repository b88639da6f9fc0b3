// Preloaded beside ThreadSanitizer, which doesn't see how OpenMP's threads wait for each other:
// tells it that a parallel region begins after what came before it, and ends before what comes
// after it.
#include <dlfcn.h>

extern "C" {

void __tsan_acquire(void* address);
void __tsan_release(void* address);

using Body = void (*)(void*);

void GOMP_parallel(Body body, void* data, unsigned threads, unsigned flags) {
  struct Region {
    Body body;
    void* data;
  } region{body, data};
  const Body announced = [](void* pointer) {
    Region* region = static_cast<Region*>(pointer);
    __tsan_acquire(region);
    region->body(region->data);
    __tsan_release(region);
  };
  static const auto parallel = reinterpret_cast<void (*)(Body, void*, unsigned, unsigned)>(
      dlsym(RTLD_NEXT, "GOMP_parallel"));
  __tsan_release(&region);
  parallel(announced, &region, threads, flags);
  __tsan_acquire(&region);
}

}  // extern "C"
