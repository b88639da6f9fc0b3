"""The arithmetics that are measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..rivals import allow_tf32


@dataclass(frozen=True)
class Precision:
    """What the images are stored in and how it is computed."""

    name: str
    dtype: torch.dtype  # of x and the parameters
    tf32: bool = False
    autocast: torch.dtype | None = None

    def set(self) -> None:
        allow_tf32(self.tf32)


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("tf32", torch.float32, tf32=True),
        Precision("bfloat16", torch.bfloat16),
        Precision("float16", torch.float16),
        Precision("float32", torch.float32),
        Precision("float64", torch.float64),
        Precision("autocast", torch.float32, autocast=torch.bfloat16),
    )
}
