"""Part tiles: every configuration of tiles forced, beside the one that is chosen; and the gradients
of x and of the sub-kernels together, beside each of them alone, in a launch of its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import sspcab_cuda

from ..cases import SUITES, Case
from ..one_step import forced
from ..rivals import Problem
from ..timing import Call
from .device import cuda_of
from .parts import Row, Task
from .precisions import PRECISIONS
from .stages import profiled
from .times import LARGE, QUICK, SINGLE

CASES = (*SUITES["main"], *LARGE, *SINGLE, Case(4, 256, 32, 32, kernel_dim=3))
NAMES = ("bfloat16", "tf32", "float32")
CONFIGS = (-1, 0, 1, 2)  # -1: chosen by size
REPEATS = 5
# The stages that have tiles, by the word that their kernels begin with.
GRADIENTS = ("input_gradient", "weight_gradient", "gradients")
STAGES = ("forward", *GRADIENTS)
WANTED = ("both", "x", "sub-kernels")


def measure(task: Task) -> Iterator[Row]:
    cuda_of(task)
    for case in QUICK if task.quick else CASES:
        for name in NAMES:
            precision = PRECISIONS[name]
            precision.set()
            problem = Problem.make(case, precision.dtype, torch.device("cuda"), "channels_last")
            for config in CONFIGS:
                seconds = profiled(_step(problem, precision.tf32, config), REPEATS)
                for kernel, value in seconds.items():
                    stage = kernel.split()[0]
                    if stage in STAGES:
                        yield {"what": "tile", "case": str(case), "precision": name,
                               "shape": [case.n, case.channels, case.height, case.width],
                               "kernel_dim": case.kernel_dim, "stage": stage, "config": config,
                               "kernel": kernel, "us": 1e6 * value}  # fmt: skip
            for wanted in WANTED:
                seconds = profiled(_step(problem, precision.tf32, -1, wanted), REPEATS)
                words = {kernel.split()[0]: value for kernel, value in seconds.items()}
                yield {"what": "sharing", "case": str(case), "precision": name, "wanted": wanted,
                       "shared": "gradients" in words,
                       "us": 1e6 * sum(words.get(stage, 0) for stage in GRADIENTS)}  # fmt: skip


def _step(problem: Problem, tf32: bool, config: int, wanted: str = "both") -> Call:
    """A training step with a configuration of tiles, for gradients of x, the parameters or both."""
    block = problem.block(sspcab_cuda.SSPCAB).requires_grad_(wanted != "x")
    x = problem.x.detach().requires_grad_(wanted != "sub-kernels")
    leaves = [tensor for tensor in (x, *block.parameters()) if tensor.requires_grad]

    def step() -> None:
        outputs = forced(block, x, tf32, config)
        torch.autograd.grad(outputs, leaves, [problem.grad_out, problem.grad_loss])

    return step
