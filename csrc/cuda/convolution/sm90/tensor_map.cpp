#include "cuda/convolution/sm90/tensor_map.h"

#include <cudaTypedefs.h>

#include "cuda/launch_check.h"

namespace sspcab::cuda {
namespace {

// From the driver at hand: linking its library would keep the CPU part from loading without it.
template <class Function>
Function driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found),
             name);
  if (found != cudaDriverEntryPointSuccess) {
    throw std::runtime_error(std::string("sspcab: the CUDA driver has no ") + name);
  }
  return reinterpret_cast<Function>(function);
}

void check_driver(CUresult result, const char* what) {
  if (result == CUDA_SUCCESS) return;
  throw std::runtime_error(std::string("sspcab: ") + what + ": CUDA driver error " +
                           std::to_string(result));
}

CUtensorMapDataType type_of(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::Half: return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case Arithmetic::BFloat16: return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    default: return CU_TENSOR_MAP_DATA_TYPE_TFLOAT32;
  }
}

constexpr cuuint32_t kDense[5] = {1, 1, 1, 1, 1};
constexpr auto kPlainOrder = CU_TENSOR_MAP_INTERLEAVE_NONE;
constexpr auto kSwizzle = CU_TENSOR_MAP_SWIZZLE_128B;
constexpr auto kWholeSectors = CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
constexpr auto kZeros = CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;

template <int rank>
CUtensorMap tiled(const Convolution& convolution, const void* data, const cuuint64_t (&sizes)[rank],
                  const cuuint64_t (&strides)[rank - 1], const cuuint32_t (&box)[rank]) {
  static const auto encode =
      driver_function<PFN_cuTensorMapEncodeTiled_v12000>("cuTensorMapEncodeTiled");
  CUtensorMap map;
  check_driver(encode(&map, type_of(convolution.arithmetic), rank, const_cast<void*>(data), sizes,
                      strides, box, kDense, kPlainOrder, kSwizzle, kWholeSectors, kZeros),
               "cuTensorMapEncodeTiled");
  return map;
}

}  // namespace

CUtensorMap moved_pixels_map(const Convolution& convolution, const void* image, int pixels) {
  static const auto encode =
      driver_function<PFN_cuTensorMapEncodeIm2col_v12000>("cuTensorMapEncodeIm2col");
  const Image& i = convolution.image;
  const int reach = static_cast<int>(convolution.sub_kernels.reach());
  const cuuint64_t pixel = i.channels * element_bytes(convolution.arithmetic);
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(i.channels), static_cast<cuuint64_t>(i.width),
                              static_cast<cuuint64_t>(i.height),
                              static_cast<cuuint64_t>(i.samples)};
  const cuuint64_t strides[] = {pixel, i.width * pixel, i.pixels() * pixel};
  const int corner[] = {-reach, -reach};
  CUtensorMap map;
  check_driver(
      encode(&map, type_of(convolution.arithmetic), 4, const_cast<void*>(image), sizes, strides,
             corner, corner, kHopperDepthBytes / element_bytes(convolution.arithmetic), pixels,
             kDense, kPlainOrder, kSwizzle, kWholeSectors, kZeros),
      "cuTensorMapEncodeIm2col");
  return map;
}

CUtensorMap pixels_map(const Convolution& convolution, const void* image, int pixels) {
  const Image& i = convolution.image;
  const int bytes = element_bytes(convolution.arithmetic);
  return tiled<2>(
      convolution, image,
      {static_cast<cuuint64_t>(i.channels), static_cast<cuuint64_t>(i.samples * i.pixels())},
      {static_cast<cuuint64_t>(i.channels * bytes)},
      {static_cast<cuuint32_t>(kHopperDepthBytes / bytes), static_cast<cuuint32_t>(pixels)});
}

CUtensorMap filters_map(const Convolution& convolution, int corner, int rows) {
  const cuuint64_t channels = convolution.image.channels;
  const int bytes = element_bytes(convolution.arithmetic);
  return tiled<3>(
      convolution, convolution.corner[corner],
      {channels, channels, static_cast<cuuint64_t>(convolution.sub_kernels.taps_per_corner())},
      {channels * bytes, static_cast<cuuint64_t>(convolution.tap_stride * bytes)},
      {static_cast<cuuint32_t>(kHopperDepthBytes / bytes), static_cast<cuuint32_t>(rows), 1});
}

}  // namespace sspcab::cuda
