"""Images and frames: decoded, resized, and kept for a while.

OpenCV decodes. It finds frame k of an AVI with B frames or an open GOP, where the timestamps that
PyAV seeks by are out of order, and it is what the data sets' users number frames with.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from .layout import Layout
from .samples import Frames, signed

Pixels = NDArray[np.uint8]

_DECODERS = 8  # open at once
_KEPT_BYTES = 256 << 20  # of resized frames, in each process

cv2.setNumThreads(0)  # data loaders have processes for that; OpenCV's threads don't outlive a fork


def read_image(path: Path, layout: Layout, *, grey: bool = False) -> Pixels:
    """An image file as ``(H, W, 3)``, red first, or as ``(H, W)``."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise layout.error(f"there must be an image that can be decoded in {path}")
    return np.asarray(image, np.uint8)


def resize(image: Pixels, size: int) -> Tensor:
    """``(H, W, 3)`` to ``(3, size, size)``, uint8; each pixel the mean of those that it covers."""
    smaller = size <= min(image.shape[:2])
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(image, (size, size), interpolation=method), np.uint8)
    return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))


class _Kept:
    """The frames read last, up to a number of bytes, as a training reads small data sets anew."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._frames: OrderedDict[tuple[Path, int, int], Tensor] = OrderedDict()

    def get(self, key: tuple[Path, int, int]) -> Tensor | None:
        if key in self._frames:
            self._frames.move_to_end(key)
        return self._frames.get(key)

    def put(self, key: tuple[Path, int, int], frame: Tensor) -> None:
        self._frames[key] = frame
        self._bytes += frame.nbytes
        while self._bytes > self._limit:
            self._bytes -= self._frames.popitem(last=False)[1].nbytes


_kept = _Kept(_KEPT_BYTES)


class _Source(ABC):
    """Frames of one size from one path; those still kept are not decoded again."""

    def __init__(self, path: Path, size: int, layout: Layout) -> None:
        self.path = path
        self._size = size
        self._layout = layout

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _decode(self, first: int, end: int) -> Iterator[Pixels]:
        """Frames ``first`` to ``end - 1``, each (H, W, 3)."""

    def read(self, first: int, length: int) -> Tensor:
        """``length`` frames from ``first`` on: (length, 3, S, S), uint8."""
        end = first + length
        if not 0 <= first < end <= len(self):
            raise IndexError(f"{self.path} has the frames [0, {len(self)}); got [{first}, {end})")
        kept = {number: _kept.get((self.path, self._size, number)) for number in range(first, end)}
        frames = {number: frame for number, frame in kept.items() if frame is not None}
        missing = [number for number in kept if number not in frames]
        if missing:
            part = range(missing[0], missing[-1] + 1)
            for number, image in zip(part, self._decode(part.start, part.stop), strict=True):
                if number not in frames:
                    frames[number] = resize(image, self._size)
                    _kept.put((self.path, self._size, number), frames[number])
        return torch.stack([frames[number] for number in kept])


@lru_cache(maxsize=_DECODERS)
def _decoder(path: Path) -> cv2.VideoCapture:
    """Open at the frame after the one read last. One thread: a fork would lose the others."""
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])


# A forked worker shares the file offset of a decoder that its parent opened.
os.register_at_fork(after_in_child=_decoder.cache_clear)


class VideoFile(_Source):
    """The frames of a video file, decoded one after another from the last key frame on."""

    def __init__(self, path: Path, size: int, layout: Layout) -> None:
        super().__init__(layout.file(path), size, layout)
        self._length = int(_decoder(path).get(cv2.CAP_PROP_FRAME_COUNT))
        if self._length < 1:
            raise layout.error(f"there must be a video that can be decoded in {path}")

    def __len__(self) -> int:
        return self._length

    def _decode(self, first: int, end: int) -> Iterator[Pixels]:
        decoder = _decoder(self.path)
        if decoder.get(cv2.CAP_PROP_POS_FRAMES) != first:
            decoder.set(cv2.CAP_PROP_POS_FRAMES, first)
        for number in range(first, end):
            found, image = decoder.read()
            if not found:
                raise self._layout.error(
                    f"{self.path} must have the {len(self)} frames of its header; got {number}"
                )
            yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


class FrameFolder(_Source):
    """The frames of a video that lie in a folder, one image file each."""

    def __init__(self, files: Sequence[Path], size: int, layout: Layout) -> None:
        super().__init__(files[0].parent, size, layout)
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def _decode(self, first: int, end: int) -> Iterator[Pixels]:
        for file in self._files[first:end]:
            yield read_image(file, self._layout)


class Clips(Dataset[Tensor]):
    """All clips of so many consecutive frames: (length, 3, S, S), float32, -1..1."""

    def __init__(self, videos: Sequence[Frames], length: int) -> None:
        self._videos = videos
        self._length = length
        counts = [max(len(video) - length + 1, 0) for video in videos]
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} clips; got {index}")
        video = int(np.searchsorted(self._ends, index, side="right"))
        first = index - int(self._ends[video - 1] if video else 0)
        return signed(self._videos[video].read(first, self._length))
