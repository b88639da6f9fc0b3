"""What data sets give, whatever they are read from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset


class ImageSample(NamedTuple):
    """A test image and its truth."""

    image: Tensor  # (3, S, S), float32, 0..1
    mask: Tensor  # (S, S), bool
    label: bool  # True: anomalous
    path: str


class ImageData(NamedTuple):
    """Images of one category."""

    train: Dataset[Tensor]  # normal images (3, S, S), float32, 0..1
    test: Dataset[ImageSample]


class Region(NamedTuple):
    """An anomalous region of a frame; those of one object have one track."""

    track: int
    frame: int
    box: tuple[float, float, float, float]  # top, left, bottom, right; pixels of S × S, half-open


class Truth(NamedTuple):
    """What is known of a test video."""

    labels: NDArray[np.bool_]  # (frames,), True: abnormal
    regions: list[Region]
    regions_from: Literal["annotations", "connected components"]


class Frames(Protocol):
    """The frames of a video, numbered from 0."""

    def __len__(self) -> int: ...

    def read(self, first: int, length: int) -> Tensor:
        """``length`` frames from ``first`` on: (length, 3, S, S), uint8."""


class Video:
    """A test video of ``length`` frames; these and their truth are read when they are asked for."""

    def __init__(self, name: str, frames: Frames, length: int, truth: Callable[[], Truth]) -> None:
        self.name = name
        self._frames = frames
        self._length = length
        self._read_truth = truth

    def __len__(self) -> int:
        return self._length

    def clip(self, first: int, length: int) -> Tensor:
        """Frames ``first`` to ``first + length - 1``: (length, 3, S, S), float32, -1..1."""
        return signed(self._frames.read(first, length))

    @cached_property
    def _truth(self) -> Truth:
        return self._read_truth()

    @property
    def labels(self) -> NDArray[np.bool_]:
        """(frames,), True: abnormal."""
        return self._truth.labels

    @property
    def regions(self) -> list[Region]:
        """The anomalous regions of all frames."""
        return self._truth.regions

    @property
    def regions_from(self) -> Literal["annotations", "connected components"]:
        """Whether people drew the regions, or they are made from masks."""
        return self._truth.regions_from


class VideoData(NamedTuple):
    """Videos of one data set."""

    train: Dataset[Tensor]  # normal clips (context + 1, 3, S, S), float32, -1..1
    test: Sequence[Video]


def signed(frames: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return frames.float() / 127.5 - 1
