// The masked convolution directly: four filters, all taps of a pixel.
#pragma once

#include "cpu/convolution/banded_convolution.h"

namespace sspcab::cpu {

template <class D>
class DirectConvolution final : public BandedConvolution<D> {
 public:
  using typename Convolution<D>::T;
  using BandedConvolution<D>::BandedConvolution;

 private:
  int64_t filters() const override { return 4; }
  void prepare_panel(const Weights<T>& weights, bool mirrored, int64_t tile, T*,
                     T* panel) const override {
    this->k_.pack_panel(weights, this->plan_.sub_kernels(), this->channels(), mirrored, tile,
                        panel);
  }
  int64_t scratch() const override { return this->k_.scratch; }
};

}  // namespace sspcab::cpu
