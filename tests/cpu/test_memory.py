"""Scratch memory on a CPU: of a group of samples, however many there are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: freed memory that is used again would not be seen. The few samples come
# first, for the same reason.
MEASURE = """
import json, sys, torch
from sspcab_cuda import ops
from tests.helpers.cases import Case, arguments, leaves

def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name))

scratch = []
for samples in (128, 1024):  # of 64 KiB, where 8 MiB go together
    x, *parameters = arguments(Case(samples, 256, 8, 8))
    x = x.contiguous(memory_format=getattr(torch, sys.argv[2]))
    if sys.argv[1] == "masked_conv2d":
        call = lambda: ops.masked_conv2d(x, *parameters[:8], 1, True)
    elif sys.argv[1] == "sspcab_inference":
        call = lambda: ops.sspcab_inference(x, *parameters, 1, True, True)
    else:
        y = torch.rand_like(x)
        needs = [True] * 6
        call = lambda: ops.masked_conv2d_backward(y, x, y, parameters[:4], 1, True, needs)
    open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
    before = memory("VmRSS")
    results = call()
    after = memory("VmHWM")
    tensors = [results] if isinstance(results, torch.Tensor) else results
    scratch.append(after - before - sum(t.untyped_storage().nbytes() for t in tensors))
print(json.dumps(scratch))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("layout", ["contiguous_format", "channels_last"])
@pytest.mark.parametrize("name", ["masked_conv2d", "masked_conv2d_backward", "sspcab_inference"])
def test_scratch_does_not_grow_with_the_batch(name: str, layout: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, name, layout],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    few, many = json.loads(run.stdout)
    assert few > 1 << 19  # else this would measure nothing
    assert many < few + (16 << 20)  # a hundred and more, if it grew
