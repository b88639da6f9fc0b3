"""Figures of one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from .evaluate import Evaluation, Example, Series

_VIDEOS = 12  # drawn at most


def draw(
    folder: Path, title: str, evaluation: Evaluation, losses: Sequence[Sequence[float]]
) -> None:
    """Writes ``curves.png`` and, as there are examples or not, ``maps.png`` or ``frames.png``.

    Args:
        losses: per step L_F and the block's loss.
    """
    scores = np.concatenate([series.scores for series in evaluation.series])
    labels = np.concatenate([series.labels for series in evaluation.series])
    _curves(folder / "curves.png", title, scores, labels, np.asarray(losses))
    if evaluation.examples:
        _maps(folder / "maps.png", title, evaluation.examples)
    else:
        _frames(folder / "frames.png", title, evaluation.series)


def _curves(
    path: Path,
    title: str,
    scores: NDArray[np.floating],
    labels: NDArray[np.bool_],
    losses: NDArray[np.float64],
) -> None:
    """ROC and PR curve of images or frames, and the losses of training."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    figure.suptitle(title)
    roc, pr, training = figure.subplots(1, 3)
    fpr, tpr, _ = roc_curve(labels, scores)
    roc.plot(fpr, tpr)
    roc.plot([0, 1], [0, 1], ":", color="grey")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    precision, recall, _ = precision_recall_curve(labels, scores)
    pr.step(recall, precision, where="pre")
    pr.axhline(labels.mean(), linestyle=":", color="grey")
    pr.set(xlabel="recall", ylabel="precision", ylim=(0, 1.03), title="precision and recall")
    for column, label in enumerate(("host, L_F", "block, L_SSPCAB")):
        if losses[:, column].any():
            training.plot(losses[:, column], linewidth=0.8, label=label)
    training.set(xlabel="step", yscale="log", title="training losses")
    training.legend()
    for axis in (roc, pr, training):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _maps(path: Path, title: str, examples: Sequence[Example]) -> None:
    """A row per example: image, truth, anomaly map; one colour scale for all maps."""
    figure = Figure(figsize=(7, 2.2 * len(examples) + 0.6), layout="constrained")
    figure.suptitle(title)
    ceiling = max(float(example.anomaly_map.max()) for example in examples)
    axes = figure.subplots(len(examples), 3, squeeze=False)
    for row, example in zip(axes, examples, strict=True):
        row[0].imshow(example.image)
        row[1].imshow(example.mask, cmap="gray", vmin=0, vmax=1)
        heat = row[2].imshow(example.anomaly_map, cmap="inferno", vmin=0, vmax=ceiling)
        row[0].set_ylabel(example.kind)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, heading in zip(axes[0], ("image", "truth", "anomaly map"), strict=True):
        axis.set_title(heading)
    figure.colorbar(heat, ax=axes, aspect=40)
    figure.savefig(path, dpi=110)


def _frames(path: Path, title: str, series: Sequence[Series]) -> None:
    """The score over time of each video, abnormal intervals shaded."""
    shown = series[:_VIDEOS]
    figure = Figure(figsize=(9, 1.5 * len(shown) + 0.8), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axis, video in zip(axes, shown, strict=True):
        axis.plot(video.scores)
        for first, last in intervals(video.labels):
            axis.axvspan(first - 0.5, last - 0.5, color="red", alpha=0.2, linewidth=0)
        axis.set(ylabel=video.name, ylim=(-0.03, 1.03), xlim=(0, len(video.scores) - 1))
    axes[-1].set_xlabel("frame scored; score of the frame in 0..1, shaded: abnormal")
    figure.savefig(path, dpi=110)


def intervals(labels: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Runs of True as half-open intervals ``[first, last)``."""
    padded = np.concatenate(([False], labels, [False])).astype(np.int8)
    edges = np.flatnonzero(np.diff(padded))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
