"""Evaluation, tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor

from benchmarks.detection import evaluate, figures, report, run
from benchmarks.detection.blocks import Block, Kind
from benchmarks.detection.hosts.autoencoder import Autoencoder
from benchmarks.detection.hosts.future_frame import FutureFrame

from .training_cases import (
    images,
    videos,
)


class Oracle(FutureFrame):
    """Foresees black frames."""

    def __init__(self) -> None:
        super().__init__(Block("none"), width=1)

    def predict(self, clips: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(clips[:, -1]), None


def test_a_host_that_foresees_all_but_the_abnormal_is_perfect() -> None:
    found = evaluate.evaluate_videos(Oracle(), videos(), run.CONTEXT, batch=5)
    assert found.metrics["micro AUC"] == found.metrics["macro AUC"] == 1
    assert found.metrics["RBDC"] == found.metrics["TBDC"] == 1  # the region in frame 2 is left out
    assert found.regions_from == "annotations"
    first = found.series[0]
    assert first.name == "01" and len(first.scores) == 12  # of 16 frames
    assert first.labels.nonzero()[0].tolist() == [4, 5, 6, 7]
    assert first.scores.min() == 0 and first.scores.max() == 1


def test_videos_without_regions_have_no_rbdc() -> None:
    data = videos()
    for video in data.test:
        video.regions.clear()
    found = evaluate.evaluate_videos(Oracle(), data, run.CONTEXT, batch=16)
    assert set(found.metrics) == {"micro AUC", "macro AUC"} and found.regions_from == ""


class GreyExpected(Autoencoder):
    """Restores every image as grey."""

    def restore(self, x: Tensor) -> tuple[Tensor, None]:
        return torch.full_like(x, 0.55), None


def test_a_host_that_restores_all_but_the_defects_is_perfect() -> None:
    found = evaluate.evaluate_images(GreyExpected(Block("none"), 8), images().test, batch=3)
    assert found.metrics["image AUROC"] == found.metrics["image AP"] == 1
    assert found.metrics["pixel AUROC"] > 0.98 and found.metrics["AUPRO"] > 0.9
    assert found.series[0].labels.tolist() == [False, True] * 4
    assert [example.kind for example in found.examples] == ["good", "cut"]
    assert found.examples[1].mask.sum() == 64 and found.examples[1].image[0, 0].tolist() == [1] * 3


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 1, 0, 1], [(1, 3), (4, 5)]),
        ([1, 1], [(0, 2)]),
        ([0, 0], []),
    ],
)
def test_intervals(labels: list[int], expected: list[tuple[int, int]]) -> None:
    assert figures.intervals(np.array(labels, bool)) == expected


def test_shaded_intervals_are_in_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shaded: list[tuple[float, float]] = []

    def spy(self: Axes, first: float, last: float, **_: Any) -> None:
        shaded.append((first, last))

    monkeypatch.setattr(Axes, "axvspan", spy)
    found = evaluate.evaluate_videos(Oracle(), videos(), run.CONTEXT, batch=16)
    figures.draw(tmp_path, "title", found, [[1.0, 0.0], [0.5, 0.0]])
    assert shaded == [(3.5, 7.5)] * 2
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "frames.png"}


def result(block: Kind, seed: int, auroc: float, **changes: object) -> report.Result:
    fields = {
        "data": "mvtec",
        "miniature": False,
        "host": "draem",
        "category": "bottle",
        "block": block,
        "seed": seed,
        "dtype": "float32",
        "metrics": {"image AUROC": auroc, "pixel AUROC": 0.5, "pixel AP": 0.25},
        "regions_from": "",
        "losses": [[1.0, 0.5], [0.5, 0.25]],
        "train_seconds": 10.0,
        "evaluate_seconds": 2.0,
        "environment": "a machine",
    }
    return report.Result(**fields | changes)  # type: ignore[arg-type]


def test_table_has_mean_and_deviation_over_seeds() -> None:
    """Mean of 0.90, 0.92, 0.94 and their deviation, 0.02; categories are averaged before."""
    several = [
        result("none", seed, auroc + shift, category=category)
        for seed, auroc in enumerate((0.90, 0.92, 0.94))
        for category, shift in (("bottle", 0.02), ("cable", -0.02))
    ]
    lines = report.table(several).splitlines()
    assert "the real data" in lines[0] and "3 seeds" in lines[0] and lines[1] == "a machine"
    assert [line.split()[:4] for line in lines[3:]] == [
        ["bottle", "none", "94.0", "±"],
        ["cable", "none", "90.0", "±"],
        ["mean", "none", "92.0", "±"],
    ]
    assert "92.0 ± 2.0" in lines[-1] and "25.0 ± 0.0" in lines[-1] and "10.0" in lines[-1]
    assert "±" not in report.table([several[0]])


def test_table_says_where_regions_are_from() -> None:
    text = report.table([result("none", 0, 0.5, regions_from="connected components")])
    assert text.splitlines()[-1].endswith("TBDC: connected components")


def test_comparison_of_blocks() -> None:
    fused = result("fused", 0, 0.90)
    other = result(
        "reference", 0, 0.91, losses=[[1.0, 0.5], [0.5, 0.25 + 1e-9]], train_seconds=16.0
    )
    unpaired = result("reference", 1, 0.1)
    text = report.comparison_of_blocks([fused, other, unpaired])
    assert "first 2 steps differ by at most 1.0e-09" in text and "at most 1.00 points" in text
    assert "1.60 times as long to train, 1.50 times with evaluation" in text
    assert report.comparison_of_blocks([fused, unpaired]) == ""


def test_comparison_with_published_says_what_was_run_on_what() -> None:
    results = [
        result("none", 0, 0.90),
        result("fused", 0, 0.91),
        result("reference", 0, 0.2),
        result("fused", 0, 0.3, miniature=True),
    ]
    lines = report.comparison_with_published(results).splitlines()
    detection = [line for line in lines if "draem" in line and "image AUROC" in line]
    assert len(detection) == 2
    assert "? → 98.9" in detection[0] and "90.0 → 91.0" in detection[0]
    assert detection[0].endswith("the real data")
    assert "? → 30.0" in detection[1] and detection[1].endswith("a miniature")
    avenue = [line for line in lines if line.startswith("avenue")]
    assert "85.1 → 87.3" in avenue[0] and all(line.endswith("not run") for line in avenue)
