"""Regions of videos: the true ones, and those detected in score maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .curves import check_finite
from .overlap import NEIGHBOURS

Box = tuple[float, float, float, float]  # top, left, bottom, right; pixels, half-open


class TrueRegion(Protocol):
    """A region of the ground truth; ``track`` is a number within its video."""

    @property
    def track(self) -> int: ...
    @property
    def frame(self) -> int: ...
    @property
    def box(self) -> Box: ...


class Detections(NamedTuple):
    """Detected regions of one video, in any order."""

    frames: NDArray[np.integer]  # (n,), the frame that each lies in
    boxes: NDArray[np.floating]  # (n, 4): top, left, bottom, right; pixels, half-open
    scores: NDArray[np.floating]  # (n,), higher is more anomalous


def region_detections(score_maps: NDArray[np.floating], threshold: float) -> Detections:
    """Boxes around the connected components (8 neighbours) of ``score_maps >= threshold``.

    A region's score is the highest of its pixels. The threshold decides how far regions reach: take
    it from frames of the training set, such as a high quantile of their scores, and report it.

    Args:
        score_maps: (frames, H, W), finite.
        threshold: the least score of a region's pixels.

    Raises:
        ValueError: with the rule that was broken and the values seen.
    """
    if score_maps.ndim != 3 or not np.isfinite(threshold):
        raise ValueError(
            "region_detections: score_maps must be (frames, H, W), threshold finite; "
            f"got {score_maps.shape} and {threshold}"
        )
    check_finite(score_maps, "region_detections")
    regions, count = ndimage.label(score_maps >= threshold, NEIGHBOURS)
    slices = ndimage.find_objects(regions)
    boxes = [(rows.start, cols.start, rows.stop, cols.stop) for _, rows, cols in slices]
    return Detections(
        np.array([frame.start for frame, _, _ in slices], np.int64),
        np.array(boxes, np.float64).reshape(count, 4),
        np.asarray(ndimage.maximum(score_maps, regions, np.arange(1, count + 1)), np.float64),
    )


def columns_of(
    regions: Sequence[TrueRegion],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Frames (n,), tracks (n,) and boxes (n, 4)."""
    return (
        np.array([region.frame for region in regions], np.int64),
        np.array([region.track for region in regions], np.int64),
        np.array([region.box for region in regions], np.float64).reshape(-1, 4),
    )


def check_video(
    detections: Detections, regions: Sequence[TrueRegion], frames: int, name: str
) -> None:
    """Raises ValueError unless all of these lie in a video of so many frames."""
    count = len(detections.frames)
    shapes = tuple(column.shape for column in detections)
    if shapes != ((count,), (count, 4), (count,)):
        raise ValueError(
            f"{name}: detections must be frames (n,), boxes (n, 4), scores (n,); got {shapes}"
        )
    check_finite(detections.scores, name)
    of_regions, _, boxes = columns_of(regions)
    for what, numbers, corners in (
        ("a detection", detections.frames, detections.boxes),
        ("a true region", of_regions, boxes),
    ):
        outside = numbers[(numbers < 0) | (numbers >= frames)]
        if outside.size:
            raise ValueError(
                f"{name}: the frame of {what} must be in [0, {frames}); got {outside[0]}"
            )
        empty = corners[~(corners[:, :2] < corners[:, 2:]).all(axis=1)]
        if len(empty):
            raise ValueError(
                f"{name}: the box of {what} must have top < bottom and left < right; "
                f"got {tuple(empty[0].tolist())}"
            )
