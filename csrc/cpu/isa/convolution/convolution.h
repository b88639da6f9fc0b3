// The masked convolution and the gradient of its input: which way a share goes, and what finishes
// its sums.
#pragma once

template <class D, class Finish>
void convolve_rows(const Share<D>& share, const Compute<D>* parameter, D* result, double* totals,
                   const Finish& finish) {
  switch (share.way) {
    case Way::direct: return convolve_directly(share, parameter, result, totals, finish);
    case Way::winograd: return convolve_pairs(share, parameter, result, totals, finish);
    case Way::windows: return add_products(share, parameter, result, totals, finish);
  }
}

template <class D>
void convolve(const Share<D>& share, const Compute<D>* bias, bool relu, D* y, double* sums) {
  using T = Compute<D>;
  if (relu) {
    convolve_rows(share, bias, y, sums, [](Vector<T> a, Vector<T> b, int64_t, auto) {
      return where_active<T>(a + b, a + b);
    });
  } else {
    convolve_rows(share, bias, y, sums,
                  [](Vector<T> a, Vector<T> b, int64_t, auto) { return a + b; });
  }
}

template <class D>
void convolve_input_gradient(const Share<D>& share, const OutputGradient<D>& g, D* grad_x) {
  using T = Compute<D>;
  if (g.x) {
    convolve_rows(share, g.gate, grad_x, nullptr,
                  [&](Vector<T> a, Vector<T> gate, int64_t offset, auto width) {
                    return a - g.loss_scale *
                                   (load(g.y + offset, width) * gate - load(g.x + offset, width));
                  });
  } else {
    convolve_rows(share, static_cast<const T*>(nullptr), grad_x, nullptr,
                  [](Vector<T> a, Vector<T>, int64_t, auto) { return a; });
  }
}
