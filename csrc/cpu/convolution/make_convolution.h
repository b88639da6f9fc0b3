// The convolution of a call, as it was planned.
#pragma once

#include "cpu/convolution/direct_convolution.h"
#include "cpu/convolution/window_convolution.h"
#include "cpu/convolution/winograd_convolution.h"

namespace sspcab::cpu {

template <class D>
std::unique_ptr<Convolution<D>> make_convolution(const Sample& sample, SubKernels sub_kernels,
                                                 int64_t samples, int64_t config) {
  using T = Compute<D>;
  const Plan plan({sample, sub_kernels, samples, sizeof(T), !std::is_same_v<D, T>, config},
                  {Workers::available(), kernels<D>().tile / 2});
  switch (plan.way) {
    case Way::winograd: return std::make_unique<WinogradConvolution<D>>(plan);
    case Way::windows: return std::make_unique<WindowConvolution<D>>(plan);
    default: return std::make_unique<DirectConvolution<D>>(plan);
  }
}

}  // namespace sspcab::cpu
