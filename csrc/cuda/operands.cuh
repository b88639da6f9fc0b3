// The operands of the main loop: which 16-byte pieces of global memory each thread copies into a
// stage of shared memory. Pieces outside the image, the filters or the range are filled with 0.
//
// Deep operands (rows of the summed dimension): 4 threads share a row of 64 bytes, and a thread has
// every 32nd row. Wide operands (the summed dimension across rows): 128 / kDepth threads share a
// row, so that a thread has one row and has to know the place of one pixel only.
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
    return static_cast<unsigned>(row) < static_cast<unsigned>(height) &&
           static_cast<unsigned>(column) < static_cast<unsigned>(width);
  }
};

struct Offset {
  int row, column;
};
__device__ inline Offset offset_of(const SubKernels& sub_kernels, int tap) {
  const int k = static_cast<int>(sub_kernels.kernel_dim), per_corner = k * k;
  const int corner = tap / per_corner, i = tap % per_corner / k, j = tap % k;
  return {static_cast<int>(sub_kernels.row(corner, i)),
          static_cast<int>(sub_kernels.column(corner, j))};
}

// 16 bytes, or 16 zeros where `bytes` is 0. CuTe's copy makes the number of bytes from a predicate,
// once for every piece.
__device__ inline void copy_piece(const void* from, void* to, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(
                   cute::cast_smem_ptr_to_uint(to)),
               "l"(from), "r"(bytes));
}

__device__ inline int bytes_if(bool inside) { return inside ? kVectorBytes : 0; }

template <class D, int rows, class Layout>
struct DeepPieces {
  static constexpr int kPieces = rows / 32;  // of a thread
  const int row, channel;                    // of the first piece

  __device__ explicit DeepPieces(D* shared)
      : row(threadIdx.x / 4),
        channel(threadIdx.x % 4 * kVector<D>),
        shared_(reinterpret_cast<char*>(shared)) {
    offset_ = kept(Layout{}(row, channel, 0) * static_cast<int>(sizeof(D)));
  }

  // `row_bytes` lie between the rows of the source.
  __device__ void copy(const D* from, int64_t row_bytes, int stage,
                       const int (&bytes)[kPieces]) const {
    const char* source = reinterpret_cast<const char*>(from);
    char* to = shared_ + (offset_ + stage * rows * kDepthBytes);
    for (int r = 0; r < kPieces; ++r) {
      // 32 rows are a multiple of the swizzle's period.
      copy_piece(source, to + r * 32 * kDepthBytes, bytes[r]);
      if (r + 1 < kPieces) source += 32 * row_bytes;
    }
  }

 private:
  char* shared_;
  int offset_;
};

template <class D, int columns, int depth, class Layout>
struct WidePieces {
  static constexpr int kLanes = kThreads / depth;
  static constexpr int kPieces = columns / kVector<D> / kLanes;  // of a thread
  const int row;

  __device__ explicit WidePieces(D* shared)
      : row(threadIdx.x / kLanes), shared_(reinterpret_cast<char*>(shared)) {
    for (int p = 0; p < kPieces; ++p) {
      offset_[p] = kept(Layout{}(column(p), row, 0) * static_cast<int>(sizeof(D)));
    }
  }

  __device__ int column(int p) const {
    // Neighbouring rows take their pieces in another order: they'd meet in the same banks.
    const int piece = kPieces % 2 == 0 ? p ^ (row & 1) : p;
    return (threadIdx.x % kLanes + kLanes * piece) * kVector<D>;
  }

  __device__ void copy(const D* from, int stage, const int (&bytes)[kPieces]) const {
    for (int p = 0; p < kPieces; ++p) {
      copy_piece(from + column(p), shared_ + offset_[p] + stage * columns * kDepthBytes, bytes[p]);
    }
  }

 private:
  char* shared_;
  int offset_[kPieces];
};

// Pixels of an image, moved by one tap (times `sign`), and their channels.
template <class Loop>
class MovedPixels {
 public:
  using D = typename Loop::Element;

  __device__ MovedPixels(const Geometry& g, const D* image, int64_t first_pixel, int sign,
                         D* shared)
      : g_(g), sign_(sign), pieces_(shared) {
    const int64_t pixel = first_pixel + pieces_.row;
    at_first_ = image + pixel * g.channels + pieces_.channel;
    for (int r = 0; r < Pieces::kPieces; ++r) {
      const int64_t p = pixel + 32 * r, line = p / g.width;
      // A row beyond the last pixel is outside the image whatever the tap.
      row_[r] = p < g.pixels ? static_cast<int>(line % g.height) : -(1 << 30);
      column_[r] = static_cast<int>(p - line * g.width);
    }
  }

  __device__ void move_to(int tap) {
    const Offset offset = offset_of(g_.sub_kernels, tap);
    const int row = sign_ * offset.row, column = sign_ * offset.column;
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

  __device__ const D* at(const SubKernels& sub_kernels, int tap) const {
    const int per_corner = static_cast<int>(sub_kernels.taps_per_corner());
    const int c = tap / per_corner;
    const D* of_corner = c & 2 ? (c & 1 ? corner[3] : corner[2]) : (c & 1 ? corner[1] : corner[0]);
    return of_corner + (tap - c * per_corner) * tap_stride;
  }
};

// Output channels, and the input channels of one tap: the filters of the forward pass.
template <class Loop>
class FilterRows {
 public:
  using D = typename Loop::Element;

  __device__ FilterRows(const Geometry& g, const Filters<D>& filters, int first, D* shared)
      : g_(g), filters_(filters), pieces_(shared), first_(first) {}

