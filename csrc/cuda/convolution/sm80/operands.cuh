// The operands of the main loop: which 16-byte pieces of global memory each thread copies into a
// stage of shared memory. Pieces outside the image, the filters or the range are filled with 0.
//
// Deep operands (rows of the summed dimension): 4 threads share a row of 64 bytes, and a thread has
// every 32nd row. Wide operands (the summed dimension across rows): 128 / kDepth threads share a
// row, so that a thread has one row and has to know the place of one pixel only.
//
// Counted in instructions, what is around the products decides: hence neighbouring pixels instead
// of divisions, constants instead of addresses, and taps one after the other.
#pragma once

#include "cuda/convolution/sm80/main_loop.cuh"
#include "cuda/convolution/taps.cuh"

namespace sspcab::cuda {

// 16 bytes, or 16 zeros where `bytes` is 0. CuTe's copy makes the number of bytes from a predicate,
// once for every piece.
template <int to_constant, int from_constant>
__device__ void copy_piece(const void* from, unsigned to, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0 + %3], [%1 + %4], 16, %2;" ::"r"(to),
               "l"(from), "r"(bytes), "n"(to_constant), "n"(from_constant));
}

__device__ inline int bytes_if(bool inside) { return inside ? kVectorBytes : 0; }

// A thread's pieces of an operand's rows, which are the source's. It goes along them: each has a
// pointer, that of a stage lies a constant on.
template <class D, int rows, class Layout>
class DeepPieces {
 public:
  template <int stage_bytes, class Stage>
  __device__ void copy(Stage stage) const {
    using From = StageOffset<Stage, kDepthBytes>;
    using To = StageOffset<Stage, stage_bytes>;
    cute::for_each(cute::make_int_sequence<kPieces>{}, [&](auto r) {
      // 32 rows are a multiple of the swizzle's period.
      copy_piece<To::kConstant + r * 32 * kDepthBytes, From::kConstant>(
          from_[r] + From::rest(stage), to_ + To::rest(stage), bytes_[r]);
    });
  }
  // After `stage`.
  template <class Stage>
  __device__ void move_on(Stage stage) {
    if (stage == kStages - 1) {
      for (int r = 0; r < kPieces; ++r) from_[r] += kStages * kDepthBytes;
    }
  }
  // `left` channels are left for this step and those that follow.
  __device__ void end_at(int left) {
    if (channel_ < left) return;
    for (int r = 0; r < kPieces; ++r) bytes_[r] = 0;
  }

 protected:
  static constexpr int kPieces = rows / 32;  // of a thread
  const int row_, channel_;                  // of the first piece
  int bytes_[kPieces];                       // to be copied

  __device__ explicit DeepPieces(D* shared)
      : row_(threadIdx.x / 4), channel_(threadIdx.x % 4 * kVector<D>) {
    const unsigned offset = Layout{}(row_, channel_) * static_cast<unsigned>(sizeof(D));
    to_ = kept(cute::cast_smem_ptr_to_uint(shared) + offset);
  }

  // The first piece for `stage` is at `from`; `row_bytes` lie between the rows of the source.
  template <class Stage>
  __device__ void point_to(const char* from, int row_bytes, Stage stage) {
    from -= stage * kDepthBytes;
    for (int r = 0; r < kPieces; ++r) from_[r] = kept(from + r * (INT64_C(32) * row_bytes));
  }

 private:
  unsigned to_;
  const char* from_[kPieces];
};

// A thread's pieces of one of an operand's rows, which is a pixel.
template <class D, int columns, int depth, class Layout>
class WidePieces {
 public:
  const int row, column;  // of the first piece

  // Of the columns from `first` to `end`.
  __device__ WidePieces(int first, int end, D* shared)
      : row(row_of(threadIdx.x / kLanes)),
        column(threadIdx.x % kLanes * kVector<D>),
        columns_(end - first) {
    for (int p = 0; p < kAddresses; ++p) {
      const unsigned offset = Layout{}(column + kApart * p, row) * static_cast<unsigned>(sizeof(D));
      to_[p] = kept(cute::cast_smem_ptr_to_uint(shared) + offset);
    }
  }

  __device__ bool is_full() const { return columns_ >= columns; }

  // The first piece is at `from`; `full`: is_full().
  template <bool full, int stage_bytes, class Stage>
  __device__ void copy(const void* from, Stage stage, int bytes) const {
    using To = StageOffset<Stage, stage_bytes>;
    cute::for_each(cute::make_int_sequence<kPieces>{}, [&](auto p) {
      // What is two pieces on lies a constant further.
      constexpr int even = p / 2 * 2 * kApart;
      copy_piece<To::kConstant + Layout{}(even, 0) * sizeof(D), p * kApart * sizeof(D)>(
          from, to_[p % 2] + To::rest(stage), full || column + kApart * p < columns_ ? bytes : 0);
    });
  }

