"""Builds sspcab_cuda._C, one extension for the CPU and, where it is wanted, for CUDA.

Switches (environment): FORCE_CUDA=1, SSPCAB_NO_CUDA=1, TORCH_CUDA_ARCH_LIST, CUDA_HOME,
CUTLASS_PATH, DEBUG=1, SSPCAB_TAG_VERSION=1, CXX and MAX_JOBS. What they lead to is decided in
build_support.py.
"""

import functools
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.egg_info import egg_info

ROOT = Path(__file__).resolve().parent
# Build front ends put neither the project's own folder on Python's path,
# nor the programs (ninja) of an environment that isn't activated on the shell's.
sys.path.insert(0, str(ROOT))
os.environ["PATH"] += os.pathsep + sysconfig.get_path("scripts")

import build_support  # noqa: E402

try:
    from torch.utils.cpp_extension import BuildExtension
except ModuleNotFoundError:  # metadata needs no torch; decide() below says what is missing
    from setuptools.command.build_ext import build_ext as BuildExtension


def sources(folder: str, but: str = "") -> list[str]:
    """What is to be compiled in a folder of csrc, less one folder in it."""
    paths = [p.relative_to(ROOT) for p in sorted((ROOT / "csrc" / folder).rglob("*.c*"))]
    return [
        path.as_posix()
        for path in paths
        if path.suffix in {".cpp", ".cu"} and not (but and path.is_relative_to(f"csrc/{but}"))
    ]


HOPPER = "cuda/convolution/sm90"

DEBUG = os.environ.get("DEBUG") == "1"
# 2.10: the oldest torch whose stable ABI has what we use. It compiles extensions as C++17, and so
# csrc is; newer ones take C++20.
TARGET_TORCH = "0x020a000000000000"


@functools.cache
def decide():
    """Checks the tools and decides about CUDA, once."""
    build_support.check_packages()
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    build_support.check_compiler(compiler, Path(sysconfig.get_path("include")))

    import torch

    decision = build_support.decide_cuda(
        os.environ,
        torch_version=torch.__version__,
        torch_cuda=torch.version.cuda,
        gpus=[
            "{}.{}".format(*torch.cuda.get_device_capability(i))
            for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        ],
        toolkit=lambda version: build_support.find_toolkit(
            build_support.toolkit_candidates(os.environ, sys.path, shutil.which), version
        ),
    )
    print(build_support.describe(decision), flush=True)
    return decision


class TaggedInfo(egg_info):
    """With SSPCAB_TAG_VERSION=1 the version says what the wheel needs: 0.1.0+cu13, 0.1.0+cpu.

    On request alone: whoever installs a source package from an index gets a build with the version
    in that package's file name, or pip refuses it.
    """

    def finalize_options(self):
        if os.environ.get("SSPCAB_TAG_VERSION") == "1":
            self.tag_build = build_support.version_tag(decide())
        super().finalize_options()


class BuildSspcab(BuildExtension):
    """Completes the extension before it is compiled."""

    def finalize_options(self):
        super().finalize_options()
        # Editable installs build in a throw-away folder; kept objects make a rebuild incremental.
        self.build_temp = str(
            ROOT / "build" / f"{platform.machine()}-{sys.implementation.cache_tag}"
        )

    def run(self):
        self.complete(self.extensions[0])
        super().run()

    def complete(self, extension):
        decision = decide()

        import pybind11
        import torch
        from torch.utils import cpp_extension

        facts = {
            "SSPCAB_VERSION": self.get_finalized_command("egg_info").egg_version,
            "SSPCAB_TORCH_VERSION": torch.__version__,
        }
        device = "cpu"
        libraries = ["c10", "torch_cpu", "torch"]
        if decision.toolkit:
            device = "cuda"
            # torch's own guess may be a wrapper's folder, without headers and libraries.
            cpp_extension.CUDA_HOME = os.environ["CUDA_HOME"] = str(decision.toolkit.home)
            os.environ["TORCH_CUDA_ARCH_LIST"] = decision.arch_list
            extension.sources += sources("cuda", but=HOPPER)
            if build_support.has_hopper(decision):
                extension.sources += sources(HOPPER)
                extension.define_macros.append(("SSPCAB_WITH_SM90A", None))
            libraries += ["c10_cuda", "torch_cuda"]
            extension.extra_objects.append(str(decision.toolkit.runtime))
            facts["SSPCAB_CUDA_VERSION"] = "{}.{}".format(*decision.toolkit.version)
            facts["SSPCAB_ARCH_LIST"] = decision.arch_list
            extension.define_macros += [("SSPCAB_WITH_CUDA", None), ("USE_CUDA", None)]

        extension.define_macros += [(name, f'"{text}"') for name, text in facts.items()]
        extension.define_macros.append(("TORCH_TARGET_VERSION", TARGET_TORCH))
        extension.include_dirs += [str(ROOT / "csrc"), pybind11.get_include()]
        extension.library_dirs += cpp_extension.library_paths(device)
        extension.libraries += libraries
        # As system headers, so that -Wall and -Wextra speak of this project's code alone.
        headers = cpp_extension.include_paths(device)
        archs = []
        if decision.toolkit:
            headers.append(str(build_support.cutlass_headers(os.environ)))
            # PyTorch adds none by itself where any argument, and so any path, has "arch" in it.
            archs = cpp_extension._get_cuda_arch_flags()
        system = [arg for path in headers for arg in ("-isystem", path)]
        optimise = ["-O0", "-g"] if DEBUG else ["-O3", "-g0"]
        prefix_map = f"-ffile-prefix-map={ROOT}/="  # no build path in messages or in the binary
        cxx = [
            *optimise,
            "-fno-math-errno",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
            "-Wno-unknown-pragmas",
            "-Wno-psabi",
            prefix_map,
        ]
        nvcc = [
            *optimise[:1],
            *archs,
            "--expt-relaxed-constexpr",  # geometry.h and CuTe are constexpr, for host and device
            "-Xptxas=-v",  # registers and spills, which benchmarks/kernel_report.py reads
            "-Xcompiler",
            f"-fvisibility=hidden,{prefix_map}",
        ]
        extension.extra_compile_args = {"cxx": cxx + system, "nvcc": nvcc + system}
        extension.extra_link_args = [] if DEBUG else ["-s"]


try:
    build_support.check_setuptools(setuptools.__version__)
    setup(
        ext_modules=[Extension("sspcab_cuda._C", sources=sources("", but="cuda"), language="c++")],
        cmdclass={"build_ext": BuildSspcab, "egg_info": TaggedInfo},
    )
except build_support.BuildError as error:
    raise SystemExit(f"sspcab: error: {error}") from error
