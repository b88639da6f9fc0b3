"""Part build: the extension for this GPU's architecture alone, on all cores, in place.

The parts that follow import it. CUTLASS's headers come from the wheel or from CUTLASS_PATH.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from .device import cuda_of
from .parts import Row, Task

ROOT = Path(__file__).parents[2]


def measure(task: Task) -> Iterator[Row]:
    cuda_of(task)
    architecture = "{}.{}".format(*torch.cuda.get_device_capability())
    environment = os.environ | {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": architecture}
    environment.setdefault("MAX_JOBS", str(os.cpu_count()))
    log = task.output / "build.log"
    start = time.monotonic()
    with log.open("w") as file:
        code = subprocess.call(
            [sys.executable, "setup.py", "-v", "build_ext", "--inplace"],
            cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    yield {
        "what": "build",
        "architecture": architecture,
        "jobs": int(environment["MAX_JOBS"]),
        "seconds": time.monotonic() - start,
    }
    logs = sorted(ROOT.glob("build/**/.ninja_log"), key=lambda path: path.stat().st_mtime)
    for name, seconds in compile_seconds(logs[-1]).items() if logs else ():
        yield {"what": "file", "name": name, "seconds": seconds}
    if code:
        errors = [line for line in log.read_text(errors="replace").splitlines() if "error" in line]
        raise RuntimeError(f"exit status {code}: {errors[0] if errors else 'see build.log'}")


def compile_seconds(log: Path) -> dict[str, float]:
    """Of each file, from ninja's log: start and end in milliseconds, time stamp, output, hash."""
    lines = [line.split("\t") for line in log.read_text().splitlines()[1:]]
    return {
        line[3].rpartition("csrc/")[2].removesuffix(".o"): (int(line[1]) - int(line[0])) / 1e3
        for line in lines
    }
