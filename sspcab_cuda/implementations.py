"""How the implementations of the block name its parts."""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

from torch import nn

from .reference import Variant

# The layers of our block, the convolutions in the order of the corners.
LAYERS = ("conv1", "conv2", "conv3", "conv4", "se.fc1", "se.fc2")
ACTIVATIONS = ("relu", "se.relu", "se.sigmoid")


class Names(NamedTuple):
    """What another implementation calls the parts of its block."""

    variant: Variant
    layers: tuple[str, ...]  # in the order of LAYERS
    distance: str  # holds k' + 2d + 1; `pad` holds k' + d
    activations: tuple[str, ...]  # those that are modules, under our names

    @property
    def gate(self) -> str:
        return self.layers[-1].split(".")[0]

    def missing_in(self, block: nn.Module) -> list[str]:
        return [path for path in (*self.layers, "pad", self.distance) if not _has(block, path)]

    def check(self, where: str, block: nn.Module) -> None:
        """Raises a ValueError if a part is missing."""
        missing = self.missing_in(block)
        if missing:
            wanted = ", ".join((*sorted(self.layers), "pad", self.distance))
            raise ValueError(
                f"sspcab: {where} must have {wanted}; got {type(block).__name__} without "
                f"{', '.join(missing)}"
            )


def _has(block: nn.Module, path: str) -> bool:
    try:
        attrgetter(path)(block)
    except AttributeError:
        return False
    return True


UPSTREAM = Names(
    variant="paper",
    layers=LAYERS,
    distance="border_input",
    activations=ACTIVATIONS,
)
ANOMALIB = Names(
    variant="anomalib",
    layers=(
        "masked_conv1",
        "masked_conv3",  # bottom-left
        "masked_conv2",
        "masked_conv4",
        "attention_module.fc1",
        "attention_module.fc2",
    ),
    distance="crop",
    activations=(),
)