 private:
  static constexpr int kLanes = kThreads / depth;
  static constexpr int kApart = kLanes * kVector<D>;  // columns from a piece to the next
  static constexpr int kPieces = columns / kApart;    // of a thread
  static constexpr int kAddresses = kPieces == 1 ? 1 : 2;

  // Eight threads copy to all banks at once: where they have two rows, of which neighbours share
  // banks, the rows are four apart.
  static __device__ int row_of(int row) {
    if constexpr (kLanes > 4) return row;
    return row / 8 * 8 + row % 2 * 4 + row / 2 % 4;
  }

  const int columns_;
  unsigned to_[kAddresses];
};

// Pixels of an image, moved by one tap (times `sign`), and their channels.
template <class Loop>
class MovedPixels : public DeepPieces<typename Loop::Element, Loop::kM, typename Loop::LayoutA> {
  using D = typename Loop::Element;
  using Pieces = DeepPieces<D, Loop::kM, typename Loop::LayoutA>;

 public:
  // The tile begins at `pixel`, which is that number `within_sample`, and has `rows` of the image.
  __device__ MovedPixels(const Geometry& g, const D* image, int64_t pixel, unsigned within_sample,
                         int rows, int sign, D* shared)
      : Pieces(shared), g_(g), sign_(sign) {
    at_first_ = kept(
        reinterpret_cast<const char*>(image + (pixel + this->row_) * g.channels + this->channel_));
    Place place(g, within_sample + this->row_);
    const Place by(g, 32);
    for (int r = 0; r < Pieces::kPieces; ++r) {
      places_[r] = place;
      // A row beyond the last pixel is outside the image whatever the tap.
      if (this->row_ + 32 * r >= rows) places_[r].pixel = 1u << 31;
      place.move(g, by);
    }
  }

  template <class Stage>
  __device__ void move_to(const Tap& tap, Stage stage) {
    const Shift shift(g_, tap, sign_);
    this->point_to(at_first_ + shift.bytes<D>(g_), g_.pixel_bytes<D>(), stage);
    for (int r = 0; r < Pieces::kPieces; ++r) {
      this->bytes_[r] = bytes_if(places_[r].has(g_, shift));
    }
  }

 private:
  const Geometry& g_;
  const int sign_;
  const char* at_first_;
  Place places_[Pieces::kPieces];
};

// Where the sub-kernels lie: tap t of a corner is a (C, C) matrix, `tap_bytes` after the one
// before.
struct Filters {
  const char* corner[4];
  int64_t tap_bytes;

  __device__ const char* at(const SubKernels& sub_kernels, const Tap& tap) const {
    return corner[tap.corner] +
           (tap.i * static_cast<int>(sub_kernels.kernel_dim) + tap.j) * tap_bytes;
  }
};

// Output channels, and the input channels of one tap; or, packed for the gradient of x, input
// channels and the output channels of one tap.
template <class Loop>
class FilterRows : public DeepPieces<typename Loop::Element, Loop::kN, typename Loop::LayoutB> {
  using D = typename Loop::Element;
  using Pieces = DeepPieces<D, Loop::kN, typename Loop::LayoutB>;

 public:
  __device__ FilterRows(const Geometry& g, const Filters& filters, int first, D* shared)
      : Pieces(shared), g_(g), filters_(filters), first_(first + this->row_) {
    offset_ = kept(static_cast<int64_t>(first_) * g.pixel_bytes<D>() +
                   this->channel_ * static_cast<int>(sizeof(D)));
  }

  template <class Stage>
  __device__ void move_to(const Tap& tap, Stage stage) {
    this->point_to(filters_.at(g_.sub_kernels, tap) + offset_, g_.pixel_bytes<D>(), stage);
  }
  // Undoes end_at.
  __device__ void restore() {
    for (int r = 0; r < Pieces::kPieces; ++r) {
      this->bytes_[r] = bytes_if(first_ + 32 * r < g_.channels);
    }
  }

 private:
  const Geometry& g_;
  const Filters& filters_;
  const int first_;  // row of the matrix
  int64_t offset_;
};

