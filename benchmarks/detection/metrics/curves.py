"""Areas under the ROC and the precision-recall curve, and what samples must be to have them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score


def roc_auc(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: how often the anomalous one of two samples has the higher score.

    Equal scores count half.

    Args:
        scores: (n,), finite; higher is more anomalous.
        labels: (n,), True is anomalous; both classes must occur.

    Raises:
        ValueError: with the rule that was broken and the values seen.
    """
    check_samples(scores, labels, "roc_auc")
    check_classes(labels, "roc_auc")
    return float(roc_auc_score(labels, scores))


def average_precision(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """Mean of the precision at each threshold, weighted by the recall that it adds.

    Arguments and errors as of :func:`roc_auc`. The curve is not interpolated.
    """
    check_samples(scores, labels, "average_precision")
    check_classes(labels, "average_precision")
    return float(average_precision_score(labels, scores))


def check_samples(scores: NDArray[np.floating], labels: NDArray[np.bool_], name: str) -> None:
    """Raises ValueError unless these are scores and labels of the same samples."""
    same = scores.ndim == 1 and scores.size and labels.shape == scores.shape
    if not same or labels.dtype != np.bool_:
        raise ValueError(
            f"{name}: scores must be (n,) and labels (n,) bool, n ≥ 1; "
            f"got {scores.shape} and {labels.shape} {labels.dtype}"
        )
    check_finite(scores, name)


def check_finite(scores: NDArray[np.floating], name: str) -> None:
    """Raises ValueError for NaN and infinities, which no threshold can order."""
    finite = np.isfinite(scores)
    if not finite.all():
        raise ValueError(
            f"{name}: scores must be finite; {(~finite).sum()} of {scores.size} are not"
        )


def check_classes(labels: NDArray[np.bool_], name: str) -> None:
    """Raises ValueError unless there are both normal and anomalous samples."""
    if labels.all() or not labels.any():
        raise ValueError(
            f"{name}: both classes must occur; {labels.sum()} of {labels.size} are anomalous"
        )
