"""Scores, masks and detections of the metrics' tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.detection.metrics import (
    Detections,
    PixelMetrics,
    rbdc,
    tbdc,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Transform = Callable[[Floats], Floats]


class Region(NamedTuple):
    track: int
    frame: int
    box: tuple[float, float, float, float]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def detections(*rows: tuple[int, tuple[float, float, float, float], float]) -> Detections:
    """Of (frame, box, score)."""
    return Detections(
        np.array([frame for frame, _, _ in rows], np.int64),
        np.array([box for _, box, _ in rows], np.float64).reshape(-1, 4),
        np.array([score for _, _, score in rows], np.float64),
    )


def blobs(count: int, size: int) -> tuple[Floats, Bools]:
    """Smooth score maps, higher in irregular masks; some images have none."""
    g = generator()
    masks = ndimage.gaussian_filter(g.normal(size=(count, size, size)), (0, 3, 3)) > 0.13
    masks[::3] = False
    noise = ndimage.gaussian_filter(g.normal(size=(count, size, size)), (0, 1, 1))
    return noise + 0.3 * masks * g.random((count, 1, 1)), masks


def pixel_metrics(
    scores: NDArray[np.floating], masks: Bools, bins: int = 2**21
) -> dict[str, float]:
    metrics = PixelMetrics(bins)
    metrics.update(scores, masks)
    return metrics.compute()


HERE, ELSEWHERE = (0, 0, 10, 10), (20, 20, 30, 30)
TWO_TRACKS = [Region(0, 0, HERE), Region(0, 1, HERE), Region(1, 2, HERE)]


def both(
    found: Sequence[Detections], regions: Sequence[Sequence[Region]], frames: Sequence[int]
) -> tuple[float, float]:
    return rbdc(found, regions, frames), tbdc(found, regions, frames)


def random_videos(seed: int) -> tuple[list[Detections], list[list[Region]], list[int]]:
    """Three videos of short tracks, with detections near them and anywhere, and equal scores."""
    g = generator(seed)
    videos, truth, frames = [], [], [12, 7, 15]
    for length in frames:
        regions: list[Region] = []
        for track in range(int(g.integers(1, 4))):
            first = int(g.integers(0, length))
            for frame in range(first, int(g.integers(first + 1, length + 1))):
                regions.append(Region(track, frame, random_box(g)))
        rows = [(int(g.integers(0, length)), random_box(g)) for _ in range(int(g.integers(0, 40)))]
        rows += [(region.frame, region.box) for region in regions if g.random() < 0.3]
        videos.append(detections(*((*row, float(g.integers(0, 40))) for row in rows)))
        truth.append(regions)
    return videos, truth, frames


def random_box(g: np.random.Generator) -> tuple[float, float, float, float]:
    top, left, height, width = g.integers((0, 0, 1, 1), (20, 20, 13, 13)).tolist()
    return (top, left, top + height, left + width)
