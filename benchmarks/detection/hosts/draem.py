"""DRAEM (Zavrtanik et al., ICCV 2021): anomalib's networks, augmenter and loss."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from anomalib.models.components.layers import SSPCAB as AnomalibSSPCAB
from anomalib.models.image.draem.loss import DraemLoss
from anomalib.models.image.draem.torch_model import (
    DiscriminativeSubNetwork,
    ReconstructiveSubNetwork,
)
from torch import Tensor, nn

import sspcab_cuda

from ..blocks import Block
from .base import ImageHost


class Draem(ImageHost):
    """S is a multiple of 16.

    The block stands where anomalib puts it, at the end of the reconstructive encoder. The reference
    is anomalib's own block; the fused one takes its place by :func:`sspcab_cuda.replace`.

    Args:
        block: what ends the encoder; without a block two convolutions do.
        width: of the reconstructive network, 128 in anomalib; the discriminative has half of it.
        dtd_dir: folder of the texture images that are blended in (Describable Textures Dataset);
            without it Perlin noise takes their place.
    """

    def __init__(self, block: Block, width: int = 128, dtd_dir: Path | None = None) -> None:
        super().__init__()
        kind, *shape = block
        self.reconstructive = ReconstructiveSubNetwork(base_width=width)
        self.discriminative = DiscriminativeSubNetwork(6, 2, base_width=width // 2)
        self.augmenter = PerlinAnomalyGenerator(dtd_dir, blend_factor=(0.1, 1.0))
        self.criterion = DraemLoss()
        self._losses_of_anomalib: list[Tensor] = []
        if kind != "none":
            slot = AnomalibSSPCAB(8 * width, *shape)
            if kind == "reference":
                slot.register_forward_hook(self._keep_loss)
            self.reconstructive.encoder.block5 = slot
        if kind == "fused":
            sspcab_cuda.replace(self)

    def _keep_loss(self, _: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        self._losses_of_anomalib = [F.mse_loss(out, inputs[0])]

    def _networks(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Restored images ``(B, 3, S, S)`` and logits ``(B, 2, S, S)`` of normal and anomalous."""
        restored = self.reconstructive(images)
        return restored, self.discriminative(torch.cat((images, restored), dim=1))

    def losses(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """L_F is anomalib's: squared error, SSIM and focal loss of the mask."""
        augmented, mask = self.augmenter(batch)
        with sspcab_cuda.collect_reconstruction_losses() as collected:
            restored, logits = self._networks(augmented)
        task_loss = self.criterion(batch, restored, mask, logits)
        block_losses = [*collected, *self._losses_of_anomalib]
        self._losses_of_anomalib = []  # lets the graph go
        return task_loss, block_losses[0] if block_losses else None

    def anomaly_maps(self, images: Tensor) -> Tensor:
        """The probability that a pixel is anomalous."""
        return self._networks(images)[1].softmax(dim=1)[:, 1]
