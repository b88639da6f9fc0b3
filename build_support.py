"""What setup.py decides: which tools are there, and whether the CUDA part is built.

Imports neither torch nor setuptools, so that every decision can be tested without building.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SETUPTOOLS = "77.0.3"  # the first that knows the licence's form in pyproject.toml
PACKAGES_COMMAND = f'pip install torch "setuptools>={SETUPTOOLS}" ninja pybind11'
INSTALL_COMMAND = "pip install --no-build-isolation -e ."
CPU_ONLY = "SSPCAB_NO_CUDA=1 builds for CPU only"
# Of 8.7 and 11.0 (Jetson) nothing promises that they run the code of other devices of their series.
RELEASE_ARCHS = ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "11.0", "12.0")
# PyTorch's names for architectures, those that its newest CUDA still knows.
NAMED_ARCHS = {
    "Turing": "7.5+PTX",
    "Ampere": "8.0;8.6+PTX",
    "Ampere+Tegra": "8.7",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0;10.3;12.0;12.1+PTX",
    "Blackwell+Tegra": "11.0",
}

Version = tuple[int, int]
Which = Callable[[str], "str | None"]


class BuildError(Exception):
    """The build can't go on; the text says what is missing and what to do."""


class ToolkitMissing(BuildError):
    """No candidate is a usable CUDA toolkit."""


@dataclass(frozen=True)
class Toolkit:
    """A usable CUDA toolkit; `archs` is what its nvcc can target."""

    home: Path
    runtime: Path
    version: Version
    archs: frozenset[str]


@dataclass(frozen=True)
class CudaDecision:
    """Whether the CUDA part is built, why, and with what.

    `arch_list` is separated by semicolons; `loud` marks an omission to notice.
    """

    reason: str
    toolkit: Toolkit | None = None
    arch_list: str = ""
    loud: bool = False


def check_packages(found: Callable[[str], object] = find_spec, which: Which = shutil.which) -> None:
    """Raise BuildError naming every Python package that the build needs and lacks."""
    missing = [name for name in ("torch", "pybind11") if not found(name)]
    if not which("ninja"):
        missing.append("ninja")
    if missing:
        raise BuildError(
            f"the build environment lacks {', '.join(missing)}. The extension is compiled against "
            "the torch that will load it, so it is built in your environment, not in an isolated "
            f"one: {PACKAGES_COMMAND}, then {INSTALL_COMMAND}"
        )


def check_setuptools(version: str) -> None:
    """Raise BuildError if setuptools can't read pyproject.toml: it would say `project.license`."""
    found, needed = (tuple(map(int, re.findall(r"\d+", v)[:3])) for v in (version, SETUPTOOLS))
    if found < needed:
        raise BuildError(
            f"setuptools must be {SETUPTOOLS} or newer; got {version}: {PACKAGES_COMMAND}, then "
            f"{INSTALL_COMMAND}"
        )


def check_compiler(compiler: str, include: Path, which: Which = shutil.which) -> None:
    """Raise BuildError if the C++ compiler's command or Python's headers are not there."""
    if not which(compiler.split()[0]):
        raise BuildError(
            f"no C++ compiler: {compiler.split()[0]!r} is not on PATH. Install one (Debian: apt "
            "install g++) or name yours in CXX"
        )
    if not (include / "Python.h").is_file():
        raise BuildError(
            f"no Python headers: {include} has no Python.h. Install them (Debian: apt install "
            "python3-dev)"
        )


def cutlass_headers(env: Mapping[str, str], found: Callable[[str], object] = find_spec) -> Path:
    """The folder with CuTe's headers, that of CUTLASS_PATH or the wheel's; BuildError says how to
    get it."""
    named = env.get("CUTLASS_PATH")
    if named:
        candidates = [Path(named) / "include", Path(named)]
    else:
        locations = getattr(found("cutlass_library"), "submodule_search_locations", None) or ()
        candidates = [Path(location) / "source" / "include" for location in locations]
    for headers in candidates:
        if (headers / "cute" / "tensor.hpp").is_file():
            return headers
    missing = f"CUTLASS_PATH={named} has no include/cute/tensor.hpp; unset it, or " if named else ""
    raise BuildError(
        f"the CUDA part needs CUTLASS's headers: {missing}pip install --no-deps nvidia-cutlass "
        f"(what the package itself requires is not needed), then {INSTALL_COMMAND}; {CPU_ONLY}"
    )


