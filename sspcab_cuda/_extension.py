"""Loads the compiled module, which registers every operator, or says why it can't."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import torch  # also brings the libraries into the process that the compiled module needs

BUILD_COMMAND = "pip install --no-build-isolation -e ."


def load() -> ModuleType:
    """The compiled module `sspcab_cuda._C`.

    Raises:
        ImportError: it was not built, or was built for another Python, torch or machine; the
            message has the loader's own words and the command that builds it.
    """
    try:
        return importlib.import_module("sspcab_cuda._C")
    except ModuleNotFoundError as error:
        cause = f"is not built for this Python ({error})"
        original: ImportError = error
        here = Path(__file__).parent
        installed = _built_elsewhere(here)
        if installed is not None:
            raise ImportError(
                f"sspcab_cuda: the compiled module sspcab_cuda._C is not in {here}, which hides "
                f"the package installed in {installed}. Run Python from another folder than "
                f"{here.parent}, or build here too: {BUILD_COMMAND}"
            ) from error
    except ImportError as error:
        cause = f"can't be loaded with torch {torch.__version__} ({error})"
        original = error
    raise ImportError(
        f"sspcab_cuda: the compiled module sspcab_cuda._C {cause}. "
        f"Build it in the project's folder: {BUILD_COMMAND}"
    ) from original


def _built_elsewhere(here: Path) -> Path | None:
    """Another folder of this package, with a compiled module, that Python would find without here:
    as in a clone, after pip install without -e."""
    folders = (Path(entry, "sspcab_cuda").resolve() for entry in sys.path)
    return next((f for f in folders if f != here.resolve() and any(f.glob("_C.*"))), None)


_C = load()


def build_info() -> dict[str, object]:
    """How the compiled module was built, and what it uses on this machine.

    Returns:
        version (str), torch (str, the version it was compiled against), compiler (str),
        cuda (bool), cuda_version (str or None), arch_list (list of str: the CUDA architectures),
        cpu_capability (str: the instruction set that the CPU kernels use here).
    """
    return dict(_C.build_info())
