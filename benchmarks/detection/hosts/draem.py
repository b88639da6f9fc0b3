"""DRAEM (Zavrtanik et al., ICCV 2021): anomalib's networks, augmenter and loss."""

from __future__ import annotations

from pathlib import Path

import torch
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from anomalib.models.components.layers import SSPCAB as AnomalibSSPCAB
from anomalib.models.image.draem.loss import DraemLoss
from anomalib.models.image.draem.torch_model import DiscriminativeSubNetwork, ReconstructiveSubNetwork
from torch import Tensor, nn

import sspcab_cuda

from ..blocks import Block
from .base import ImageHost


class Draem(ImageHost):
    """S is a multiple of 16.

    The block stands where anomalib puts it, at the end of the reconstructive encoder. The reference
    is anomalib's own block; the fused one takes its place by :func:`sspcab_cuda.replace`.

    Args:
        block: what stands in the fifth stage of the encoder; without a block two convolutions.
        width: of the reconstructive network, 128 in anomalib; the discriminative has half of it.
        dtd_dir: folder of the texture images that are blended in (Describable Textures Dataset);
            without it Perlin noise takes their place.
    """

    def __init__(self, block: Block, width: int = 128, dtd_dir: Path | None = None) -> None:
        super().__init__()
        kind, *shape = block
        self.discriminative = DiscriminativeSubNetwork(6, 2, base_width=width // 2)
        self.reconstructive = ReconstructiveSubNetwork(base_width=width)
        self.kind = kind
        if kind != "none":
            self.reconstructive.encoder.block5 = AnomalibSSPCAB(8 * width, *shape)
        if kind == "fused":
            sspcab_cuda.replace(self.reconstructive)
        self.augmenter = PerlinAnomalyGenerator(dtd_dir, blend_factor=(0.1, 1.0))
        self.criterion = DraemLoss()

    def losses(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """L_F is anomalib's: squared error, SSIM and focal loss of the mask."""
        augmented, mask = self.augmenter(batch)
        with sspcab_cuda.collect_reconstruction_losses() as block_losses:
            restored, logits = self.networks(augmented)
        task_loss = self.criterion(batch, restored, mask, logits)
        if self.anomalib_loss is not None:
            return task_loss, self.anomalib_loss
        return task_loss, block_losses[0] if block_losses else None
