"""Metrics of images and of frames: cases worked out by hand, other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from benchmarks.detection.metrics import (
    average_precision,
    macro_auc,
    micro_auc,
    normalise,
    roc_auc,
)

from .metric_cases import (
    generator,
)


def test_auroc_and_ap_by_hand() -> None:
    # Pairs (anomalous, normal): 0.9 beats both; 0.4 loses to 0.6 and beats 0.1: 3 of 4 pairs.
    # Thresholds that add recall: 0.9 (precision 1), 0.4 (precision 2/3): (1 + 2/3) / 2.
    scores, labels = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True])
    assert roc_auc(scores, labels) == 3 / 4
    assert average_precision(scores, labels) == pytest.approx(5 / 6, abs=1e-15)


def test_equal_scores_count_half() -> None:
    # Of 2 pairs, one is won and one is equal: 1.5 / 2. AP: one threshold for both at 0.5, where
    # precision is 1/2 and recall goes from 0 to 1.
    assert roc_auc(np.array([0.5, 0.1, 0.5]), np.array([False, False, True])) == 3 / 4
    assert average_precision(np.array([0.5, 0.1, 0.5]), np.array([False, False, True])) == 1 / 2


def test_images_against_torchmetrics() -> None:
    g = generator()
    scores = g.random(500).round(2)  # with equal ones
    labels = g.random(500) < 0.3
    ours = roc_auc(scores, labels), average_precision(scores, labels)
    samples = torch.from_numpy(scores), torch.from_numpy(labels).long()
    theirs = float(binary_auroc(*samples)), float(binary_average_precision(*samples))
    assert ours == pytest.approx(theirs, abs=1e-6)  # theirs are float32


def test_micro_and_macro_by_hand() -> None:
    scores = [np.array([0.0, 1.0, 0.6]), np.array([0.0, 0.2, 1.0])]
    labels = [np.array([False, True, False]), np.array([False, False, False])]
    # Micro: the abnormal frame beats 0, 0.6, 0, 0.2 and equals 1: 4.5 of 5 pairs.
    assert micro_auc(scores, labels) == pytest.approx(4.5 / 5)
    # Macro, with a normal frame of 0 and an abnormal one of 1 in each video. First: normal 0, 0.6,
    # 0, abnormal 1, 1: AUC 1. Second: normal 0, 0.2, 1, 0, abnormal 1: 3.5 of 4 pairs.
    assert macro_auc(scores, labels) == pytest.approx((1 + 3.5 / 4) / 2)


def test_macro_of_abnormal_frames_alone() -> None:
    # Abnormal 0, 1 and the added 1, against the added normal 0: (0.5 + 1 + 1) / 3.
    assert macro_auc([np.array([0.0, 1.0])], [np.array([True, True])]) == pytest.approx(2.5 / 3)


def test_macro_does_not_compare_videos() -> None:
    """Scores of another scale in one video change micro AUC alone."""
    scores = [generator(0).random(40), generator(1).random(40)]
    labels = [generator(2).random(40) < 0.5, generator(3).random(40) < 0.1]
    scaled = [scores[0], 100 + 5 * scores[1]]
    assert macro_auc(scaled, labels) == macro_auc(scores, labels)
    assert micro_auc(scaled, labels) != micro_auc(scores, labels)
    normalised = [normalise(video) for video in scaled]
    assert micro_auc(normalised, labels) == micro_auc([normalise(v) for v in scores], labels)


def test_normalise() -> None:
    assert normalise(np.array([3.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 0.5]
    assert normalise(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]
