"""A compact reconstructive autoencoder that trains on two cores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sspcab_cuda.demo.model import body_and_head
from sspcab_cuda.demo.train import corrupt

from ..blocks import Block, Slot
from .base import ImageHost, smooth


class Autoencoder(ImageHost):
    """Restores images into which foreign content was blended; S is a multiple of 4.

    Args:
        block: what takes the place of the penultimate convolution, at half the resolution.
        width: channels in that layer.
    """

    def __init__(self, block: Block, width: int = 32) -> None:
        super().__init__()
        self.body, self.head = body_and_head(3, width)
        self.slot = Slot(width, block)

    def restore(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The restored images ``(B, 3, S, S)`` and the block's loss."""
        features, block_loss = self.slot(self.body(x))
        return self.head(features), block_loss

    def losses(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """L_F is the mean absolute error of what was restored."""
        restored, block_loss = self.restore(
            corrupt(batch, foreign_content(batch), torch.default_generator)
        )
        return F.l1_loss(restored, batch), block_loss

    def anomaly_maps(self, images: Tensor) -> Tensor:
        """Squared error of the restored images, averaged over a window."""
        return smooth((self.restore(images)[0] - images).square().mean(dim=1))


def foreign_content(images: Tensor) -> Tensor:
    """For each image another of the batch, shifted, in other colours: ``(B, 3, S, S)`` in 0..1.

    Random numbers are drawn on the CPU, so that every device and dtype gets the same.
    """
    batch, channels, size, _ = images.shape
    shift = torch.randint(size, (2,)).tolist()
    gain = torch.empty(batch, channels, 1, 1).uniform_(-1.5, 1.5).to(images)
    offset = torch.rand(batch, channels, 1, 1).to(images)
    other = images.roll((1, *shift), (0, 2, 3))
    return (offset + gain * (other - other.mean(dim=(2, 3), keepdim=True))).clamp(0, 1)
