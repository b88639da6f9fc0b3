"""The decisions of the build and their messages, with invented machines."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import build_support
from build_support import BuildError, CudaDecision, Toolkit, ToolkitMissing

ROOT = Path(__file__).resolve().parents[2]
ARCHS = frozenset({"7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0"})
RELEASE_13 = "Cuda compilation tools, release 13.1, V13.1.0"
CODES_13 = "sm_75\nsm_80\nsm_100\nsm_120\n"


def make_toolkit(home: Path, *, lib: str = "lib64/libcudart.so", without: str = "") -> Path:
    """A folder with the files of a CUDA toolkit, less one."""
    for name in ("include/cuda_runtime.h", "bin/nvcc", lib):
        if name != without:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).touch()
    return home


def toolkit(major: int = 13, home: str = "/cuda", archs: frozenset[str] = ARCHS) -> Toolkit:
    return Toolkit(Path(home), Path(home, "lib64/libcudart.so"), (major, 0), archs)


def decide(
    env: dict[str, str] | None = None,
    *,
    torch_cuda: str | None = "13.2",
    gpus: tuple[str, ...] = (),
    find: Callable[[str], Toolkit] = lambda version: toolkit(),
) -> CudaDecision:
    return build_support.decide_cuda(
        env or {},
        torch_version="2.15.0",
        torch_cuda=torch_cuda,
        gpus=gpus,
        toolkit=find,
    )


def no_toolkit(version: str) -> Toolkit:
    raise ToolkitMissing("no usable CUDA toolkit: /cuda lacks bin/nvcc")


# The tools of the environment


def test_missing_packages_are_named_together_with_the_command() -> None:
    with pytest.raises(BuildError, match=r"lacks torch, pybind11, ninja\.") as caught:
        build_support.check_packages(found=lambda name: None, which=lambda name: None)
    assert build_support.INSTALL_COMMAND in str(caught.value)
    with pytest.raises(BuildError, match=r"lacks torch\."):
        build_support.check_packages(found=lambda name: name != "torch" or None, which=str)
    build_support.check_packages(found=lambda name: name, which=lambda name: name)


def test_an_old_setuptools() -> None:
    """What a fresh Python 3.11 has would say that project.license is wrong."""
    with pytest.raises(BuildError, match=r"must be 77\.0\.3 or newer; got 65\.5\.0: pip install "):
        build_support.check_setuptools("65.5.0")
    for version in ("77.0.3", "78.1", "82.0.0.post1"):
        build_support.check_setuptools(version)


def test_one_install_command() -> None:
    packages = '"setuptools>=77.0.3" ninja pybind11'
    assert packages in build_support.PACKAGES_COMMAND
    for name in ("README.md", "docs/installation.md"):
        assert packages in (ROOT / name).read_text()


def test_one_oldest_torch() -> None:
    """What the binary's interface is, what pip asks for, and what the documentation promises."""
    target = re.search(r'^TARGET_TORCH = "0x(..)(..)0{12}"$', (ROOT / "setup.py").read_text(), re.M)
    assert target
    oldest = ".".join(str(int(part, 16)) for part in target.groups())
    # tests/scripts/fresh.sh reads this line
    assert f'\ndependencies = ["torch>={oldest}"]\n' in (ROOT / "pyproject.toml").read_text()
    readme = (ROOT / "README.md").read_text()
    assert f"torch ≥ {oldest}" in readme and f"| torch | ≥ {oldest} |" in readme


