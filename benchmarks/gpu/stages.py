"""Part stages: the time of each kernel of a training step beside its floor.

The floor of a stage is its arithmetic at the rate of the measured matrix product, or the images
that it must move (docs/kernels.md) at the rate of the measured copy, whichever takes longer.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import sspcab_cuda

from ..cases import Case
from ..kernel_report import HOPPER, PEAKS, WGMMA, Kernel, ReportError, stage_of
from ..rivals import Problem
from ..timing import Call, flush_of
from .device import cuda_of
from .parts import Row, Skip, Task
from .precisions import PRECISIONS
from .times import LARGE, QUICK

CASES = (*LARGE, Case(8, 1024, 16, 16), Case(8, 128, 64, 64))
REPEATS = 10
# What a stage reads and writes, in images, and its convolutions (of 8 N·H·W·C²·k'² FLOPs each).
WORK = {
    "forward": (2, 1),
    "scale": (3, 0),
    "gate_gradient": (3, 0),
    "activation_gradient": (4, 0),
    "input_gradient": (4, 1),
    "weight_gradient": (2, 1),
    "gradients": (4, 2),
}
_METRICS = "gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum"


def measure(task: Task) -> Iterator[Row]:
    cuda_of(task)
    ceilings = task.ceilings()
    for case in QUICK if task.quick else CASES:
        values = Problem.make(case, torch.float32, torch.device("cuda"), "channels_last")
        for name in ("bfloat16", "tf32"):
            precision = PRECISIONS[name]
            precision.set()
            problem = values.to(precision.dtype)
            for kernel, seconds in kernel_seconds(problem, REPEATS).items():
                floor = floor_of(kernel, problem, name, ceilings)
                modelled = floor_of(kernel, problem, name, _datasheet(kernel))
                yield {"what": "kernel", "case": str(case), "precision": name, "kernel": kernel,
                       "us": 1e6 * seconds, **(floor or {}),
                       "modelled_us": modelled and modelled["floor_us"]}  # fmt: skip
    yield from _counters(task)


def kernel_seconds(problem: Problem, repeats: int) -> dict[str, float]:
    """Of each of our kernels in a training step, by short name, in the order of their launches."""
    block = problem.block(sspcab_cuda.SSPCAB)
    x = problem.x.detach().requires_grad_()

    def step() -> None:
        outputs = block(x, return_loss=True)
        torch.autograd.grad(
            outputs, [x, *block.parameters()], [problem.grad_out, problem.grad_loss]
        )

    return profiled(step, repeats)


def profiled(step: Call, repeats: int) -> dict[str, float]:
    """Seconds of each of our kernels in one call of step, which starts with an empty L2 cache."""
    flush = flush_of(torch.device("cuda"))
    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        for _ in range(repeats):
            flush()
            step()
        torch.cuda.synchronize()
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.events() or ():
        if event.device_type == DeviceType.CUDA and "sspcab::cuda::" in event.name:
            try:
                name = Kernel.of(event.name).name
            except ReportError:
                name = event.name
            seconds[name] += event.device_time * 1e-6 / repeats
    if not seconds:
        raise Skip("PyTorch's profiler sees no kernels here")
    return dict(seconds)


def floor_of(
    kernel: str, problem: Problem, precision: str, ceilings: dict[str, float]
) -> Row | None:
    """The least time of a kernel in µs, what it goes by, and what it does; None if not known."""
    work = WORK.get(stage_of(kernel))
    if work is None or "copy" not in ceilings or precision not in ceilings:
        return None
    images, convolutions = work
    case = problem.case
    flops = convolutions * 8 * problem.x.numel() * case.channels * case.kernel_dim**2
    moved = images * problem.x.numel() * problem.x.element_size()
    times = {"arithmetic": flops / ceilings[precision], "memory": moved / ceilings["copy"]}
    limit = max(times, key=lambda key: times[key])
    return {"flops": flops, "bytes": moved, "limit": limit, "floor_us": 1e6 * times[limit]}


def _datasheet(kernel: str) -> dict[str, float]:
    """Ceilings of the model in benchmarks.kernel_report, if it has this GPU."""
    name = torch.cuda.get_device_name().lower()
    peaks = next((peaks for gpu, peaks in PEAKS.items() if gpu in name), None)
    if peaks is None:
        return {}
    by = WGMMA if kernel.startswith(HOPPER) else ""
    rates = {"copy": peaks["dram"], "bfloat16": peaks[f"{by}bf16"], "tf32": peaks[f"{by}tf32"]}
    return {name: 1e12 * rate for name, rate in rates.items()}


def _counters(task: Task) -> Iterator[Row]:
    """Nsight Compute's, with the clocks as they are; it may lack permission."""
    ncu = shutil.which("ncu")
    if ncu is None:
        yield {"what": "ncu", "skipped": "ncu isn't on PATH"}
        return
    shape = (1, 16, 8, 8) if task.quick else (64, 256, 64, 64)
    command = [ncu, "--clock-control", "none", "--csv", "--metrics", _METRICS,
               "--kernel-name-base", "mangled", "--kernel-name", "regex:sspcab",
               sys.executable, "-m", "benchmarks.one_step",
               "--shape", *map(str, shape)]  # fmt: skip
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=max(1, min(120, task.left() - 5))
        )
    except subprocess.TimeoutExpired:
        yield {"what": "ncu", "skipped": "it took too long"}
        return
    lines = [line for line in run.stdout.splitlines() if line.startswith('"')]
    if run.returncode or not lines:
        said = (run.stdout + run.stderr).strip().splitlines()
        yield {"what": "ncu", "skipped": said[-1] if said else f"exit status {run.returncode}"}
        return
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        yield {"what": "counter", "shape": list(shape), "kernel": row["Kernel Name"],
               "metric": row["Metric Name"], "unit": row["Metric Unit"],
               "value": row["Metric Value"]}  # fmt: skip
