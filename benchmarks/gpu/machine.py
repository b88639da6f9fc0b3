"""Part machine: what is there, as found, and the ceilings that everything is compared with.

Nothing is set: clocks, power and compute mode stay as they are.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..timing import clock_for, interleave
from .device import device_of
from .parts import Row, Task

# FLOP/s are of a product of this size, on random numbers.
SIZE, QUICK_SIZE = 8192, 128
COPY_BYTES, QUICK_COPY_BYTES = 1 << 31, 1 << 16
_ASKED = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"


def measure(task: Task) -> Iterator[Row]:
    device = device_of(task)
    yield {"what": "machine", **_facts(device)}
    for name, command in {
        "nvidia-smi": ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader"],
        "nvcc": ["nvcc", "--version"],
    }.items():
        yield {"what": name, "text": _said(command)}
    yield {"what": "ceiling", "of": "copy", "rate": _copy_rate(device, task), "unit": "byte/s"}
    size = QUICK_SIZE if task.quick else SIZE
    for name, dtype, tf32 in (
        ("bfloat16", torch.bfloat16, False),
        ("float16", torch.float16, False),
        ("tf32", torch.float32, True),
        ("float32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = _seconds(device, lambda a=a, b=b: a @ b)  # type: ignore[misc]
        yield {"what": "ceiling", "of": name, "rate": 2 * size**3 / seconds, "unit": "FLOP/s"}
    if device.type == "cuda":
        yield from _launches(device)


def _facts(device: torch.device) -> Row:
    facts: Row = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "gpu": "none",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "processors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
        }
    return facts


def _said(command: list[str]) -> str:
    """What a tool prints, or that it isn't there."""
    if shutil.which(command[0]) is None:
        return "not found"
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (run.stdout or run.stderr).strip()


def _copy_rate(device: torch.device, task: Task) -> float:
    """Bytes read and written in a second."""
    size = QUICK_COPY_BYTES if task.quick else COPY_BYTES
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _seconds(device, lambda: target.copy_(source))


def _seconds(device: torch.device, call: Callable[[], Any]) -> float:
    return interleave({"call": call}, clock_for(device), 0.1)["call"].median


def _launches(device: torch.device) -> Iterator[Row]:
    """Time of a kernel that does nothing to speak of, one after another."""
    number = 100
    one = torch.zeros(1, device=device)

    def launch() -> None:
        for _ in range(number):
            one.add_(1)

    yield {"what": "launch", "how": "eager", "us": 1e6 * _seconds(device, launch) / number}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    yield {"what": "launch", "how": "graph", "us": 1e6 * _seconds(device, graph.replay) / number}