def test_missing_compiler_and_headers(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no C\+\+ compiler: 'ccache' is not on PATH"):
        build_support.check_compiler("ccache g++", tmp_path, which=lambda name: None)
    with pytest.raises(BuildError, match=r"has no Python\.h.*python3-dev"):
        build_support.check_compiler("g++", tmp_path, which=lambda name: name)
    (tmp_path / "Python.h").touch()
    build_support.check_compiler("g++", tmp_path, which=lambda name: name)


# The CUDA toolkit


def test_candidates_are_ordered_and_include_the_folder_beside_a_wrapper(tmp_path: Path) -> None:
    wrapper, real = tmp_path / "prefix/bin/nvcc", make_toolkit(tmp_path / "real") / "bin/nvcc"
    wrapper.parent.mkdir(parents=True)
    wrapper.symlink_to(real)
    (tmp_path / "site/nvidia/cu13").mkdir(parents=True)
    (tmp_path / "site/nvidia/cudnn").mkdir()
    found = build_support.toolkit_candidates(
        {"CUDA_HOME": "/a", "CUDA_PATH": "/b"}, [str(tmp_path / "site")], lambda name: str(wrapper)
    )
    assert found == [
        Path("/a"),
        Path("/b"),
        tmp_path / "prefix",
        tmp_path / "prefix/cuda",
        tmp_path / "real",
        tmp_path / "real/cuda",
        Path("/usr/local/cuda"),
        tmp_path / "site/nvidia/cu13",
    ]


def test_candidates_without_nvcc_have_no_repetition() -> None:
    env = {"CUDA_HOME": "/usr/local/cuda", "CUDA_PATH": ""}
    assert build_support.toolkit_candidates(env, [], lambda name: None) == [Path("/usr/local/cuda")]


@pytest.mark.parametrize("part", ["include/cuda_runtime.h", "bin/nvcc", "lib64/libcudart.so"])
def test_unusable_toolkit_says_what_it_lacks(tmp_path: Path, part: str) -> None:
    home = make_toolkit(tmp_path, without=part)
    assert build_support.missing_from_toolkit(home) == [part]
    with pytest.raises(ToolkitMissing, match=re.escape(f"{home} lacks {part}")) as caught:
        build_support.find_toolkit([home], "13.2")
    assert "Set CUDA_HOME" in str(caught.value)


@pytest.mark.parametrize("lib", ["lib64/libcudart.so", "lib/libcudart.so", "lib/libcudart.so.13"])
def test_runtime_library_is_found_in_either_folder(tmp_path: Path, lib: str) -> None:
    assert build_support.runtime_library(make_toolkit(tmp_path, lib=lib)) == tmp_path / lib


def test_first_toolkit_of_torchs_major_version_is_taken(tmp_path: Path) -> None:
    broken = make_toolkit(tmp_path / "broken", without="bin/nvcc")
    old, new = make_toolkit(tmp_path / "old"), make_toolkit(tmp_path / "new")

    def read(home: Path) -> Toolkit:
        return toolkit(12 if home == old else 13, str(home))

    assert build_support.find_toolkit([broken, old, new], "13.2", read).home == new
    with pytest.raises(
        BuildError, match=r"major versions differ: torch is built for CUDA 13\.2"
    ) as e:
        build_support.find_toolkit([broken, old], "13.2", read)
    assert f"{old} is CUDA 12.0" in str(e.value) and build_support.CPU_ONLY in str(e.value)
    assert not isinstance(e.value, ToolkitMissing)


def test_nvcc_is_asked_for_version_and_targets(tmp_path: Path) -> None:
    def run(command: list[str], text: bool) -> str:
        return RELEASE_13 if command[1] == "--version" else CODES_13

    read = build_support.read_toolkit(make_toolkit(tmp_path), run)
    assert read.version == (13, 1)
    assert read.archs == {"7.5", "8.0", "10.0", "12.0"}


def test_nvcc_that_does_not_answer(tmp_path: Path) -> None:
    home = make_toolkit(tmp_path)
    with pytest.raises(BuildError, match="names no release"):
        build_support.read_toolkit(home, lambda command, text: "")
    with pytest.raises(BuildError, match="bin/nvcc does not run"):  # the empty file that it is
        build_support.read_toolkit(home)


def test_release_architectures_are_cut_to_what_nvcc_knows() -> None:
    assert (
        build_support.release_arch_list(toolkit()) == "7.5;8.0;8.6;8.7;8.9;9.0;10.0;11.0;12.0+PTX"
    )
    older = toolkit(archs=frozenset({"7.0", "7.5", "8.0", "9.0"}))
    assert build_support.release_arch_list(older) == "7.5;8.0;9.0+PTX"
    with pytest.raises(BuildError, match=r"targets none of 7\.5.*TORCH_CUDA_ARCH_LIST"):
        build_support.release_arch_list(toolkit(archs=frozenset({"5.0"})))


def test_hopper_s_own_instructions_are_built_wherever_hopper_is() -> None:
    lists = {
        "8.0;9.0;12.0+PTX": "8.0;9.0a;12.0+PTX",
        "9.0": "9.0a",
        "9.0a+PTX": "9.0a+PTX",
        "9.0+PTX": "9.0a;9.0+PTX",  # the PTX is for what comes after
        "9.0;9.0a": "9.0a",
    }
    for asked, built in lists.items():
        assert build_support.with_hopper(asked) == built
        assert build_support.has_hopper(CudaDecision("", toolkit(), built))
    assert not build_support.has_hopper(CudaDecision("", toolkit(), "8.0;8.9;10.0+PTX"))
    assert not build_support.has_hopper(CudaDecision(""))


@pytest.mark.parametrize(
    ("asked", "built"),
    [
        ("Hopper", "9.0a;9.0+PTX"),
        ("Hopper+PTX", "9.0a;9.0+PTX"),
        ("Ampere Hopper", "8.0;8.6+PTX;9.0a;9.0+PTX"),
        ("Ampere+Tegra;Blackwell+Tegra+PTX", "8.7;11.0+PTX"),
        ("Turing;Ada;8.7", "7.5+PTX;8.9+PTX;8.7"),
        ("Blackwell", "10.0;10.3;12.0;12.1+PTX"),
        ("native", "8.6;9.0a;9.0+PTX"),
        ("8.0; 9.0;", "8.0;9.0a"),
        ("Unheard", "Unheard"),  # PyTorch says that it doesn't know it
    ],
)
def test_names_of_architectures(asked: str, built: str) -> None:
    env = {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": asked}
    assert decide(env, gpus=("9.0", "8.6", "9.0")).arch_list == built


def test_a_blank_list_is_none() -> None:
    env = {"FORCE_CUDA": "1"}
    assert decide(env | {"TORCH_CUDA_ARCH_LIST": " "}) == decide(env)


def test_native_needs_a_gpu() -> None:
    env = {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "8.0;native"}
    with pytest.raises(BuildError, match="names native, but no GPU is visible"):
        decide(env, gpus=())


def test_names_of_architectures_are_pytorch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of the same architectures, whether expanded here or there."""
    flags = pytest.importorskip("torch.utils.cpp_extension")._get_cuda_arch_flags
    for name in build_support.NAMED_ARCHS:
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", name)
        by_name = flags()
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", build_support.expanded(name, ()))
        assert flags() == by_name


def test_cutlass_headers_in_a_folder_of_one_s_own(tmp_path: Path) -> None:
    """CUTLASS_PATH names a checkout or its headers, and goes before the wheel."""
    env = {"CUTLASS_PATH": str(tmp_path)}
    with pytest.raises(BuildError, match=r"has no include/cute/tensor\.hpp; unset it, or pip"):
        build_support.cutlass_headers(env)
    for folder in (tmp_path, tmp_path / "include"):
        (folder / "cute").mkdir(parents=True)
        (folder / "cute" / "tensor.hpp").touch()
        assert build_support.cutlass_headers(env) == folder


def test_cutlass_headers_are_found_or_asked_for(tmp_path: Path) -> None:
    header = tmp_path / "source" / "include" / "cute" / "tensor.hpp"
    spec = ModuleSpec("cutlass_library", None)
    spec.submodule_search_locations = [str(tmp_path)]
    for found in ({}, {"cutlass_library": spec}):
        with pytest.raises(BuildError, match="pip install --no-deps nvidia-cutlass"):
            build_support.cutlass_headers({}, found.get)
    header.parent.mkdir(parents=True)
    header.touch()
    assert build_support.cutlass_headers({}, lambda name: spec) == tmp_path / "source" / "include"


# The decision


def test_a_visible_gpu_builds_cuda() -> None:
    decision = decide(gpus=("9.0",))
    assert decision.toolkit == toolkit() and decision.arch_list.endswith("12.0+PTX")
    assert build_support.describe(decision) == (
        "sspcab: building for CPU and CUDA (a GPU is visible), toolkit 13.0 at /cuda, "
        "architectures 7.5;8.0;8.6;8.7;8.9;9.0a;10.0;11.0;12.0+PTX"
    )


def test_force_cuda_builds_without_a_gpu_for_the_given_architectures() -> None:
    decision = decide({"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "8.0 9.0+PTX"})
    assert decision == CudaDecision("FORCE_CUDA=1", toolkit(), "8.0;9.0a;9.0+PTX")


def test_no_cuda_is_obeyed_quietly() -> None:
    decision = decide({"SSPCAB_NO_CUDA": "1"}, gpus=("9.0",), find=no_toolkit)
    assert decision == CudaDecision("SSPCAB_NO_CUDA=1")
    line = "sspcab: building for CPU only: SSPCAB_NO_CUDA=1"
    assert build_support.describe(decision) == line


def test_a_torch_without_cuda_is_no_reason_to_shout() -> None:
    decision = decide(torch_cuda=None, gpus=("9.0",))
    assert decision == CudaDecision("torch 2.15.0 is built without CUDA")


def test_no_gpu_leaves_cuda_out_loudly() -> None:
    decision = decide()
    assert decision.toolkit is None and decision.loud
    text = build_support.describe(decision)
    assert "WITHOUT CUDA" in text and "no GPU is visible; FORCE_CUDA=1" in text
    assert "torch 2.15.0 is built for CUDA 13.2" in text


def test_missing_toolkit_is_loud_and_an_error_when_forced() -> None:
    decision = decide(gpus=("9.0",), find=no_toolkit)
    assert decision.toolkit is None and decision.loud and "/cuda lacks bin/nvcc" in decision.reason
    with pytest.raises(ToolkitMissing, match="/cuda lacks bin/nvcc"):
        decide({"FORCE_CUDA": "1"}, find=no_toolkit)


def test_version_tag_names_the_cuda_major_version() -> None:
    assert build_support.version_tag(decide(gpus=("9.0",))) == "+cu13"
    assert build_support.version_tag(decide()) == "+cpu"


@pytest.mark.parametrize("gpus", [(), ("9.0",)])
def test_force_cuda_that_can_not_be_satisfied(gpus: tuple[str, ...]) -> None:
    env = {"FORCE_CUDA": "1"}
    with pytest.raises(BuildError, match=r"FORCE_CUDA=1, but torch 2\.15\.0 is built without CUDA"):
        decide(env, torch_cuda=None, gpus=gpus)
    with pytest.raises(BuildError, match="contradict each other"):
        decide({**env, "SSPCAB_NO_CUDA": "1"}, gpus=gpus)
