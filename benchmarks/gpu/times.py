"""Part times: every rival on every problem, verified against float64 before it is timed."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import get_args

import torch
from torch import Tensor

from ..cases import SUITES, Case
from ..report import percentiles
from ..rivals import Layout, Mode, Problem, Rival, WrongResultError, grad_mode, verify
from ..timing import clock_for, interleave, peak_bytes
from .contest import REPLAYED, Replay, rivals_of
from .device import device_of
from .parts import Row, Task
from .precisions import PRECISIONS

LARGE = (Case(32, 512, 28, 28), Case(64, 256, 64, 64), Case(32, 64, 256, 256))
SINGLE = (Case(1, 64, 32, 32), Case(1, 512, 28, 28), Case(1, 1024, 16, 16))
QUICK = (Case(2, 16, 8, 8),)
MIN_TIME = 0.05  # seconds for each rival, on average


@dataclass(frozen=True)
class Group:
    """Cases that are measured alike."""

    suite: str
    cases: tuple[Case, ...]
    precisions: tuple[str, ...]
    layouts: tuple[Layout, ...] = ("channels_last",)
    compiled: str = ""  # this rival, with torch.compile


# In order of value: the part is stopped when its time is up.
MAIN = SUITES["main"]
GROUPS = (
    Group("main", MAIN, ("tf32", "bfloat16")),
    Group("single", SINGLE, ("tf32", "bfloat16")),
    Group("large", LARGE, ("bfloat16", "tf32")),
    Group("main", MAIN, ("bfloat16", "tf32"), compiled="expert"),
    Group("kernel_dim", SUITES["kernel_dim"], ("tf32", "bfloat16")),
    Group("main", MAIN, ("tf32", "bfloat16"), ("nchw",)),
    Group("main", MAIN, ("autocast", "float16", "float32")),
    Group("large", LARGE, ("float16", "autocast", "float32")),
    Group("large", LARGE, ("bfloat16", "tf32"), ("nchw",)),
    Group("single", SINGLE, ("autocast", "float16", "float32"), ("channels_last", "nchw")),
    Group("main", MAIN, ("autocast", "float16", "float32"), ("nchw",)),
    Group("main", MAIN, ("bfloat16", "tf32"), compiled="reference"),
    Group("large", LARGE, ("bfloat16", "tf32"), compiled="expert"),
    Group("large", LARGE, ("bfloat16", "tf32"), compiled="reference"),
)
QUICK_GROUPS = (
    Group("quick", QUICK, ("tf32", "bfloat16", "autocast"), get_args(Layout)),
    Group("quick", QUICK, ("tf32",), compiled="expert"),
)


def groups(task: Task) -> tuple[Group, ...]:
    return QUICK_GROUPS if task.quick else GROUPS


def measure(task: Task) -> Iterator[Row]:
    device = device_of(task)

    @cache  # drawing large images on the CPU keeps the GPU waiting
    def problem_of(case: Case) -> Problem:
        return Problem.make(case, torch.float32, device, "nchw")

    for group in groups(task):
        for case in group.cases:
            problem = problem_of(case)
            for name in group.precisions:
                for layout in group.layouts:
                    print(f"{case} {name} {layout} {group.compiled}")
                    try:
                        yield from _measure(task, group, problem, name, layout)
                    except Exception as error:  # out of memory, a compiler's: the others go on
                        traceback.print_exc()
                        text = f"{type(error).__name__}: {error}"
                        yield {"what": "wrong", "case": str(case), "precision": name,
                               "layout": layout, "text": text}  # fmt: skip
                        torch.cuda.empty_cache()


def _measure(
    task: Task, group: Group, problem: Problem, name: str, layout: Layout
) -> Iterator[Row]:
    precision = PRECISIONS[name]
    precision.set()
    problem = replace(problem, layout=layout).to(precision.dtype)
    device = problem.x.device
    where = {
        "suite": group.suite,
        "case": str(problem.case),
        "elements": problem.x.numel(),
        "precision": name,
        "layout": layout,
        "compiled": group.compiled,
    }
    if group.compiled:
        torch.compiler.reset()
    for mode in get_args(Mode):
        calls, facts = {}, {}
        for rival, truth in rivals_of(problem, precision, group.compiled):
            torch.backends.cudnn.benchmark = False
            true = truth(mode)
            _tune(rival)
            contestants = [rival]
            if rival.name in REPLAYED and device.type == "cuda" and not group.compiled:
                contestants.append(Replay(rival, mode))
            for one in contestants:
                try:
                    error = verify(one, true, mode)
                except WrongResultError as wrong:
                    yield {"what": "wrong", **where, "mode": mode, "rival": one.name,
                           "text": str(wrong)}  # fmt: skip
                    continue
                call = partial(_run, one, mode)
                with grad_mode(mode):
                    facts[one.name] = {"error": error, "peak_bytes": peak_bytes(call, device)}
                calls[one.name] = call
        with grad_mode(mode):
            timed = interleave(calls, clock_for(device), 0 if task.quick else MIN_TIME)
        for rival_name, measurement in timed.items():
            p20, p50, p80 = (1e6 * seconds for seconds in percentiles(measurement.times))
            yield {"what": "time", **where, "mode": mode, "rival": rival_name, "p20_us": p20,
                   "p50_us": p50, "p80_us": p80, **facts[rival_name]}  # fmt: skip


def _tune(rival: Rival) -> None:
    """The others are timed with the fastest of cuDNN's algorithms; ours calls none."""
    torch.backends.cudnn.benchmark = rival.name.split()[0] != "ours"


def _run(rival: Rival, mode: Mode) -> tuple[Tensor, ...]:
    _tune(rival)
    return rival.run(mode)
