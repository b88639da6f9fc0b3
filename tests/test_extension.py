"""Loading the compiled module, and what it says of itself."""

from __future__ import annotations

import importlib
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
