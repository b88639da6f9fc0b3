// The Python module _C: facts about this build, and plans of calls. The operators are registered
// with PyTorch's dispatcher when the module is loaded; they don't pass through here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/convolution/plan.h"
#include "cpu/isa/kernels.h"
#ifdef SSPCAB_WITH_CUDA
#include "cuda/convolution/obstacles.h"
#include "cuda/host/device.h"
#include "cuda/plan/plan.h"
#endif

namespace py = pybind11;

namespace {

// In the order of cuda::Dtype.
int number_of_dtype(const std::string& name) {
  constexpr const char* kNames[] = {"float16", "bfloat16", "float32", "float64"};
  for (int i = 0; i < 4; ++i) {
    if (name == kNames[i]) return i;
  }
  throw py::value_error("sspcab: dtype must be float16, bfloat16, float32 or float64; got " + name);
}

#ifdef SSPCAB_WITH_CUDA
std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

sspcab::cuda::Dtype dtype_of(const std::string& name) {
  return static_cast<sspcab::cuda::Dtype>(number_of_dtype(name));
}

std::vector<int64_t> samples_of(const sspcab::cuda::Groups& groups) {
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < groups.count; ++i) samples.push_back(groups[i].image.samples);
  return samples;
}

py::dict cuda_plan(const std::array<int64_t, 4>& shape, const std::string& dtype,
                   int64_t kernel_dim, int64_t dilation, bool channels_last, bool allow_tf32,
                   int config, const std::string& parameter_dtype, int capability, int processors,
                   int64_t cache_bytes, std::optional<bool> runs_sm90) {
  namespace cuda = sspcab::cuda;
  if (config < -1 || config > cuda::kConfigs) {
    throw py::value_error(
        "sspcab: config must be -1 (automatic), 0 to 2 (tiles) or 3 (plain kernels); got " +
        std::to_string(config));
  }
  const cuda::Problem problem{
      dtype_of(dtype),
      dtype_of(parameter_dtype.empty() ? dtype : parameter_dtype),
      {shape[0], shape[1], shape[2], shape[3], channels_last},
      {kernel_dim, dilation},
      allow_tf32,
      config,
      {capability, processors, cache_bytes, runs_sm90.value_or(capability == 90)}};
  const cuda::ForwardPlan forward(problem, problem.groups(cuda::kForwardImages));
  constexpr bool kAllCorners[] = {true, true, true, true};
  const cuda::BackwardPlan backward(problem, problem.groups(cuda::kBackwardImages), true,
                                    kAllCorners);
  py::dict result;
  const cuda::Convolution whole = problem.convolution(problem.image);
  const char* obstacle = problem.is_tiled()       ? obstacle_to_sm90(whole, problem.device, true)
                         : problem.can_be_tiled() ? "plain kernels are asked for"
                                                  : obstacle_to_tiles(whole, problem.device);
  result["obstacle"] = obstacle ? py::object(py::str(obstacle)) : py::none();
  result["tiled"] = problem.is_tiled();
  result["packs_x"] = forward.packed.x > 0;
  result["packs_weights"] = forward.packed.weights > 0;
  result["forward_launches"] = forward.launch_names();
  result["backward_launches"] = backward.launch_names();
  result["forward_groups"] = samples_of(forward.groups);
  result["backward_groups"] = samples_of(backward.groups);
  if (!problem.is_tiled()) return result;
  const auto add = [&](const char* name, const cuda::LaunchPlan& plan) {
    py::dict launch;
    launch["path"] = plan.path == cuda::Path::Sm90 ? "sm90" : "sm80";
    launch["config"] = plan.config;
    launch["tile"] = py::make_tuple(plan.tile.m, plan.tile.n);
    launch["units"] = plan.units;
    launch["blocks"] = plan.blocks;
    launch["threads"] = plan.threads;
    launch["shared_bytes"] = plan.shared_bytes;
    launch["splits"] = plan.splits;
    result[name] = launch;
  };
  add("forward", forward.launches[forward.groups[0].image]);
  const cuda::GradientLaunches& gradients = backward.launches[backward.groups[0].image];
  add("input_gradient", gradients.x);
  add("weight_gradient", gradients.weights);
  return result;
}

py::dict cuda_device() {
  const sspcab::cuda::Device device = sspcab::cuda::current_device();
  py::dict result;
  result["capability"] = device.capability;
  result["processors"] = device.processors;
  result["cache_bytes"] = device.cache_bytes;
  result["runs_sm90"] = device.runs_sm90;
  return result;
}

int64_t offset(const std::array<int64_t, 4>& shape, bool channels_last, int64_t pixel,
               int64_t channel) {
  return sspcab::cuda::Image{shape[0], shape[1], shape[2], shape[3], channels_last}.offset(pixel,
                                                                                           channel);
}

int64_t sum_slot(int64_t tile, int64_t pixels, int64_t pixel) {
  return sspcab::cuda::SumSlots{tile, pixels}.slot(pixel);
}
#endif

// What the CPU's plan needs to know of an element type.
struct CpuType {
  int64_t element_bytes, lanes;  // of the arithmetic
  bool converts;
};

template <class D>
CpuType cpu_type() {
  using T = sspcab::cpu::Compute<D>;
  return {sizeof(T), sspcab::cpu::kernels<D>().tile / 2, !std::is_same_v<D, T>};
}

