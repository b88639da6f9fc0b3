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

#include "cuda/main_loop.cuh"
#include "geometry.h"

namespace sspcab::cuda {

// Images of a convolution are channels_last, (N, H, W, C).
struct Geometry {
  int64_t pixels;  // N · H · W
  int height, width, channels;
  SubKernels sub_kernels;

  __device__ bool contains(int row, int column) const {
    return (static_cast<unsigned>(row) < static_cast<unsigned>(height)) &
           (static_cast<unsigned>(column) < static_cast<unsigned>(width));
  }
};

// A position in the corners, in the order of SubKernels.
struct Tap {
  int corner = 0, i = 0, j = 0;

  __device__ void move_on(const SubKernels& sub_kernels) {
    const int kernel_dim = static_cast<int>(sub_kernels.kernel_dim);
    const bool is_last = ++j == kernel_dim;  // without branches, which would move every register
    i += is_last;
    j = is_last ? 0 : j;
    corner += i == kernel_dim;
    i = i == kernel_dim ? 0 : i;
  }
  __device__ int row(const SubKernels& sub_kernels) const {
    return static_cast<int>(sub_kernels.row(corner, i));
  }
  __device__ int column(const SubKernels& sub_kernels) const {
    return static_cast<int>(sub_kernels.column(corner, j));
  }
};

// A pixel's row and column, and those of the pixels after it, without a division each.
struct Place {
  int row, column;

  __device__ Place(const Geometry& g, unsigned within_sample) {
    const unsigned line = within_sample / g.width;
    column = static_cast<int>(within_sample - line * g.width);
    row = static_cast<int>(line % g.height);
  }
  // by = Place(g, how many pixels to move on).
  __device__ void move(const Geometry& g, const Place& by) {
    row += by.row;
    column += by.column;
    if (column >= g.width) column -= g.width, ++row;
    if (row >= g.height) row -= g.height;
  }
};

// 16 bytes, or 16 zeros where `bytes` is 0. CuTe's copy makes the number of bytes from a predicate,
// once for every piece.
template <int to_constant, int from_constant>
__device__ void copy_piece(const void* from, unsigned to, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0 + %3], [%1 + %4], 16, %2;" ::"r"(to),
               "l"(from), "r"(bytes), "n"(to_constant), "n"(from_constant));
}

__device__ inline int bytes_if(bool inside) { return inside ? kVectorBytes : 0; }

template <class D, int rows, class Layout>
struct DeepPieces {
  static constexpr int kPieces = rows / 32;  // of a thread
  const int row, channel;                    // of the first piece

  __device__ explicit DeepPieces(D* shared)
      : row(threadIdx.x / 4), channel(threadIdx.x % 4 * kVector<D>) {
    const unsigned offset = Layout{}(row, channel) * static_cast<unsigned>(sizeof(D));
    to_ = kept(cute::cast_smem_ptr_to_uint(shared) + offset);
  }

  // `row_bytes` lie between the rows of the source.
  __device__ void copy(const D* from, int64_t row_bytes, int stage,
                       const int (&bytes)[kPieces]) const {
    const char* source = reinterpret_cast<const char*>(from);
    cute::for_each(cute::make_int_sequence<kPieces>{}, [&](auto r) {
      // 32 rows are a multiple of the swizzle's period.
      copy_piece<r * 32 * kDepthBytes, 0>(source, to_ + stage, bytes[r]);
      source += 32 * row_bytes;
    });
  }

 private:
  unsigned to_;
};

template <class D, int columns, int depth, class Layout>
class WidePieces {
 public:
  const int row;

  // Of the columns from `first` to `end`.
  __device__ WidePieces(int first, int end, D* shared)
      : row(threadIdx.x / kLanes), columns_(end - first) {
    for (int p = 0; p < kAddresses; ++p) {
      const unsigned offset = Layout{}(column(p), row) * static_cast<unsigned>(sizeof(D));
      to_[p] = kept(cute::cast_smem_ptr_to_uint(shared) + offset);
    }
    second_ = kept(static_cast<int64_t>(column(kAddresses - 1) - column(0)));
  }

