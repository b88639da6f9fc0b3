"""Frame-level AUC of videos, micro and macro."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .curves import check_finite, check_samples, roc_auc

Scores = Sequence[NDArray[np.floating]]  # of each video: (frames,), finite
Labels = Sequence[NDArray[np.bool_]]  # of each video: (frames,), True is abnormal


def normalise(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Scores (frames,) of a video, shifted and scaled to [0, 1]; all 0 where they don't differ."""
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"normalise: scores must be (frames,), frames ≥ 1; got {scores.shape}")
    check_finite(scores, "normalise")
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.zeros_like(scores)


def micro_auc(scores: Scores, labels: Labels) -> float:
    """AUC of the frames of all videos together.

    Frames of one video are compared with those of another, so normalise scores before.

    Raises:
        ValueError: with the rule that was broken and the values seen.
    """
    _check_videos(scores, labels, "micro_auc")
    return roc_auc(np.concatenate(scores), np.concatenate(labels))


def macro_auc(scores: Scores, labels: Labels) -> float:
    """Mean over videos of each one's AUC.

    It must exist for videos without abnormal, or without normal, frames too. So each video gets one
    more normal frame with its lowest score and one more abnormal frame with its highest, which
    raises its AUC a little, the more the shorter it is. Published code (of Ristea et al., AED-MAE,
    among others) gives the two the scores 0 and 1: the same where scores are normalised.

    Raises:
        ValueError: with the rule that was broken and the values seen.
    """
    _check_videos(scores, labels, "macro_auc")
    return float(np.mean([_auc(*video) for video in zip(scores, labels, strict=True)]))


def _auc(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """AUC of a video with one more normal and one more abnormal frame."""
    return roc_auc(
        np.concatenate(([scores.min()], scores, [scores.max()])),
        np.concatenate(([False], labels, [True])),
    )


def _check_videos(scores: Scores, labels: Labels, name: str) -> None:
    if len(scores) != len(labels) or not len(scores):
        raise ValueError(
            f"{name}: scores and labels must be of the same videos, at least one; "
            f"got {len(scores)} and {len(labels)}"
        )
    for index, video in enumerate(zip(scores, labels, strict=True)):
        check_samples(*video, f"{name}, video {index}")
