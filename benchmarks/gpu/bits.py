"""Part bits: the same bits in every step, under load, and in a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

import sspcab_cuda

from ..cases import Case
from ..rivals import Problem, Rival
from .contest import Replay
from .device import cuda_of
from .parts import Row, Task
from .precisions import PRECISIONS

CASES = (Case(8, 256, 32, 32), Case(4, 64, 128, 128), Case(2, 64, 33, 29, kernel_dim=3))
QUICK = (Case(1, 16, 6, 5),)
REPEATS, QUICK_REPEATS = 50, 3


def measure(task: Task) -> Iterator[Row]:
    device = cuda_of(task)
    size = 64 if task.quick else 2048
    load = torch.randn(size, size, device=device)
    other = torch.cuda.Stream()
    for case in QUICK if task.quick else CASES:
        for name in ("bfloat16", "tf32", "float32", "float16"):
            precision = PRECISIONS[name]
            precision.set()
            problem = Problem.make(case, precision.dtype, device, "channels_last")
            problem = replace(problem, layout="channels_last")
            rival = Rival("ours", problem, problem.block(sspcab_cuda.SSPCAB))
            replay = Replay(rival, "training")
            expected = rival.run("training")
            different = 0
            for _ in range(QUICK_REPEATS if task.quick else REPEATS):
                with torch.cuda.stream(other):
                    load @ load
                different += not _equal(rival.run("training"), expected)
            graph = _equal(replay.run("training"), expected)
            yield {"what": "bits", "case": str(case), "precision": name,
                   "different": different, "graph_equal": graph}  # fmt: skip


def _equal(results: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
