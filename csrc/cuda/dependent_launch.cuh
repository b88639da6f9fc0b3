// Launches that follow each other closely: from compute capability 9.0 on, a launch may begin
// before the one before it has ended (see launch).
#pragma once

namespace sspcab::cuda {

// The first statement of every kernel: waits until all earlier launches have ended and what they
// wrote can be seen. Nothing may be read or written before, as scratch memory is used again and
// again. A kernel that didn't wait could end before an earlier one, and then the next would not
// wait for that one either. From here on the next launch may begin, which waits in the same place
// for this one's end.
__device__ __forceinline__ void wait_for_earlier_launches() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace sspcab::cuda
