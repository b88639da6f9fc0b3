"""Metrics and the figure."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from .data import KINDS, TestCrops
from .train import LAMBDA, EpochLoss

_TOP_PIXELS = 100  # a crop's score is the mean of so many pixels: about the size of a defect


class Result(NamedTuple):
    """What one host gave."""

    name: str
    maps: NDArray[np.float32]  # (N, H, W)
    history: list[EpochLoss]


class Metrics(NamedTuple):
    """Areas under curves, 0..1, higher is better. Chance: 0.5 for AUROC, for AP the share of
    defective pixels."""

    image_auroc: float
    pixel_auroc: float
    pixel_ap: float


def evaluate(maps: NDArray[np.float32], crops: TestCrops) -> Metrics:
    """Scores anomaly maps ``(N, H, W)`` against the truth."""
    pixels = maps.reshape(len(maps), -1)
    image_scores = np.sort(pixels, axis=1)[:, -_TOP_PIXELS:].mean(axis=1)
    truth = crops.masks.ravel()
    return Metrics(
        image_auroc=float(roc_auc_score(crops.defective, image_scores)),
        pixel_auroc=float(roc_auc_score(truth, maps.ravel())),
        pixel_ap=float(average_precision_score(truth, maps.ravel())),
    )


def table(results: list[Result], crops: TestCrops) -> str:
    """The metrics of each host, one line each, and what chance would give."""
    lines = [f"{'':14}{'image AUROC':>12}{'pixel AUROC':>12}{'pixel AP':>12}"]
    rows = [(result.name, evaluate(result.maps, crops)) for result in results]
    rows.append(("chance", Metrics(0.5, 0.5, float(crops.masks.mean()))))
    lines += [f"{name:14}" + "".join(f"{value:12.3f}" for value in row) for name, row in rows]
    return "\n".join(lines)


def draw_figure(path: Path, title: str, results: list[Result], crops: TestCrops) -> None:
    """Writes a PNG: the first crop of each kind with its truth and maps, and the losses."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    figure.suptitle(title, fontsize="x-large")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.15, 1))[0]

    kinds = (*KINDS, "normal")
    ceiling = max(float(np.quantile(result.maps, 0.99)) for result in results)
    axes = left.subplots(len(kinds), 2 + len(results))
    for row, kind in zip(axes, kinds, strict=True):
        index = crops.kinds.index(kind)
        row[0].imshow(crops.images[index], cmap="gray", vmin=0, vmax=1)
        row[1].imshow(crops.masks[index], cmap="gray", vmin=0, vmax=1)
        for axis, result in zip(row[2:], results, strict=True):
            heat = axis.imshow(result.maps[index], cmap="inferno", vmin=0, vmax=ceiling)
        row[0].set_ylabel(kind, fontsize="large")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    headings = ("input", "truth", *(f"anomaly map\n{result.name}" for result in results))
    for axis, heading in zip(axes[0], headings, strict=True):
        axis.set_title(heading)
    left.colorbar(heat, ax=axes, aspect=40, label="squared error", extend="max")

    curves, bars = right.subplots(2, 1)
    for result in results:
        epochs = range(1, len(result.history) + 1)
        curves.plot(epochs, [loss.task for loss in result.history], label=f"task, {result.name}")
        if any(loss.block for loss in result.history):
            label = f"λ · reconstruction, λ = {LAMBDA}"
            curves.plot(epochs, [loss.block for loss in result.history], "--", label=label)
    curves.set(xlabel="epoch", ylabel="loss", yscale="log", title="training losses")
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.grid(alpha=0.3)
    curves.legend()

    names = ("image AUROC", "pixel AUROC", "pixel AP")
    for offset, result in enumerate(results):
        places = np.arange(len(names)) + 0.4 * offset - 0.2
        bars.bar_label(
            bars.bar(places, evaluate(result.maps, crops), 0.4, label=result.name), fmt="%.3f"
        )
    bars.set_xticks(range(len(names)), names)
    bars.set(ylim=(0, 1.1), title="detection of the defects")
    bars.legend(loc="upper right")
    for axis in (curves, bars):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
