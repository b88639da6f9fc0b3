// The functions of this instruction set, as tables for each element type.
#pragma once

template <class D>
const Kernels<D>& table() {
  using T = Compute<D>;
  static const Kernels<D> instance = {
      kName,
      2 * kLanes<T>,
      (kChunk + kLanes<T>)*2 * kLanes<T>,
      pack<D>,
      pack_panel<T>,
      transform_panel<T>,
      convolve<D>,
      convolve_input_gradient<D>,
      weight_gradient<D>,
      unpack_weight_gradient<T>,
      gather_rows<T>,
      gather_columns<T>,
      multiply<T>,
      multiply_dense<T>,
      channel_sums<D>,
      scale<D>,
      gate_gradient<D>,
      scale_gradient<D>,
      activation_gradient<D>,
      squared_error<D>,
      difference<D>,
      dense<T>,
      dense_transposed<T>,
      add_scaled<T>,
      to_compute<D>,
      from_compute<D>,
  };
  return instance;
}

template const Kernels<float>& table<float>();
template const Kernels<double>& table<double>();
template const Kernels<Half>& table<Half>();
template const Kernels<BFloat16>& table<BFloat16>();
