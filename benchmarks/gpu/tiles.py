"""Part tiles: every configuration of tiles forced, for the forward pass, for the gradients of x and
of the sub-kernels each alone and both in one launch; beside what the planner chooses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

import sspcab_cuda
from sspcab_cuda import ops
from sspcab_cuda._extension import _C

from ..cases import SUITES, Case
from ..one_step import operands
from ..rivals import Problem
from ..timing import Call
from .device import cuda_of
from .fit import GRADIENTS
from .parts import Row, Task
from .planner import CONFIGS
from .precisions import PRECISIONS, Precision
from .stages import profiled
from .times import LARGE, QUICK, SINGLE

CASES = (*SUITES["main"], *LARGE, *SINGLE, Case(4, 256, 32, 32, kernel_dim=3))
NAMES = ("bfloat16", "tf32", "float32")
REPEATS = 5


def measure(task: Task) -> Iterator[Row]:
    device = cuda_of(task)
    for case in QUICK if task.quick else CASES:
        values = Problem.make(case, torch.float32, device, "channels_last")
        for name in NAMES:
            precision = PRECISIONS[name]
            problem = values.to(precision.dtype)
            chosen = _choices(case, precision)
            for config in CONFIGS:
                forced = _plan(case, precision, config)["weight_gradient"]
                seconds = profiled(_step(problem, precision.tf32, config), REPEATS)
                us = {kernel.split()[0]: 1e6 * value for kernel, value in seconds.items()}
                for stage in (stage for stage in chosen if stage in us):
                    splits = stage in ("weight_gradient", "gradients")
                    yield {"what": "tile", "case": str(case), "precision": name,
                           "shape": [case.n, case.channels, case.height, case.width],
                           "kernel_dim": case.kernel_dim, "stage": stage, "config": config,
                           "splits": forced["splits"] if splits else 1, "chosen": chosen[stage],
                           "us": us[stage],
                           # Added up after each of the two.
                           "sums_us": us["parameter_gradients"] / 2 if splits else 0}  # fmt: skip


def _step(problem: Problem, tf32: bool, config: int) -> Call:
    """Every convolution by itself, in a launch of its own; both gradients in one. As in a training
    step, in which the gradient of x has that of the loss added."""
    block = problem.block(sspcab_cuda.SSPCAB).requires_grad_(False)
    parameters = operands(block)
    weights, (fc1_weight, _, fc2_weight, _) = parameters[:4], parameters[8:]
    rest = block.dilation, True

    def forward() -> tuple[torch.Tensor, ...]:
        return ops.sspcab(problem.x, *parameters, *rest, True, tf32, config)

    _, _, *saved = forward()
    y, *excitation = saved

    def backward(of_x: bool, of_weights: bool) -> None:
        needs = [of_x, *[of_weights] * 4, *[False] * 5]
        ops.sspcab_backward(problem.grad_out, problem.grad_loss, problem.x, y, *excitation, weights,
                            fc1_weight, fc2_weight, *rest, needs, tf32, config)  # fmt: skip

    def step() -> None:
        forward()
        backward(of_x=True, of_weights=False)
        backward(of_x=False, of_weights=True)
        backward(of_x=True, of_weights=True)

    return step


def _plan(case: Case, precision: Precision, config: int = -1) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties()
    plan: dict[str, Any] = _C.plan(
        (case.n, case.channels, case.height, case.width),
        str(precision.dtype).removeprefix("torch."),
        case.kernel_dim,
        case.dilation,
        allow_tf32=precision.tf32,
        config=config,
        capability=10 * properties.major + properties.minor,
        processors=properties.multi_processor_count,
    )
    return plan


def _choices(case: Case, precision: Precision) -> dict[str, int | None]:
    """The configuration that each stage gets, None for no launch that is shared."""
    plan = _plan(case, precision)
    chosen = {stage: plan[stage]["config"] for stage in ("forward", *GRADIENTS)}
    shared = "gradients" in plan["backward_launches"]
    return {**chosen, "gradients": chosen["input_gradient"] if shared else None}
