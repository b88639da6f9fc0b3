"""Small hosts, data and data sets of the tests of training, evaluation and the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.detection import checkpoint, run
from benchmarks.detection import train as training
from benchmarks.detection.blocks import Block, Kind
from benchmarks.detection.data.samples import (
    ImageData,
    ImageSample,
    Region,
    VideoData,
)
from benchmarks.detection.hosts import HOSTS, Host, make_host

ROOT = Path(__file__).resolve().parents[3]
SIZE = 32
SMALL = training.Training(epochs=3, batch=4, learning_rate=1e-3, seed=0)  # 6 steps of 8 samples


def samples(name: str) -> Tensor:
    """Eight images or clips."""
    generator = torch.Generator().manual_seed(0)
    if HOSTS[name].takes == "images":
        return torch.rand(8, 3, SIZE, SIZE, generator=generator)
    return torch.rand(8, run.CONTEXT + 1, 3, SIZE, SIZE, generator=generator) * 2 - 1


def data_of(name: str) -> Dataset[Tensor]:
    return cast("Dataset[Tensor]", samples(name))


def make_small(name: str, kind: Kind = "fused", dtype: torch.dtype = torch.float32) -> Host:
    checkpoint.seed_everything(0)
    return make_host(name, Block(kind), 8, None, None).to(dtype)


def weights(host: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in host.state_dict().items()}


def assert_same_weights(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]), key


class Interrupted(Exception):
    """Stands for a kill."""


class Stopping(Dataset[Tensor]):
    """Data that stop the process, one way or another, when a sample is read for the n-th time."""

    def __init__(self, data: Tensor, reads: int, stop: Callable[[], None]) -> None:
        self.data, self.reads, self.stop = data, reads, stop

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        self.reads -= 1
        if self.reads < 0:
            self.stop()
        return self.data[index]


class Clip:
    """A video of the given frames ``(n, 3, S, S)``; frames 8 to 12 are abnormal."""

    regions_from = "annotations"

    def __init__(self, name: str, frames: Tensor) -> None:
        self.name, self.frames = name, frames
        self.labels = np.zeros(len(frames), bool)
        self.labels[8:12] = True
        box = (0, 0, 8, 8)
        self.regions = [Region(track=0, frame=frame, box=box) for frame in (2, *range(8, 12))]

    def __len__(self) -> int:
        return len(self.frames)

    def clip(self, first: int, length: int) -> Tensor:
        return self.frames[first : first + length]


def videos() -> VideoData:
    """Abnormal frames have a bright corner; all have a little noise."""
    generator = torch.Generator().manual_seed(0)
    clips = []
    for name in ("01", "02"):
        frames = 0.01 * torch.rand(16, 3, SIZE, SIZE, generator=generator)
        frames[8:12, :, :8, :8] = 1
        clips.append(Clip(name, frames))
    train = [clips[0].clip(first % 4, run.CONTEXT + 1) for first in range(8)]
    return VideoData(train, clips)  # type: ignore[arg-type]


def images() -> ImageData:
    """Grey noise; every other test image has a white corner."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 + 0.1 * torch.rand(20, 3, SIZE, SIZE, generator=generator)
    test = []
    for index, image in enumerate(noise[12:]):
        mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        mask[:8, :8] = index % 2 == 1
        path = f"test/{'cut' if index % 2 else 'good'}/{index:03}.png"
        test.append(ImageSample(torch.where(mask, 1.0, image), mask, index % 2 == 1, path))
    return ImageData(noise[:12], test)  # type: ignore[arg-type]
