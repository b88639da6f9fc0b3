"""Part bits: the same bits in every step, under load, and in a CUDA graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import get_args

import torch

import sspcab_cuda

from ..cases import Case
from ..one_step import forced
from ..rivals import Layout, Problem, Rival
from .contest import Replay
from .device import cuda_of
from .parts import Row, Task
from .precisions import PRECISIONS

CASES = (Case(8, 256, 32, 32), Case(4, 64, 128, 128), Case(2, 64, 33, 29, kernel_dim=3))
QUICK = (Case(1, 16, 6, 5),)
NAMES = ("bfloat16", "tf32", "float32", "float16", "float64")
CONFIGS = (-1, 0, 1, 2)  # of tiles; -1: chosen by size
REPEATS, QUICK_REPEATS = 50, 3


def measure(task: Task) -> Iterator[Row]:
    device = cuda_of(task)
    size = 64 if task.quick else 2048
    load = torch.randn(size, size, device=device)
    other = torch.cuda.Stream()
    for case in QUICK if task.quick else CASES:
        values = Problem.make(case, torch.float64, device, "nchw")
        for config, layout, name in itertools.product(CONFIGS, get_args(Layout), NAMES):
            precision = PRECISIONS[name]
            precision.set()
            problem = replace(values, layout=layout).to(precision.dtype)
            block = problem.block(sspcab_cuda.SSPCAB)
            call = partial(forced, block, tf32=precision.tf32, config=config)
            rival = Rival("ours", problem, block, call=call)
            replay = Replay(rival, "training")
            expected = rival.run("training")
            different = 0
            for _ in range(QUICK_REPEATS if task.quick else REPEATS):
                with torch.cuda.stream(other):
                    load @ load
                different += not _equal(rival.run("training"), expected)
            graph = _equal(replay.run("training"), expected)
            yield {"what": "bits", "case": str(case), "precision": name, "layout": layout,
                   "config": config, "different": different, "graph_equal": graph}  # fmt: skip


def _equal(results: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