def toolkit_candidates(
    env: Mapping[str, str], site_dirs: Iterable[str], which: Which
) -> list[Path]:
    """Folders that may hold a CUDA toolkit, most explicit first, without repetition."""
    candidates = [Path(env[name]) for name in ("CUDA_HOME", "CUDA_PATH") if env.get(name)]
    nvcc = which("nvcc")
    for path in (Path(nvcc), Path(nvcc).resolve()) if nvcc else ():
        # Some distributions put a wrapper in <prefix>/bin and the toolkit in <prefix>/cuda.
        candidates += [path.parents[1], path.parents[1] / "cuda"]
    candidates.append(Path("/usr/local/cuda"))
    for site in site_dirs:
        candidates += sorted(Path(site).glob("nvidia/cu[0-9]*"), reverse=True)
    return list(dict.fromkeys(candidates))


def runtime_library(home: Path) -> Path | None:
    """The shared CUDA runtime to link; pip's toolkit ships it under its versioned name alone."""
    for folder in (home / "lib64", home / "lib"):
        for pattern in ("libcudart.so", "libcudart.so.*"):
            for path in sorted(folder.glob(pattern)):
                return path
    return None


def missing_from_toolkit(home: Path) -> list[str]:
    """What `home` lacks to be a usable CUDA toolkit; empty if nothing."""
    files = ("include/cuda_runtime.h", "bin/nvcc")
    missing = [file for file in files if not (home / file).is_file()]
    return missing if runtime_library(home) else [*missing, "lib64/libcudart.so"]


def read_toolkit(home: Path, run: Callable[..., str] = subprocess.check_output) -> Toolkit:
    """Ask nvcc of a usable toolkit for its version and targets."""
    nvcc, runtime = str(home / "bin" / "nvcc"), runtime_library(home)
    assert runtime is not None
    try:
        release = re.search(r"release (\d+)\.(\d+)", run([nvcc, "--version"], text=True))
        codes = re.findall(r"sm_(\d+)(\d)\b", run([nvcc, "--list-gpu-code"], text=True))
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{nvcc} does not run: {error}") from error
    if not release:
        raise BuildError(f"{nvcc} --version names no release")
    version = (int(release[1]), int(release[2]))
    return Toolkit(home, runtime, version, frozenset(".".join(code) for code in codes))


def find_toolkit(
    candidates: Sequence[Path], torch_cuda: str, read: Callable[[Path], Toolkit] = read_toolkit
) -> Toolkit:
    """The first usable toolkit of torch's CUDA major version; BuildError says what each lacks."""
    lacking: list[str] = []
    other_major: list[str] = []
    for home in candidates:
        missing = missing_from_toolkit(home)
        if missing:
            lacking.append(f"{home} lacks {', '.join(missing)}")
            continue
        toolkit = read(home)
        if toolkit.version[0] == int(torch_cuda.split(".")[0]):
            return toolkit
        other_major.append(f"{home} is CUDA {toolkit.version[0]}.{toolkit.version[1]}")
    if other_major:
        raise BuildError(
            f"CUDA major versions differ: torch is built for CUDA {torch_cuda}, but "
            f"{'; '.join(other_major)}. Install a toolkit of torch's major version or a torch of "
            f"the toolkit's; {CPU_ONLY}"
        )
    raise ToolkitMissing(
        f"no usable CUDA toolkit: {'; '.join(lacking)}. Set CUDA_HOME to a folder with include, "
        f"bin/nvcc and lib64; {CPU_ONLY}"
    )


def release_arch_list(toolkit: Toolkit) -> str:
    """The architectures of a release that this nvcc knows, and PTX of the newest."""
    archs = [arch for arch in RELEASE_ARCHS if arch in toolkit.archs]
    if not archs:
        raise BuildError(
            f"nvcc of {toolkit.home} targets none of {', '.join(RELEASE_ARCHS)}; set "
            "TORCH_CUDA_ARCH_LIST"
        )
    return ";".join(archs) + "+PTX"


