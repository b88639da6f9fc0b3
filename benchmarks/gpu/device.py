"""The device of a run."""

from __future__ import annotations

import torch

from .parts import Skip, Task


def device_of(task: Task) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if task.quick:
        return torch.device("cpu")
    raise Skip("torch sees no GPU")


def cuda_of(task: Task) -> torch.device:
    """For what a CPU can't do."""
    if not torch.cuda.is_available():
        raise Skip("torch sees no GPU")
    return torch.device("cuda")