  __device__ int column(int p) const {
    // Neighbouring rows take their pieces in another order: they'd meet in the same banks.
    const int piece = kPieces % 2 == 0 ? p ^ (row & 1) : p;
    return (threadIdx.x % kLanes + kLanes * piece) * kVector<D>;
  }

  // `from`: at column(0).
  __device__ void copy(const D* from, int stage, int bytes) const {
    const D* const first[] = {from, from + second_};
    const auto copy_all = [&](const auto& bytes_of) {
      cute::for_each(cute::make_int_sequence<kPieces>{}, [&](auto p) {
        // What is two pieces on lies a constant further, here and there.
        constexpr int even = p / 2 * 2 * kLanes * kVector<D>;
        copy_piece<Layout{}(even, 0) * sizeof(D), even * sizeof(D)>(
            first[p % 2], to_[p % 2] + stage, bytes_of(p));
      });
    };
    if (columns_ >= columns) {
      copy_all([&](int) { return bytes; });
    } else {
      copy_all([&](int p) { return column(p) < columns_ ? bytes : 0; });
    }
  }

 private:
  static constexpr int kLanes = kThreads / depth;
  static constexpr int kPieces = columns / kVector<D> / kLanes;  // of a thread
  static constexpr int kAddresses = kPieces == 1 ? 1 : 2;
  const int columns_;
  unsigned to_[kAddresses];
  int64_t second_;
};

// Pixels of an image, moved by one tap (times `sign`), and their channels.
template <class Loop>
class MovedPixels {
 public:
  using D = typename Loop::Element;

  // The tile begins at `pixel`, which is that number `within_sample`, and has `rows` of the image.
  __device__ MovedPixels(const Geometry& g, const D* image, int64_t pixel, unsigned within_sample,
                         int rows, int sign, D* shared)
      : g_(g), sign_(sign), pieces_(shared) {
    at_first_ = kept(image + (pixel + pieces_.row) * g.channels + pieces_.channel);
    Place place(g, within_sample + pieces_.row);
    const Place by(g, 32);
    for (int r = 0; r < Pieces::kPieces; ++r) {
      // A row beyond the last pixel is outside the image whatever the tap.
      row_[r] = pieces_.row + 32 * r < rows ? place.row : -(1 << 30);
      column_[r] = place.column;
      place.move(g, by);
    }
  }

  __device__ void move_to(const Tap& tap) {
    const int row = sign_ * tap.row(g_.sub_kernels), column = sign_ * tap.column(g_.sub_kernels);
    from_ = at_first_ + (static_cast<int64_t>(row) * g_.width + column) * g_.channels;
    for (int r = 0; r < Pieces::kPieces; ++r) {
      bytes_[r] = bytes_if(g_.contains(row_[r] + row, column_[r] + column));
    }
  }
  __device__ void copy(int stage) {
    pieces_.copy(from_, g_.channels * static_cast<int64_t>(sizeof(D)), stage, bytes_);
    from_ += Loop::kDepth;
  }
  // `left` channels are left for this step and those that follow.
  __device__ void end_at(int left) {
    if (pieces_.channel < left) return;
    for (int r = 0; r < Pieces::kPieces; ++r) bytes_[r] = 0;
  }

 private:
  using Pieces = DeepPieces<D, Loop::kM, typename Loop::LayoutA>;

  const Geometry& g_;
  const int sign_;
  const Pieces pieces_;
  const D *at_first_, *from_;
  int row_[Pieces::kPieces], column_[Pieces::kPieces], bytes_[Pieces::kPieces];
};

// Where the sub-kernels lie: tap t of a corner is a (C, C) matrix, `tap_stride` elements after the
// one before.
template <class D>
struct Filters {
  const D* corner[4];
  int64_t tap_stride;

  __device__ const D* at(const SubKernels& sub_kernels, const Tap& tap) const {
    const int c = tap.corner;
    const D* of_corner = c & 2 ? (c & 1 ? corner[3] : corner[2]) : (c & 1 ? corner[1] : corner[0]);
    return of_corner + (tap.i * static_cast<int>(sub_kernels.kernel_dim) + tap.j) * tap_stride;
  }
};

// Output channels, and the input channels of one tap; or, packed for the gradient of x, input
// channels and the output channels of one tap.
template <class Loop>
class FilterRows {
 public:
  using D = typename Loop::Element;

