// The Python module _C: facts about this build. The operators are registered with PyTorch's
// dispatcher when the module is loaded; they don't pass through here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace py = pybind11;

namespace {

#ifdef SSPCAB_WITH_CUDA
std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}
#endif

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
}
