"""Part sanitizer: NVIDIA's compute-sanitizer over one step of every arithmetic, tile and path."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from .device import cuda_of
from .parts import Row, Skip, Task

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Shape, dtype, config: tiles from large to small, and channels that the plain kernels take.
STEPS = [
    *(((2, 64, 13, 11), dtype, config) for config in (0, 1, 2)
      for dtype in ("bfloat16", "float16", "float32", "tf32", "float64")),
    *(((1, 18, 7, 6), dtype, 3) for dtype in ("bfloat16", "float32")),
]  # fmt: skip
REFUSED = ("Device not supported", "not supported on", "Unable to find injection")


def measure(task: Task) -> Iterator[Row]:
    cuda_of(task)
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise Skip("compute-sanitizer isn't on PATH")
    # Exact bounds for each tensor.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for tool in TOOLS:
        for shape, dtype, config in STEPS[:1] if task.quick else STEPS:
            step = [sys.executable, "-m", "benchmarks.one_step", "--shape", *map(str, shape),
                    "--dtype", dtype, "--config", str(config)]  # fmt: skip
            command = [program, "--tool", tool, "--kernel-regex", "kns=sspcab", *step]
            run = subprocess.run(command, capture_output=True, text=True, env=environment)
            said = run.stdout + run.stderr
            refusal = next((line for line in said.splitlines() if _refuses(line)), None)
            if refusal:
                raise Skip(refusal.strip("= "))
            summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", said)
            findings = int(summary[1]) if summary else None
            row: Row = {"what": "sanitizer", "tool": tool, "shape": list(shape), "dtype": dtype,
                        "config": config, "findings": findings}  # fmt: skip
            yield row if findings == 0 else row | {"text": said[-4000:]}


def _refuses(line: str) -> bool:
    return any(text in line for text in REFUSED)