CpuType cpu_type_of(const std::string& name) {
  const CpuType types[] = {cpu_type<sspcab::cpu::Half>(), cpu_type<sspcab::cpu::BFloat16>(),
                           cpu_type<float>(), cpu_type<double>()};
  return types[number_of_dtype(name)];
}

py::dict cpu_plan(const std::array<int64_t, 4>& shape, const std::string& dtype, int64_t kernel_dim,
                  int64_t dilation, bool channels_last, int64_t config, int64_t threads) {
  namespace cpu = sspcab::cpu;
  const CpuType type = cpu_type_of(dtype);
  if (*std::min_element(shape.begin(), shape.end()) < 0 || kernel_dim < 1 || dilation < 0 ||
      config < cpu::kAutomatic || config > static_cast<int64_t>(cpu::Way::windows) || threads < 1) {
    std::ostringstream message;
    message << "sspcab: sizes and dilation must be 0 or more, kernel_dim and threads 1 or more, "
               "config -1 (automatic), 0 (direct), 1 (Winograd) or 2 (windows); got sizes ("
            << shape[0] << ", " << shape[1] << ", " << shape[2] << ", " << shape[3]
            << "), dilation " << dilation << ", kernel_dim " << kernel_dim << ", threads "
            << threads << ", config " << config;
    throw py::value_error(message.str());
  }
  const cpu::Sample sample{shape[1], shape[2], shape[3], channels_last};
  const cpu::Plan plan(
      {sample, {kernel_dim, dilation}, shape[0], type.element_bytes, type.converts, config},
      {threads, type.lanes});
  constexpr const char* kWays[] = {"direct", "winograd", "windows"};
  py::dict costs;
  costs["direct"] = plan.costs.direct;
  costs["winograd"] = plan.costs.winograd;
  costs["windows"] = plan.costs.windows;
  int64_t gathered = 0;
  std::vector<int64_t> groups;
  for_each_group(plan, [&](int64_t, int64_t count) {
    groups.push_back(count);
    gathered += plan.gathered_bytes(count);
  });
  py::dict result;
  result["way"] = kWays[static_cast<int>(plan.way)];
  result["costs"] = costs;
  result["threads"] = plan.threads;
  result["groups"] = groups;
  result["reads_in_place"] = plan.reads_in_place;
  result["panel_bytes"] = plan.panel_bytes();
  result["gathered_bytes"] = gathered;
  if (groups.empty()) return result;
  const cpu::Bands bands = plan.bands(groups[0]);
  const int64_t parts = plan.parts(groups[0], bands);
  result["bands"] = bands.per_sample;
  result["parts"] = parts;
  result["packs_all"] =
      plan.way == cpu::Way::windows ? !plan.reads_in_place : plan.packs_all(bands, parts);
  return result;
}

py::dict build_info() {
  py::dict info;
  info["version"] = SSPCAB_VERSION;
  info["torch"] = SSPCAB_TORCH_VERSION;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
#ifdef SSPCAB_WITH_CUDA
  info["cuda"] = true;
  info["cuda_version"] = SSPCAB_CUDA_VERSION;
  info["arch_list"] = split(SSPCAB_ARCH_LIST, ';');
#else
  info["cuda"] = false;
  info["cuda_version"] = py::none();
  info["arch_list"] = std::vector<std::string>{};
#endif
  info["cpu_capability"] = sspcab::cpu::capability();
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of sspcab_cuda.";
  m.def("build_info", &build_info,
        "version, torch (built against), compiler, cuda, cuda_version, arch_list, cpu_capability");
  m.def(
      "cpu_plan", &cpu_plan,
      "How the masked convolution would be computed on this CPU by so many threads: the way, what "
      "each way costs in products of one input and one output channel, the samples of each group "
      "and, for the first one, bands of rows in a sample, parts of a band's output channels, and "
      "whether the image is read in place or packed at once. Computes nothing.",
      py::arg("shape"), py::arg("dtype") = "float32", py::arg("kernel_dim") = 1,
      py::arg("dilation") = 1, py::arg("channels_last") = true, py::arg("config") = -1,
      py::arg("threads") = 1);
#ifdef SSPCAB_WITH_CUDA
  m.def(
      "cuda_plan", &cuda_plan,
      "What a training step of the block would launch on a device of that capability (80 for 8.0), "
      "number of multiprocessors and L2 cache: the samples of each group, the launches in order "
      "and, for each convolution of the first group on the pipeline, path (sm80 or sm90), config, "
      "tile, units of work, blocks, threads, shared_bytes and splits. Launches nothing.",
      py::arg("shape"), py::arg("dtype") = "float32", py::arg("kernel_dim") = 1,
      py::arg("dilation") = 1, py::arg("channels_last") = true, py::arg("allow_tf32") = false,
      py::arg("config") = -1, py::arg("parameter_dtype") = "", py::arg("capability") = 80,
      py::arg("processors") = 108, py::arg("cache_bytes") = 40 << 20,
      py::arg("runs_sm90") = py::none());
  m.def("cuda_device", &cuda_device,
        "What cuda_plan has to know of the current device: the capability whose kernels it has "
        "loaded, and whether these have Hopper's own instructions.");
  m.def("offset", &offset, "Where an image's element lies, pixels counted through all samples.",
        py::arg("shape"), py::arg("channels_last"), py::arg("pixel"), py::arg("channel"));
  m.def("sum_slot", &sum_slot, "Where a pixel is summed, in tiles over samples of `pixels` pixels.",
        py::arg("tile"), py::arg("pixels"), py::arg("pixel"));
#endif
}
