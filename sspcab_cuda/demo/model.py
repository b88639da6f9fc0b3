"""The host: a small convolutional autoencoder with a slot for the block."""

from __future__ import annotations

from torch import Tensor, nn

from sspcab_cuda import SSPCAB


def body_and_head(channels: int, width: int) -> tuple[nn.Sequential, nn.Sequential]:
    """What lies before and after the slot.

    Args:
        channels: of the images, ``(N, channels, H, W)``; H and W are multiples of 4.
        width: channels in the slot, ``(N, width, H/2, W/2)``.
    """
    body = nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, padding=1),
        nn.PixelShuffle(2),
        nn.ReLU(),
    )
    head = nn.Sequential(nn.Conv2d(width, 4 * channels, 3, padding=1), nn.PixelShuffle(2))
    return body, head


class Autoencoder(nn.Module):
    """Reconstructs grey crops ``(N, 1, H, W)``; H and W are multiples of 4.

    Args:
        block: :class:`sspcab_cuda.SSPCAB` takes the place of the penultimate convolution, as the
            paper proposes; otherwise that layer is a plain 3×3 convolution with ReLU.
        width: channels in that layer.
    """

    def __init__(self, block: bool, width: int = 32) -> None:
        super().__init__()
        self.body, self.head = body_and_head(1, width)
        # Last, so that all other layers start from the same weights whatever is in the slot.
        self.slot = (
            SSPCAB(width)
            if block
            else nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction ``(N, 1, H, W)`` and the block's scalar loss, 0 without the block."""
        features = self.body(x)
        if isinstance(self.slot, SSPCAB):
            features, block_loss = self.slot(features, return_loss=True)
        else:
            features, block_loss = self.slot(features), x.new_zeros(())
        return self.head(features), block_loss
