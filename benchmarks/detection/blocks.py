"""What stands in a host's slot: the block, fused or in plain PyTorch, or what it displaced."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn

from sspcab_cuda import SSPCAB, reference

Kind = Literal["fused", "reference", "none"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Block(NamedTuple):
    """Which block, and its shape: the paper's by default."""

    kind: Kind
    kernel_dim: int = 1
    dilation: int = 1
    reduction_ratio: int = 8


class Slot(nn.Module):
    """The penultimate convolution of a host, or the block in its place.

    Make it after all other layers of a host: they then start from the same weights whatever is in
    the slot. The fused block and the reference start from the same weights too.

    Args:
        channels: C, of input and output.
        block: the kind ``"none"`` gives a 3×3 convolution with ReLU.
    """

    def __init__(self, channels: int, block: Block) -> None:
        super().__init__()
        if block.kind == "none":
            self.layer: nn.Module = nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()
            )
        else:
            module = SSPCAB if block.kind == "fused" else reference.SSPCAB
            self.layer = module(channels, block.kernel_dim, block.dilation, block.reduction_ratio)
        self.has_block = block.kind != "none"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """``(N, C, H, W)`` of the same shape, and the block's scalar loss, None without a block."""
        if self.has_block:
            out, loss = self.layer(x, return_loss=True)
            return out, loss
        return self.layer(x), None
