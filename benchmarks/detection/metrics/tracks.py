"""Region- and track-based detection criteria (RBDC, TBDC) of videos.

Ramachandra and Jones, "Street Scene: A new dataset and evaluation protocol for video anomaly
detection", WACV 2020. At a threshold, a true region is detected when its intersection over union
with a detected region of its frame is at least beta. A track is detected when at least the fraction
alpha of its regions is. A detected region is a false positive when it meets no true region so. RBDC
and TBDC are the areas under the rates of detected regions and tracks against the false positives
per frame, from 0 to 1, with alpha = beta = 0.1.

Conventions, those of the public evaluation code of Georgescu et al. (TPAMI 2021) unless noted:

- Regions are boxes. A detected region has a box and a score, and is there at thresholds up to its
  score; the definition would also let the boxes of a score map change with the threshold.
- A detected region can detect several true ones. Several that meet one true region are no false
  positives.
- The curve is a step: at x false positives per frame it has the highest rate that a threshold with
  at most x gives. Where there are fewer false positives than frames, it goes on level to 1.
- Equal scores pass a threshold together; there, the order of the detections decides.
- Boxes are half-open, [top, bottom) × [left, right); there, they include the last row and column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .regions import Detections, TrueRegion, check_video, columns_of

ALPHA = 0.1  # fraction of a track's regions
BETA = 0.1  # intersection over union


class _Matches(NamedTuple):
    """The highest thresholds at which things are detected; -inf: at none."""

    regions: NDArray[np.float64]  # of each true region: the best score that meets it
    tracks: NDArray[np.float64]  # of each track
    false_positives: NDArray[np.floating]  # of each detection without a true region


def rbdc(
    detections: Sequence[Detections], regions: Sequence[Sequence[TrueRegion]], frames: Sequence[int]
) -> float:
    """Area under the detection rate of regions against false positives per frame, 0 to 1.

    Args:
        detections: of each video.
        regions: of each video all true regions; of all videos at least one.
        frames: how many each video has; detections and regions lie in them.

    Raises:
        ValueError: with the rule that was broken and the values seen.
    """
    found, _, false_positives = _match_videos(detections, regions, frames, "rbdc")
    return _area(found, false_positives, sum(frames))


def tbdc(
    detections: Sequence[Detections], regions: Sequence[Sequence[TrueRegion]], frames: Sequence[int]
) -> float:
    """Area under the detection rate of tracks; arguments and errors as of :func:`rbdc`."""
    _, found, false_positives = _match_videos(detections, regions, frames, "tbdc")
    return _area(found, false_positives, sum(frames))


def _area(found: NDArray[np.float64], false_positives: NDArray[np.floating], frames: int) -> float:
    """Mean over k = 0 … frames - 1 of the rate just above the score of the false positive k + 1."""
    limits = np.full(frames, -np.inf)
    highest = np.sort(false_positives)[::-1][:frames]
    limits[: len(highest)] = highest
    above = len(found) - np.searchsorted(np.sort(found), limits, side="right")
    return float(above.mean() / len(found))


def _match_videos(
    detections: Sequence[Detections],
    regions: Sequence[Sequence[TrueRegion]],
    frames: Sequence[int],
    name: str,
) -> _Matches:
    if not len(detections) == len(regions) == len(frames):
        raise ValueError(
            f"{name}: detections, regions and frames must be of the same videos; "
            f"got {len(detections)}, {len(regions)} and {len(frames)}"
        )
    if not any(regions):
        raise ValueError(f"{name}: there must be a true region; got none in {len(regions)} videos")
    for index, video in enumerate(zip(detections, regions, frames, strict=True)):
        check_video(*video, f"{name}, video {index}")
    videos = [_match(*video) for video in zip(detections, regions, strict=True)]
    return _Matches(*(np.concatenate(scores) for scores in zip(*videos, strict=True)))


def _match(detections: Detections, regions: Sequence[TrueRegion]) -> _Matches:
    frames, tracks, boxes = columns_of(regions)
    found = np.full(len(regions), -np.inf)
    meets = np.zeros(len(detections.frames), np.bool_)
    for frame in np.unique(frames):
        detected, true = np.flatnonzero(detections.frames == frame), np.flatnonzero(frames == frame)
        meet = _iou(detections.boxes[detected], boxes[true]) >= BETA
        meets[detected] = meet.any(axis=1)
        scores = np.where(meet, detections.scores[detected, None], -np.inf)
        found[true] = scores.max(axis=0, initial=-np.inf)
    found_tracks = [_score_of_track(found[tracks == track]) for track in np.unique(tracks)]
    return _Matches(found, np.array(found_tracks, np.float64), detections.scores[~meets])


def _score_of_track(found: NDArray[np.float64]) -> float:
    """The score of the last region that makes them enough, best regions first."""
    fractions = np.arange(1, len(found) + 1) / len(found)
    return float(np.sort(found)[::-1][np.searchsorted(fractions, ALPHA)])


def _iou(detected: NDArray[np.floating], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of boxes (n, 4) with boxes (m, 4): (n, m)."""
    first = np.maximum(detected[:, None, :2], true[None, :, :2])
    last = np.minimum(detected[:, None, 2:], true[None, :, 2:])
    intersection = np.clip(last - first, 0, None).prod(axis=-1)
    return intersection / (_areas(detected)[:, None] + _areas(true) - intersection)


def _areas(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
