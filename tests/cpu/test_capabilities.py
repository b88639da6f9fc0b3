"""The kernels for lesser processors, in a process that asks for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sspcab_cuda

ROOT = Path(__file__).resolve().parents[2]
CAPABILITIES = ["baseline", "avx2", "avx512"]

PROGRAM = """
import sys, pytest, sspcab_cuda
capability = sspcab_cuda.build_info()["cpu_capability"]
assert capability == sys.argv[1], capability
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@pytest.mark.parametrize("capability", CAPABILITIES[:2])
def test_accuracy_and_exact_sums(capability: str) -> None:
    best = str(sspcab_cuda.build_info()["cpu_capability"])
    if CAPABILITIES.index(capability) >= CAPABILITIES.index(best):
        pytest.skip(f"the other tests run with {best}")
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM,
            capability,
            "tests/operators/test_numerics.py",
            "tests/operators/test_forward.py",
            "tests/operators/test_backward.py",
            "-k",
            "test_exact_sums or (test_block and float32 and not parameters)",
        ],
        cwd=ROOT,
        env={**os.environ, "SSPCAB_CPU_CAPABILITY": capability, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
