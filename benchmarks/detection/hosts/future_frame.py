"""Future-frame prediction (Liu et al., CVPR 2018): a U-Net predicts a frame from those before it.

Normal events can be foreseen; a frame that can't is anomalous. The paper's adversarial loss is left
out.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import Block, Slot
from .base import VideoHost, smooth

FLOW_WEIGHT = 2.0  # of the optical-flow loss, the paper's; intensity and gradient have 1
FLOW_SIZE = 128  # the smallest frames that RAFT takes


def load_flow(path: Path) -> nn.Module:
    """RAFT (small), frozen.

    Raises:
        ValueError: the file doesn't hold its weights.
    """
    from torchvision.models.optical_flow import Raft_Small_Weights, raft_small

    flow: nn.Module = raft_small()
    try:
        flow.load_state_dict(torch.load(path, weights_only=True))
    except (OSError, RuntimeError, pickle.UnpicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            "flow weights must be torchvision's file of RAFT (small), "
            f"{Raft_Small_Weights.DEFAULT.url}; got {path}: {str(error).splitlines()[0]}"
        ) from error
    return flow.requires_grad_(False)


def _convolution(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.ReLU())


def _pair(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(_convolution(channels, out), _convolution(out, out))


class FutureFrame(VideoHost):
    """S is a multiple of 8.

    Args:
        block: what takes the place of the penultimate convolution, at full resolution.
        context: frames that the next one is predicted from.
        width: channels in that layer and of the first level; the fourth has eight times as many.
        flow_weights: torchvision's file of RAFT (small), for the optical-flow loss; without it
            there is none.
    """

    def __init__(
        self, block: Block, context: int = 4, width: int = 64, flow_weights: Path | None = None
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(4)]
        self.down = nn.ModuleList(
            _pair(before, after)
            for before, after in zip([3 * context, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1])
        )
        self.merge = nn.ModuleList(
            [_pair(2 * w, w) for w in reversed(widths[1:-1])] + [_convolution(2 * width, width)]
        )
        self.head = nn.Conv2d(width, 3, 3, padding=1)
        self.slot = Slot(width, block)
        self.flow = None if flow_weights is None else load_flow(flow_weights)

    def predict(self, clips: Tensor) -> tuple[Tensor, Tensor | None]:
        """The last frames ``(B, 3, S, S)`` in -1..1 from those before, and the block's loss."""
        x, skips = clips[:, :-1].flatten(1, 2), []
        for level, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat((skips.pop(), up(x)), dim=1))
        x, block_loss = self.slot(x)
        return torch.tanh(self.head(x)), block_loss

    def losses(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """L_F is the sum of the squared error of intensities, the absolute error of gradients and,
        with RAFT, the weighted absolute error of the optical flow."""
        predicted, block_loss = self.predict(batch)
        last, target = batch[:, -2], batch[:, -1]
        task_loss = F.mse_loss(predicted, target)
        for dim in (2, 3):
            gradient, true_gradient = (x.diff(dim=dim).abs() for x in (predicted, target))
            task_loss = task_loss + F.l1_loss(gradient, true_gradient)
        if self.flow is not None:
            task_loss = task_loss + FLOW_WEIGHT * F.l1_loss(
                self._flow(last, predicted), self._flow(last, target).detach()
            )
        return task_loss, block_loss

    def _flow(self, first: Tensor, second: Tensor) -> Tensor:
        assert self.flow is not None
        flow: Tensor = self.flow(first, second, num_flow_updates=6)[-1]
        return flow

    def frame_errors(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Scores are -PSNR in dB, of intensities in 0..1 and PSNR up to 100; maps are the squared
        error, smoothed."""
        predicted, _ = self.predict(clips)
        error = ((predicted - clips[:, -1]) / 2).square().mean(dim=1)
        return 10 * error.mean(dim=(1, 2)).clamp(min=1e-10).log10(), smooth(error)
