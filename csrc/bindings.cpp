// The Python module _C: facts about this build. The operators are registered with PyTorch's
// dispatcher when the module is loaded; they don't pass through here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace py = pybind11;

namespace {

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
  info["arch_list"] = std::vector<std::string>{SSPCAB_ARCH_LIST};
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
