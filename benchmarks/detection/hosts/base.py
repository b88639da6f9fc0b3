"""What training and evaluation ask of a host."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Host(nn.Module):
    """A model with losses. ``forward`` gives them too, so that DDP sees every output."""

    def losses(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """The host's own loss L_F and the block's loss, None without a block; scalars."""
        raise NotImplementedError

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.losses(batch)


class ImageHost(Host):
    """Batches are images ``(B, 3, S, S)`` in 0..1."""

    def anomaly_maps(self, images: Tensor) -> Tensor:
        """``(B, S, S)``, higher where a pixel looks more anomalous."""
        raise NotImplementedError


class VideoHost(Host):
    """Batches are clips ``(B, context + 1, 3, S, S)`` in -1..1."""

    def frame_errors(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``(B,)`` of the last frames and their maps ``(B, S, S)``, higher = worse."""
        raise NotImplementedError


def smooth(maps: Tensor) -> Tensor:
    """Maps ``(B, S, S)`` averaged over a window of a twelfth of their side: 21 pixels of 256."""
    reach = maps.shape[-1] // 24
    pooled = F.avg_pool2d(maps[:, None], 2 * reach + 1, 1, reach, count_include_pad=False)
    return pooled[:, 0]


def image_scores(maps: Tensor) -> Tensor:
    """``(B,)``: the highest smoothed value of each map ``(B, S, S)``, as DRAEM scores images."""
    return smooth(maps).amax(dim=(1, 2))
