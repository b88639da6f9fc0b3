"""What holds of every metric."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.detection.metrics import (
    Detections,
    average_precision,
    macro_auc,
    micro_auc,
    region_detections,
    roc_auc,
)

from .metric_cases import (
    Region,
    Transform,
    blobs,
    both,
    generator,
    pixel_metrics,
    random_videos,
)

MONOTONE: list[Transform] = [
    np.exp,
    np.arctan,
    lambda x: 3 * x - 7,
    lambda x: x**3,
]


@pytest.mark.parametrize("transform", MONOTONE)
@pytest.mark.parametrize("seed", range(4))
def test_monotone_transforms_change_nothing(transform: Transform, seed: int) -> None:
    g = generator(seed)
    scores, labels = g.integers(-8, 8, 60).astype(np.float64), g.random(60) < 0.4
    for metric in (roc_auc, average_precision):
        assert metric(transform(scores), labels) == metric(scores, labels)
    videos, truths = np.split(scores, 3), np.split(labels, 3)
    transformed = [transform(video) for video in videos]
    for metric_of_videos in (micro_auc, macro_auc):
        assert metric_of_videos(transformed, truths) == metric_of_videos(videos, truths)
    found, truth, frames = random_videos(seed)
    moved = [video._replace(scores=transform(video.scores / 10)) for video in found]
    assert both(moved, truth, frames) == both(found, truth, frames)


@pytest.mark.parametrize("transform", MONOTONE)
def test_monotone_transforms_change_pixels_by_no_more_than_bins_do(
    transform: Transform,
) -> None:
    scores, masks = blobs(6, 40)
    scores = scores.astype(np.float32).astype(np.float64)
    found = pixel_metrics(transform(scores), masks)
    assert found == pytest.approx(pixel_metrics(scores, masks), abs=2e-4)


def test_perfect_scores() -> None:
    _, masks = blobs(6, 40)
    assert pixel_metrics(masks.astype(np.float64), masks) == {"auroc": 1, "ap": 1, "aupro": 1}
    labels = np.array([bool(mask.any()) for mask in masks])
    scores = labels.astype(np.float64)
    assert roc_auc(scores, labels) == average_precision(scores, labels) == 1
    assert micro_auc([scores], [labels]) == macro_auc([scores], [labels]) == 1
    truth = [
        Region(0, 0, (2, 3, 9, 12)),
        Region(0, 2, (4, 3, 11, 12)),
        Region(1, 2, (20, 20, 25, 29)),
    ]
    maps = np.zeros((4, 30, 30))
    for _, frame, (top, left, bottom, right) in truth:
        maps[frame, top:bottom, left:right] = 1
    assert both([region_detections(maps, 0.5)], [truth], [4]) == (1, 1)


def test_random_scores() -> None:
    g = generator()
    _, masks = blobs(40, 64)
    found = pixel_metrics(g.random(masks.shape), masks)
    assert found["auroc"] == pytest.approx(0.5, abs=0.01)
    assert found["ap"] == pytest.approx(masks.mean(), abs=0.01)
    assert found["aupro"] == pytest.approx(0.15, abs=0.01)  # the diagonal's area to 0.3, over 0.3
    scores, labels = g.random(20_000), g.random(20_000) < 0.2
    assert roc_auc(scores, labels) == pytest.approx(0.5, abs=0.02)
    assert average_precision(scores, labels) == pytest.approx(0.2, abs=0.02)
    videos = np.split(scores, 10), np.split(labels, 10)
    assert micro_auc(*videos) == pytest.approx(0.5, abs=0.02)
    assert macro_auc(*videos) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_order_changes_nothing(seed: int) -> None:
    g = generator(seed)
    found, truth, frames = random_videos(seed)
    shuffled = []
    for video in found:
        order = g.permutation(len(video.scores))
        shuffled.append(Detections(video.frames[order], video.boxes[order], video.scores[order]))
    order = g.permutation(3)
    reordered = [[column[k] for k in order] for column in (shuffled, truth, frames)]
    assert both(*reordered) == pytest.approx(both(found, truth, frames), abs=1e-12)  # type: ignore[arg-type]
