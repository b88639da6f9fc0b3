"""Part sanitizer: NVIDIA's compute-sanitizer over one step of every arithmetic, tile and path.

Its tools run at once, each over a process that takes all the steps (this file as a program):
starting PyTorch under them takes longer than the steps.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from .device import cuda_of
from .parts import Row, Skip, Task

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
Step = tuple[tuple[int, ...], str, int]  # shape, dtype, config
# Tiles from large to small, and channels that the plain kernels take.
STEPS: list[Step] = [
    *(
        ((2, 64, 13, 11), dtype, config)
        for config in (0, 1, 2)
        for dtype in ("bfloat16", "float16", "float32", "tf32", "float64")
    ),
    *(((1, 18, 7, 6), dtype, 3) for dtype in ("bfloat16", "float32")),
]
QUICK = "--quick"
SPARED = 5  # seconds of the part's time, to write down what a tool that hangs has found
REFUSED = ("Device not supported", "not supported on", "Unable to find injection")


def measure(task: Task) -> Iterator[Row]:
    cuda_of(task)
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise Skip("compute-sanitizer isn't on PATH")
    # Exact bounds for each tensor.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    steps = [sys.executable, "-m", "benchmarks.gpu.sanitizer", *([QUICK] if task.quick else [])]

    def said_by(tool: str) -> str:
        command = [program, "--tool", tool, "--report-api-errors", "no",
                   "--kernel-regex", "kns=sspcab", *steps]  # fmt: skip
        # Into a file: the end of a pipe would be held open by what a killed tool leaves behind.
        log = task.output / f"{tool}.log"
        with log.open("w") as file:
            try:
                limit = max(1, task.left() - SPARED)
                subprocess.run(command, stdout=file, stderr=file, env=environment, timeout=limit)
            except subprocess.TimeoutExpired:
                print(f"not finished after {limit:.0f} s", file=file)
        return log.read_text(errors="replace")

    refused = []
    pool = ThreadPoolExecutor()
    running = {pool.submit(said_by, tool): tool for tool in TOOLS}
    for future in as_completed(running):
        tool, said = running[future], future.result()
        refusal = next((line for line in said.splitlines() if _refuses(line)), None)
        if refusal:
            refused.append(refusal.strip("= "))
            continue
        summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", said)
        findings = int(summary[1]) if summary else None
        taken = said.count("step of ")
        row: Row = {"what": "sanitizer", "tool": tool, "findings": findings, "steps": taken,
                    "finished": taken == len(steps_of(task.quick))}  # fmt: skip
        yield row if findings == 0 else row | {"text": said[-8000:]}
    if refused:
        raise Skip(refused[0])


def _refuses(line: str) -> bool:
    return any(text in line for text in REFUSED)


def steps_of(quick: bool) -> list[Step]:
    return STEPS[:1] if quick else STEPS


def take_steps(quick: bool) -> None:
    from ..one_step import main

    for shape, dtype, config in steps_of(quick):
        main(["--shape", *map(str, shape), "--dtype", dtype, "--config", str(config)])
        print(f"step of {shape} {dtype} {config}", flush=True)


if __name__ == "__main__":
    take_steps(QUICK in sys.argv)
