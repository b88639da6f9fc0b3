// A way of convolving: what the direct way, Winograd's and the windows have in common. Each is a
// class of its own in this folder; arithmetic is in isa/convolution.
#pragma once

#include <memory>

#include "cpu/buffer.h"
#include "cpu/convolution/plan.h"
#include "cpu/isa/kernels.h"
#include "cpu/workers.h"

namespace sspcab::cpu {

// Sub-kernels as a way takes them.
template <class T>
struct Filters {
  Weights<T> weights;
  Buffer<T> panels;  // none for products of windows
};

// The samples of a group as kernels read them: in place, or from their blocked images.
template <class D>
class Images {
 public:
  using T = Compute<D>;

  Images(const Plan& plan, const D* in_place, const T* blocked)
      : sample_(plan.sample()), in_place_(in_place), blocked_(blocked) {}

  // Of a blocked image of one whole sample, in elements.
  static int64_t blocked_size(const Sample& s) { return s.pixels() * s.blocks() * kBlock; }
  static Blocked<T> blocked(T* images, const Sample& s, int64_t n) {
    return {images + n * blocked_size(s), {0, s.height}, s.width};
  }

  View<T> operator[](int64_t n) const {
    if constexpr (std::is_same_v<D, T>) {
      if (!blocked_) return View<T>::of(in_place_ + n * sample_.numel(), sample_);
    }
    return View<T>::of(blocked(const_cast<T*>(blocked_), sample_, n));
  }

 private:
  Sample sample_;
  const D* in_place_;
  const T* blocked_;
};

// What a backward pass wants of the convolution.
template <class T>
struct WantedGradients {
  bool x;
  bool corners[4];
  T* weights[4];               // where those go that are wanted
  const Filters<T>* mirrored;  // for that of x

  bool any_weight() const { return corners[0] || corners[1] || corners[2] || corners[3]; }
};

// A group of samples in a backward pass.
template <class D>
struct BackwardGroup {
  int64_t samples;
  Images<D> x;                 // for the gradients of the sub-kernels
  Images<D> grad_a;            // of the convolution
  OutputGradient<D> gradient;  // what the loss adds to the gradient of x
  D* grad_x;
};

// Sums of a backward pass over groups of samples.
template <class D>
class Gradients {
 public:
  virtual ~Gradients() = default;
  virtual void add(const BackwardGroup<D>&) = 0;
  // Once, after all groups: the gradients of the sub-kernels are where they are wanted.
  virtual void finish() = 0;
};

template <class D>
class Convolution {
 public:
  using T = Compute<D>;

  explicit Convolution(const Plan& plan) : plan_(plan) {}
  virtual ~Convolution() = default;

  const Plan& plan() const { return plan_; }
  const Workers& workers() const { return workers_; }

  // The weights must outlive the result.
  virtual Filters<T> prepare(const Weights<T>&, bool mirrored) const = 0;
  // y of a group of samples; sums[sample][band][c] += Σ y, unless they are null.
  virtual void forward(const D* x, int64_t samples, const Bands&, const Filters<T>&, const T* bias,
                       bool relu, D* y, double* sums) const = 0;
  virtual std::unique_ptr<Gradients<D>> gradients(const WantedGradients<T>&) const = 0;

 protected:
  // Blocked images of a group.
  void pack(const D* x, int64_t samples, T* blocked) const {
    const Sample& s = plan_.sample();
    const Bands split = Bands::choose(s, samples, workers_.count(), s.height);
    workers_.run(samples * split.per_sample, [&](int64_t item, int64_t) {
      const int64_t n = item / split.per_sample;
      k_.pack(x + n * s.numel(), s, split.rows(item % split.per_sample),
              Images<D>::blocked(blocked, s, n));
    });
  }

  const Kernels<D>& k_ = kernels<D>();
  const Plan plan_;
  const Workers workers_ = Workers::exactly(plan_.threads);
};

}  // namespace sspcab::cpu
