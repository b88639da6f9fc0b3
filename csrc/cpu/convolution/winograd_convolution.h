// The masked convolution by Winograd's minimal filtering (winograd.h): nine filters, tiles of 2 × 2
// outputs. The gradients of the sub-kernels are computed directly.
#pragma once

#include "cpu/convolution/banded_convolution.h"

namespace sspcab::cpu {

template <class D>
class WinogradConvolution final : public BandedConvolution<D> {
 public:
  using typename Convolution<D>::T;

  explicit WinogradConvolution(const Plan& plan)
      : BandedConvolution<D>(plan), winograd_(plan.sample(), plan.sub_kernels()) {}

 private:
  int64_t filters() const override { return kComponents; }
  void prepare_panel(const Weights<T>& weights, bool mirrored, int64_t tile, T* packed,
                     T* panel) const override {
    const SubKernels& sub_kernels = this->plan_.sub_kernels();
    this->k_.pack_panel(weights, sub_kernels, this->channels(), mirrored, tile, packed);
    this->k_.transform_panel(packed, sub_kernels, this->channels(), mirrored, tile, panel);
  }
  int64_t scratch() const override { return winograd_.scratch(this->k_.tile, sizeof(T)); }

  const Winograd winograd_;
};

}  // namespace sspcab::cpu
