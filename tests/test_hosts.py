"""Models and factories of other people that hold the block."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from skimage import data, io, transform
from torch import nn

import sspcab_cuda

SIZE = 64  # pixels; the block then sees 4×4


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs that DRAEM pastes into its images, as it does with those of DTD."""
    folder = tmp_path_factory.mktemp("textures")
    for name in ("astronaut", "coffee"):
        io.imsave(folder / f"{name}.png", getattr(data, name)()[:128, :128], check_contrast=False)
    return folder


def photographs() -> torch.Tensor:
    image = transform.resize(data.astronaut(), (2 * SIZE, 2 * SIZE), anti_aliasing=True)
    crops = torch.from_numpy(image).float().permute(2, 0, 1).unfold(1, SIZE, SIZE)
    return torch.stack([crops[:, 0, :, :SIZE], crops[:, 1, :, -SIZE:]])
