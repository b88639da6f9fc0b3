"""No operator touches what lies before or after a tensor: see guarded_memory.cpp.

PROBLEMS in the environment says how many are drawn, for each instruction set.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sspcab_cuda

from .test_capabilities import CAPABILITIES, ROOT

PROBLEMS = os.environ.get("PROBLEMS", "40")
CXX = os.environ.get("CXX", "c++").split()
TORCH = Path(torch.__file__).parent

READS_BEYOND = """
import ctypes, sys, torch
ctypes.CDLL(sys.argv[1]).guard_tensors(sys.argv[2] == "end")
x = torch.zeros(3, dtype=torch.float16)
print(x.sum().item(), flush=True)
ctypes.string_at(x.data_ptr() + (x.nbytes if sys.argv[2] == "end" else -1), 1)
"""


@pytest.fixture(scope="module")
def allocator(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not shutil.which(CXX[0]):
        pytest.skip(f"needs a C++ compiler, {CXX[0]}")
    library = str(tmp_path_factory.mktemp("guarded") / "guarded_memory.so")
    flags = ["-std=c++20", "-shared", "-fPIC", "-isystem", f"{TORCH}/include"]
    source = str(ROOT / "tests" / "scripts" / "guarded_memory.cpp")
    subprocess.run([*CXX, *flags, source, "-o", library, f"-L{TORCH}/lib", "-lc10"], check=True)
    return library


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", *command],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_random_problems(allocator: str, capability: str) -> None:
    best = str(sspcab_cuda.build_info()["cpu_capability"])
    if CAPABILITIES.index(capability) > CAPABILITIES.index(best):
        pytest.skip(f"this processor has {best}")
    options = ["--problems", PROBLEMS, "--guarded", allocator]
    done = run("-m", "tests.scripts.random_problems", *options, SSPCAB_CPU_CAPABILITY=capability)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"{last}\n{done.stderr[-4000:]}"
    assert done.stdout.count("\n") >= 2 * int(PROBLEMS)


@pytest.mark.parametrize("side", ["end", "begin"])
def test_one_byte_beyond_ends_the_process(allocator: str, side: str) -> None:
    done = run("-c", READS_BEYOND, allocator, side)
    assert done.stdout == "0.0\n" and done.returncode == -signal.SIGSEGV
