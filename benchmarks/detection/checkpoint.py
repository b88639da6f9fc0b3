"""Checkpoints that a kill at any moment leaves whole: the old one or the new one."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch


def save(path: Path, state: Any) -> None:
    """Writes what ``torch.save`` can write; the file under this name is never half of it."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    folder = os.open(path.parent, os.O_RDONLY)  # so that the new name outlives a power cut
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path, device: torch.device) -> Any:
    """What :func:`save` wrote, tensors on the device."""
    return torch.load(path, map_location=device, weights_only=True)


def rng_state(device: torch.device) -> dict[str, Any]:
    """States of the random numbers of torch (on the CPU and on the device), numpy and Python."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (name, [int(key) for key in keys], *rest),
        "python": random.getstate(),
    }


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Takes up where :func:`rng_state` was called."""
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


def seed_everything(seed: int) -> None:
    """The same random numbers again, from torch (every device), numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
