"""Part tiles: every configuration of tiles forced, for the forward pass, for the gradients of x and
of the sub-kernels each alone and both in one launch; beside what the planner chooses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch

import sspcab_cuda

from ..cases import SUITES, Case
from ..kernel_report import stage_of
from ..one_step import convolutions_alone
from ..rivals import Problem
from .device import cuda_of
from .fit import GRADIENTS
from .parts import Row, Task
from .planner import CONFIGS, Stage, launched, plan
from .precisions import PRECISIONS
from .stages import profiled
from .times import LARGE, QUICK, SINGLE

CASES = (*SUITES["main"], *LARGE, *SINGLE, Case(4, 256, 32, 32, kernel_dim=3))
NAMES = ("bfloat16", "tf32", "float32")
REPEATS = 5


def measure(task: Task) -> Iterator[Row]:
    device = cuda_of(task)
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    hopper = _has_hopper(device)
    for case in QUICK if task.quick else CASES:
        values = Problem.make(case, torch.float32, device, "channels_last")
        shape = case.n, case.channels, case.height, case.width
        for name in NAMES:
            precision = PRECISIONS[name]
            problem = values.to(precision.dtype)
            block = problem.block(sspcab_cuda.SSPCAB)
            stages = {stage: Stage(stage, name, shape, case.kernel_dim, processors, hopper)
                      for stage in ("forward", *GRADIENTS)}  # fmt: skip
            for config in CONFIGS:
                step = convolutions_alone(
                    block, problem.x, (problem.grad_out, problem.grad_loss), precision.tf32, config
                )
                us: dict[str, float] = defaultdict(float)
                for kernel, seconds in profiled(step, REPEATS).items():
                    us[stage_of(kernel)] += 1e6 * seconds
                splits = {stage: plan(one, one.constants, config).splits
                          for stage, one in stages.items()}  # fmt: skip
                for stage, chosen in _choices(stages).items():
                    if stage not in us:
                        continue
                    # Sub-kernels' are added up twice: of that gradient alone, and of both.
                    added_up = stage in ("weight_gradient", "gradients")
                    yield {"what": "tile", "case": str(case), "precision": name,
                           "shape": [*shape], "kernel_dim": case.kernel_dim, "stage": stage,
                           "config": config, "splits": splits.get(stage, splits["weight_gradient"]),
                           "hopper": hopper, "chosen": chosen, "us": us[stage],
                           "sums_us": us["parameter_gradients"] / 2 if added_up else 0}  # fmt: skip


def _choices(stages: Mapping[str, Stage]) -> dict[str, int | None]:
    """The configuration that each gets; of both gradients None where they don't share a launch."""
    chosen = {name: launched(stage, stage.constants).config for name, stage in stages.items()}
    of_x, of_weights = ((stages[name].path, chosen[name]) for name in GRADIENTS)
    return {**chosen, "gradients": chosen[GRADIENTS[0]] if of_x == of_weights else None}


def _has_hopper(device: torch.device) -> bool:
    built = "9.0a" in str(sspcab_cuda.build_info()["arch_list"])
    return built and torch.cuda.get_device_capability(device) == (9, 0)