// Both operands of the forward pass or of the gradient of x: tap after tap, channel after channel.
template <class Loop>
class TapsAndChannels {
 public:
  __device__ TapsAndChannels(const Geometry& g, MovedPixels<Loop>& pixels,
                             FilterRows<Loop>& filters)
      : g_(g), pixels_(pixels), filters_(filters) {
    full_ = g.channels - static_cast<unsigned>(g.channels) % Loop::kDepth;
    filters_.restore();
    move(cute::_0{});
  }

  template <int stage_bytes, class Stage>
  __device__ void copy(Stage stage) {
    pixels_.template copy<stage_bytes>(stage);
    filters_.template copy<stage_bytes>(stage);
    channel_ += Loop::kDepth;
    if (channel_ < full_) {
      move_on(stage);
    } else if (channel_ < g_.channels) {
      move_on(stage);
      end_at(g_.channels - channel_);
    } else {
      move_to_next_tap(after(stage));
    }
  }

 private:
  template <class Stage>
  __device__ void move_on(Stage stage) {
    pixels_.move_on(stage);
    filters_.move_on(stage);
  }
  template <class Stage>
  __device__ void move_to_next_tap(Stage stage) {
    channel_ = 0;
    tap_.move_on(g_.sub_kernels);
    if (tap_.corner < 4) move(stage);
  }
  template <class Stage>
  __device__ void move(Stage stage) {
    pixels_.move_to(tap_, stage);
    filters_.move_to(tap_, stage);
    if (full_ == g_.channels) return;
    filters_.restore();
    if (full_ == 0) end_at(g_.channels);
  }
  __device__ void end_at(int left) {
    pixels_.end_at(left);
    filters_.end_at(left);
  }

  const Geometry& g_;
  MovedPixels<Loop>& pixels_;
  FilterRows<Loop>& filters_;
  Tap tap_;
  int full_;  // channels of full steps
  int channel_ = 0;
};

// Both operands of the gradient of a filter: channels of grad_a and of x, moved by one tap, for the
// pixels [begin, end).
template <class Loop>
class PixelsOfTap {
 public:
  using D = typename Loop::Element;

  __device__ PixelsOfTap(const Geometry& g, const D* grad_a, const D* x, int64_t begin, int64_t end,
                         int first_output, int first_input, const Tap& tap, void* shared)
      : g_(g),
        of_a_(first_output, g.channels, Loop::shared_a(shared)),
        of_x_(first_input, g.channels, Loop::shared_b(shared)),
        is_full_(of_a_.is_full() && of_x_.is_full() && end <= g.pixels),
        step_bytes_(kept(static_cast<int64_t>(kDepthBytes) * g.channels)),
        shift_(g, tap, 1),
        place_(g, begin % g.sample_pixels() + of_a_.row),
        by_(g, Loop::kDepth) {
    const int64_t pixel = begin + of_a_.row;
    const int64_t left = (end < g.pixels ? end : g.pixels) - pixel;
    steps_ = left > 0 ? static_cast<int>(divide_up(left, Loop::kDepth)) : 0;
    a_ = reinterpret_cast<const char*>(grad_a + pixel * g.channels + first_output + of_a_.column);
    x_ = reinterpret_cast<const char*>(x + pixel * g.channels + first_input + of_x_.column) +
         shift_.bytes<D>(g);
  }

  template <int stage_bytes, class Stage>
  __device__ void copy(Stage stage) {
    const bool is_inside = place_.has(g_, shift_);
    if (is_full_) {
      of_a_.template copy<true, stage_bytes>(a_, stage, kVectorBytes);
      of_x_.template copy<true, stage_bytes>(x_, stage, bytes_if(is_inside));
    } else {
      const bool is_pixel = steps_-- > 0;
      of_a_.template copy<false, stage_bytes>(a_, stage, bytes_if(is_pixel));
      of_x_.template copy<false, stage_bytes>(x_, stage, bytes_if(is_pixel & is_inside));
    }
    // kDepth pixels on.
    a_ += step_bytes_;
    x_ += step_bytes_;
    place_.move(g_, by_);
  }

 private:
  using PiecesA = WidePieces<D, Loop::kM, Loop::kDepth, typename Loop::LayoutA>;
  using PiecesB = WidePieces<D, Loop::kN, Loop::kDepth, typename Loop::LayoutB>;

  const Geometry& g_;
  const PiecesA of_a_;
  const PiecesB of_x_;
  const bool is_full_;  // no piece is outside the filter or the range
  const int64_t step_bytes_;
  const Shift shift_;
  Place place_;  // of this thread's row, not moved
  const Place by_;
  const char *a_, *x_;
  int steps_;  // in which this thread's row is a pixel
};

}  // namespace sspcab::cuda