  __device__ void move_to(int tap) {
    const int row = first_ + pieces_.row;
    from_ = filters_.at(g_.sub_kernels, tap) + static_cast<int64_t>(row) * g_.channels +
            pieces_.channel;
    for (int r = 0; r < Pieces::kPieces; ++r) bytes_[r] = bytes_if(row + 32 * r < g_.channels);
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
  const int first_;
  const D* from_;
  int bytes_[Pieces::kPieces];
};

// Input channels, and the output channels of one tap: the filters of the gradient of x.
template <class Loop>
class FilterColumns {
 public:
  using D = typename Loop::Element;

  __device__ FilterColumns(const Geometry& g, const Filters<D>& filters, int first, D* shared)
      : g_(g), filters_(filters), pieces_(shared), first_(first) {}

  __device__ void move_to(int tap) {
    from_ =
        filters_.at(g_.sub_kernels, tap) + static_cast<int64_t>(pieces_.row) * g_.channels + first_;
    for (int p = 0; p < Pieces::kPieces; ++p) {
      bytes_[p] = bytes_if(first_ + pieces_.column(p) < g_.channels);
    }
  }
  __device__ void copy(int stage) {
    pieces_.copy(from_, stage, bytes_);
    from_ += static_cast<int64_t>(Loop::kDepth) * g_.channels;
  }
  __device__ void end_at(int left) {
    if (pieces_.row < left) return;
    for (int p = 0; p < Pieces::kPieces; ++p) bytes_[p] = 0;
  }

 private:
  using Pieces = WidePieces<D, Loop::kN, Loop::kDepth, typename Loop::LayoutB>;

  const Geometry& g_;
  const Filters<D>& filters_;
  const Pieces pieces_;
  const int first_;
  const D* from_;
  int bytes_[Pieces::kPieces];
};

// Both operands of the forward pass or of the gradient of x: tap after tap, channel after channel.
template <class Loop, class Filters>
class TapsAndChannels {
 public:
  __device__ TapsAndChannels(const Geometry& g, MovedPixels<Loop>& pixels, Filters& filters)
      : pixels_(pixels), filters_(filters), channels_(g.channels) {
    full_ = channels_ - channels_ % Loop::kDepth;
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
    if (channel_ >= channels_) {
      channel_ = 0;
      ++tap_;
      move();
    } else {
      end();
    }
  }
  __device__ void move() {
    pixels_.move_to(tap_);
    filters_.move_to(tap_);
    if (full_ == 0) end();
  }
  __device__ void end() {
    pixels_.end_at(channels_ - channel_);
    filters_.end_at(channels_ - channel_);
  }

  MovedPixels<Loop>& pixels_;
  Filters& filters_;
  const int channels_;
  int full_;  // channels of full steps
  int channel_ = 0, tap_ = 0;
};

// Both operands of the gradient of a filter: channels of grad_a and of x, moved by one tap, pixel
// after pixel.
template <class Loop>
class PixelsOfTap {
 public:
  using D = typename Loop::Element;

  __device__ PixelsOfTap(const Geometry& g, const D* grad_a, const D* x, int64_t first_pixel,
                         int first_output, int first_input, Offset tap, void* shared)
      : g_(g), tap_(tap), of_a_(Loop::shared_a(shared)), of_x_(Loop::shared_b(shared)) {
    const int64_t pixel = first_pixel + of_a_.row, line = pixel / g.width;
    left_ = g.pixels - pixel;
    row_ = static_cast<int>(line % g.height) + tap.row;
    column_ = static_cast<int>(pixel - line * g.width) + tap.column;
    columns_on_ = Loop::kDepth % g.width;
    rows_on_ = Loop::kDepth / g.width % g.height;
    a_ = grad_a + pixel * g.channels + first_output;
    x_ = x + (pixel + static_cast<int64_t>(tap.row) * g.width + tap.column) * g.channels +
         first_input;
    left_outputs_ = g.channels - first_output;
    left_inputs_ = g.channels - first_input;
  }

  __device__ void copy(int stage) {
    int bytes_a[PiecesA::kPieces], bytes_x[PiecesB::kPieces];
    const int outputs = left_ > 0 ? left_outputs_ : 0;
    const int inputs = left_ > 0 && g_.contains(row_, column_) ? left_inputs_ : 0;
    for (int p = 0; p < PiecesA::kPieces; ++p) bytes_a[p] = bytes_if(of_a_.column(p) < outputs);
    for (int p = 0; p < PiecesB::kPieces; ++p) bytes_x[p] = bytes_if(of_x_.column(p) < inputs);
    of_a_.copy(a_, stage, bytes_a);
    of_x_.copy(x_, stage, bytes_x);
    // kDepth pixels on.
    a_ += static_cast<int64_t>(Loop::kDepth) * g_.channels;
    x_ += static_cast<int64_t>(Loop::kDepth) * g_.channels;
    left_ -= Loop::kDepth;
    column_ += columns_on_;
    row_ += rows_on_;
    if (column_ >= g_.width + tap_.column) {
      column_ -= g_.width;
      ++row_;
    }
    if (row_ >= g_.height + tap_.row) row_ -= g_.height;
  }

 private:
  using PiecesA = WidePieces<D, Loop::kM, Loop::kDepth, typename Loop::LayoutA>;
  using PiecesB = WidePieces<D, Loop::kN, Loop::kDepth, typename Loop::LayoutB>;

  const Geometry& g_;
  const Offset tap_;
  const PiecesA of_a_;
  const PiecesB of_x_;
  const D *a_, *x_;
  int64_t left_;      // pixels from this thread's row on
  int row_, column_;  // of x, moved
  int rows_on_, columns_on_;
  int left_outputs_, left_inputs_;  // channels from the tile's first on
};

}  // namespace sspcab::cuda
