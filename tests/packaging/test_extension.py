"""Loading the compiled module, and what it says of itself."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import sspcab_cuda
from sspcab_cuda import _extension

COMMAND = "pip install --no-build-isolation -e ."


@pytest.mark.parametrize(
    ("original", "said"),
    [
        (ModuleNotFoundError("No module named 'sspcab_cuda._C'"), "is not built for this Python"),
        (
            ImportError("_C.so: undefined symbol: aoti"),
            f"can't be loaded with torch {torch.__version__}",
        ),
    ],
)
def test_unloadable_module_names_cause_and_command(
    monkeypatch: pytest.MonkeyPatch, original: ImportError, said: str
) -> None:
    def fail(name: str) -> ModuleType:
        raise original

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ImportError) as caught:
        _extension.load()
    for part in ("sspcab_cuda._C", said, str(original), COMMAND):
        assert part in str(caught.value)
    assert caught.value.__cause__ is original
    assert not isinstance(caught.value, ModuleNotFoundError)


def test_a_clone_that_hides_the_installed_package(tmp_path: Path) -> None:
    """After pip install without -e, in the clone."""
    clone, installed = tmp_path / "clone", tmp_path / "site"
    package = Path(sspcab_cuda.__file__).parent
    shutil.copytree(package, clone / "sspcab_cuda", ignore=shutil.ignore_patterns("_C.*"))
    (installed / "sspcab_cuda").mkdir(parents=True)
    (installed / "sspcab_cuda" / "_C.abi.so").touch()
    # Without the finder of an editable install, which this environment may have.
    code = (
        "import sys; "
        "sys.meta_path[:] = [f for f in sys.meta_path if '_frozen' in str(f.__module__)]; "
        "import sspcab_cuda"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    run = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert (
        f"{clone / 'sspcab_cuda'}, which hides the package installed in {installed}" in run.stderr
    )
    assert f"Run Python from another folder than {clone}, or build here too" in run.stderr


def test_build_info_describes_this_build() -> None:
    info = sspcab_cuda.build_info()
    assert set(info) == {
        "version", "torch", "compiler", "cuda", "cuda_version", "arch_list", "cpu_capability",
    }  # fmt: skip
    assert info["version"] == sspcab_cuda.__version__
    assert isinstance(info["cuda"], bool)
    assert (info["cuda_version"] is not None) == info["cuda"] == bool(info["arch_list"])
    assert info["cpu_capability"] in ("avx512", "avx2", "baseline")
    assert str(info["compiler"]).startswith(("gcc ", "clang "))


def test_build_info_is_a_copy() -> None:
    sspcab_cuda.build_info().clear()
    assert sspcab_cuda.build_info()
