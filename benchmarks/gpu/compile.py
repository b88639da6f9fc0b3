"""Part compile: the rivals of part times, compiled in parallel processes.

There they would be compiled one after another, and the processes that torch.compile has itself are
of little help: they share out the kernels of one graph, of which a rival has a handful. From the
cache on disk, which torch.compile has anyway, a graph is there in a tenth of a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from typing import get_args

import torch

from ..cases import Case
from ..rivals import Layout, Mode, Problem, grad_mode
from .contest import rivals_of
from .device import device_of
from .parts import Row, Task
from .precisions import PRECISIONS
from .times import groups

PROCESSES = 8  # each has a context on the GPU, and a rival's images


def measure(task: Task) -> Iterator[Row]:
    device_of(task)
    # Not as a context: that would wait for all of them when the time is up.
    processes = min(PROCESSES, os.cpu_count() or 1)
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _one_thread)
    running = {
        pool.submit(_compile, group.compiled, case, name, layout): {
            "case": str(case), "precision": name, "layout": layout, "rival": group.compiled
        }
        for group in groups(task)
        if group.compiled
        for case in group.cases
        for name in group.precisions
        for layout in group.layouts
    }  # fmt: skip
    for future in as_completed(running):
        row = {"what": "compiled", **running[future]}
        error = future.exception()  # part times will say it again
        yield row | ({"text": repr(error)} if error else {"seconds": future.result()})


def _one_thread() -> None:
    from torch._inductor import config

    config.compile_threads = 1


def _compile(rival: str, case: Case, precision_name: str, layout: Layout) -> float:
    """Runs it as part times does. Returns the seconds that took."""
    start = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = PRECISIONS[precision_name]
    precision.set()
    torch.compiler.reset()
    problem = Problem.make(case, torch.float32, device, "nchw")
    problem = replace(problem, layout=layout).to(precision.dtype)
    for one, _ in rivals_of(problem, precision, rival):
        if one.name == f"{rival} compiled":
            for mode in get_args(Mode):
                with grad_mode(mode):
                    one.run(mode)
    return time.monotonic() - start
