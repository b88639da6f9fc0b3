"""setup.py and the Makefile themselves, each in a process of its own; nothing is compiled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import build_support

ROOT = Path(__file__).resolve().parents[2]


def run_setup(
    *command: str, folder: Path = ROOT, before: str = "pass", **env: str
) -> subprocess.CompletedProcess[str]:
    """A folder's setup.py with a command, in a process of its own."""
    code = (
        f"import sys; {before}; import runpy; sys.argv = {['setup.py', '-q', *command]}; "
        "runpy.run_path('setup.py', run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


def test_setup_without_torch_names_the_command(tmp_path: Path) -> None:
    build = ("build_ext", "--build-lib", str(tmp_path))
    done = run_setup(*build, before="sys.modules['torch'] = None")
    assert done.returncode == 1
    assert "sspcab: error: the build environment lacks torch" in done.stderr
    assert "pip install --no-build-isolation -e ." in done.stderr


def test_setup_reports_a_contradiction(tmp_path: Path) -> None:
    build = ("build_ext", "--build-lib", str(tmp_path))
    done = run_setup(*build, FORCE_CUDA="1", SSPCAB_NO_CUDA="1")
    assert done.returncode == 1
    assert "sspcab: error: FORCE_CUDA=1 and SSPCAB_NO_CUDA=1 contradict" in done.stderr


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch knows no CUDA")
def test_architectures_reach_nvcc_whatever_the_path(tmp_path: Path) -> None:
    try:
        candidates = build_support.toolkit_candidates(os.environ, sys.path, shutil.which)
        build_support.find_toolkit(candidates, str(torch.version.cuda))
        build_support.cutlass_headers(os.environ)
    except build_support.BuildError as error:
        pytest.skip(f"a build with CUDA isn't possible here: {error}")
    folder = tmp_path / "search"  # PyTorch takes any "arch" in nvcc's arguments for one of its own
    for name in ("csrc", "sspcab_cuda"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("_C.*"))
    for name in ("setup.py", "build_support.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ninja = tmp_path / "ninja"
    ninja.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo 1.11; else cat build.ninja; exit 1; fi'
    )
    ninja.chmod(0o755)
    done = run_setup(
        "build_ext",
        folder=folder,
        PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        FORCE_CUDA="1",
        SSPCAB_NO_CUDA="",
        TORCH_CUDA_ARCH_LIST="8.0+PTX",
    )
    assert "sspcab: error: " not in done.stderr, done.stderr
    (flags,) = re.findall(r"^cuda_post_cflags = (.*)$", done.stdout, re.MULTILINE)
    targets = sorted(re.findall(r"-gencode=arch=compute_80,code=(\w+)", flags))
    assert targets == ["compute_80", "sm_80"], flags


@pytest.mark.parametrize(("tags", "local"), [("1", "+cpu"), ("", "")])
def test_version_is_tagged_on_request(tmp_path: Path, tags: str, local: str) -> None:
    info = ("egg_info", "--egg-base", str(tmp_path))
    done = run_setup(*info, SSPCAB_TAG_VERSION=tags, SSPCAB_NO_CUDA="1", FORCE_CUDA="")
    assert done.returncode == 0, done.stderr
    (metadata,) = tmp_path.glob("*.egg-info/PKG-INFO")
    assert re.search(rf"^Version: [\d.]+{re.escape(local)}$", metadata.read_text(), re.MULTILINE)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_names_everything_that_is_missing() -> None:
    command = ["make", "tools", "PYTHON=no-such-python", "CXX=no-such-compiler"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "missing: no-such-python (apt install python3)" in done.stderr
    assert "missing: a C++ compiler, no-such-compiler (apt install g++)" in done.stderr