  __device__ FilterRows(const Geometry& g, const Filters<D>& filters, int first, D* shared)
      : g_(g), filters_(filters), pieces_(shared) {
    const int row = first + pieces_.row;
    offset_ = kept(static_cast<int64_t>(row) * g.channels + pieces_.channel);
    for (int r = 0; r < Pieces::kPieces; ++r) full_[r] = kept(bytes_if(row + 32 * r < g.channels));
  }

  __device__ void move_to(const Tap& tap) {
    from_ = filters_.at(g_.sub_kernels, tap) + offset_;
    for (int r = 0; r < Pieces::kPieces; ++r) bytes_[r] = full_[r];
  }
  __device__ void copy(int stage) {
    pieces_.copy(from_, g_.channels * static_cast<int64_t>(sizeof(D)), stage, bytes_);
    from_ += Loop::kDepth;
  }
  __device__ void end_at(int left) {
    if (pieces_.channel < left) return;
    for (int r = 0; r < Pieces::kPieces; ++r) bytes_[r] = 0;
  }

 private:
  using Pieces = DeepPieces<D, Loop::kN, typename Loop::LayoutB>;

  const Geometry& g_;
  const Filters<D>& filters_;
  const Pieces pieces_;
  int64_t offset_;
  const D* from_;
  int full_[Pieces::kPieces], bytes_[Pieces::kPieces];
};

// Both operands of the forward pass or of the gradient of x: tap after tap, channel after channel,
// and zeros after that.
template <class Loop>
class TapsAndChannels {
 public:
  __device__ TapsAndChannels(const Geometry& g, MovedPixels<Loop>& pixels,
                             FilterRows<Loop>& filters)
      : g_(g), pixels_(pixels), filters_(filters) {
    full_ = g.channels - g.channels % Loop::kDepth;
    move();
  }

  __device__ void copy(int stage) {
    pixels_.copy(stage);
    filters_.copy(stage);
    channel_ += Loop::kDepth;
    if (channel_ >= full_) go_on();
  }

 private:
  __device__ void go_on() {
    if (channel_ >= g_.channels) {
      channel_ = 0;
      tap_.move_on(g_.sub_kernels);
      move();
    } else {
      end_at(g_.channels - channel_);
    }
  }
  __device__ void move() {
    if (tap_.corner >= 4) return end_at(0);
    pixels_.move_to(tap_);
    filters_.move_to(tap_);
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
        moved_row_(tap.row(g.sub_kernels)),
        moved_column_(tap.column(g.sub_kernels)),
        place_(g, begin % (static_cast<int64_t>(g.height) * g.width) + of_a_.row),
        by_(g, Loop::kDepth) {
    const int64_t pixel = begin + of_a_.row;
    left_ = (end < g.pixels ? end : g.pixels) - pixel;
    a_ = grad_a + pixel * g.channels + first_output + of_a_.column(0);
    x_ = x + (pixel + static_cast<int64_t>(moved_row_) * g.width + moved_column_) * g.channels +
         first_input + of_x_.column(0);
  }

  __device__ void copy(int stage) {
    const bool is_pixel = left_ > 0;
    const bool is_moved_pixel =
        is_pixel & g_.contains(place_.row + moved_row_, place_.column + moved_column_);
    of_a_.copy(a_, stage, bytes_if(is_pixel));
    of_x_.copy(x_, stage, bytes_if(is_moved_pixel));
    // kDepth pixels on.
    a_ += static_cast<int64_t>(Loop::kDepth) * g_.channels;
    x_ += static_cast<int64_t>(Loop::kDepth) * g_.channels;
    left_ -= Loop::kDepth;
    place_.move(g_, by_);
  }

 private:
  using PiecesA = WidePieces<D, Loop::kM, Loop::kDepth, typename Loop::LayoutA>;
  using PiecesB = WidePieces<D, Loop::kN, Loop::kDepth, typename Loop::LayoutB>;

  const Geometry& g_;
  const PiecesA of_a_;
  const PiecesB of_x_;
  const int moved_row_, moved_column_;
  Place place_;  // of this thread's row, not moved
  const Place by_;
  const D *a_, *x_;
  int64_t left_;  // pixels from this thread's row on
};

}  // namespace sspcab::cuda