def decide_cuda(
    env: Mapping[str, str],
    *,
    torch_version: str,
    torch_cuda: str | None,
    gpus: Sequence[str],
    toolkit: Callable[[str], Toolkit],
) -> CudaDecision:
    """Decide whether the CUDA part is built.

    Args:
        env: FORCE_CUDA, SSPCAB_NO_CUDA and TORCH_CUDA_ARCH_LIST are read.
        torch_version, torch_cuda: torch's version and the CUDA version it was built for, if any.
        gpus: compute capabilities of the GPUs that torch sees now.
        toolkit: finds a toolkit for a CUDA version, or raises ToolkitMissing.

    Raises:
        BuildError: FORCE_CUDA=1 can't be satisfied, or torch and toolkit disagree.
    """
    forced, forbidden = env.get("FORCE_CUDA") == "1", env.get("SSPCAB_NO_CUDA") == "1"
    if forced and forbidden:
        raise BuildError("FORCE_CUDA=1 and SSPCAB_NO_CUDA=1 contradict each other; unset one")
    if forbidden:
        return CudaDecision("SSPCAB_NO_CUDA=1")

    if torch_cuda is None:
        obstacle = f"torch {torch_version} is built without CUDA"
        if forced:
            raise BuildError(f"FORCE_CUDA=1, but {obstacle}")
        return CudaDecision(obstacle)

    torch_has = f"torch {torch_version} is built for CUDA {torch_cuda}"
    if not (forced or gpus):
        return CudaDecision(
            f"{torch_has}, but no GPU is visible; FORCE_CUDA=1 builds the CUDA part all the same",
            loud=True,
        )
    try:
        found = toolkit(torch_cuda)
    except ToolkitMissing as error:
        if forced:
            raise
        return CudaDecision(f"{torch_has} and a GPU is visible, but {error}", loud=True)
    asked = expanded(env.get("TORCH_CUDA_ARCH_LIST", ""), gpus)
    arch_list = with_hopper(asked or release_arch_list(found))
    return CudaDecision("FORCE_CUDA=1" if forced else "a GPU is visible", found, arch_list)


def expanded(arch_list: str, gpus: Sequence[str]) -> str:
    """A TORCH_CUDA_ARCH_LIST with numbers for PyTorch's names, `native` among them."""
    archs: list[str] = []
    for asked in arch_list.replace(";", " ").split():
        name = asked.removesuffix("+PTX")
        if asked == "native":
            if not gpus:
                raise BuildError("TORCH_CUDA_ARCH_LIST names native, but no GPU is visible")
            numbers = ";".join(sorted(set(gpus), key=float)) + "+PTX"
        else:
            numbers = NAMED_ARCHS.get(name, name)
        wants_ptx = asked != name and not numbers.endswith("+PTX")
        archs.append(numbers + "+PTX" if wants_ptx else numbers)
    return ";".join(archs)


def with_hopper(arch_list: str) -> str:
    """The list with 9.0a, which has instructions that 9.0 lacks, wherever it has 9.0.

    9.0 itself stays where its PTX is asked for: that of 9.0a runs on no later device.
    """
    archs: list[str] = []
    for arch in arch_list.split(";"):
        archs += {"9.0": ["9.0a"], "9.0+PTX": ["9.0a", "9.0+PTX"]}.get(arch, [arch])
    return ";".join(dict.fromkeys(archs))


def has_hopper(decision: CudaDecision) -> bool:
    """Whether kernels for Hopper are built."""
    return any(arch.startswith("9.0a") for arch in decision.arch_list.split(";"))


def version_tag(decision: CudaDecision) -> str:
    """The local version of a wheel: the CUDA major version that it needs at run time, or cpu."""
    return f"+cu{decision.toolkit.version[0]}" if decision.toolkit else "+cpu"


def describe(decision: CudaDecision) -> str:
    """The lines that the build prints about its decision."""
    if decision.toolkit:
        major, minor = decision.toolkit.version
        return (
            f"sspcab: building for CPU and CUDA ({decision.reason}), toolkit {major}.{minor} at "
            f"{decision.toolkit.home}, architectures {decision.arch_list}"
        )
    line = f"sspcab: building for CPU only: {decision.reason}"
    if not decision.loud:
        return line
    return f"sspcab: {'*' * 24} WITHOUT CUDA {'*' * 24}\n{line}\nsspcab: {'*' * 62}"
