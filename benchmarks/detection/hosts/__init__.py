"""Models that the block is put into, and how each is trained by default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from ..blocks import Block
from .base import Host, ImageHost, VideoHost, image_scores

__all__ = ["HOSTS", "Host", "HostSpec", "ImageHost", "VideoHost", "image_scores", "make_host"]


class HostSpec(NamedTuple):
    """A host's kind, and its defaults."""

    takes: Literal["images", "videos"]
    multiple: int  # which S must be one of
    size: int  # S, pixels
    width: int
    epochs: int
    batch: int
    learning_rate: float


HOSTS = {
    "autoencoder": HostSpec("images", 4, 128, 32, 200, 16, 1e-3),
    # As its authors train it; anomalib has the same networks.
    "draem": HostSpec("images", 16, 256, 128, 700, 8, 1e-4),
    "future-frame": HostSpec("videos", 8, 256, 64, 60, 4, 2e-4),
}


def make_host(
    name: str, block: Block, width: int, dtd_dir: Path | None, flow_weights: Path | None
) -> Host:
    """One of ``HOSTS`` with fresh weights, on the CPU in float32."""
    if name == "draem":
        from .draem import Draem  # anomalib takes seconds to import

        return Draem(block, width, dtd_dir)
    if name == "future-frame":
        from .future_frame import FutureFrame

        return FutureFrame(block, width=width, flow_weights=flow_weights)
    from .autoencoder import Autoencoder

    return Autoencoder(block, width)
