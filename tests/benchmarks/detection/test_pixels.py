"""Metrics of pixels: cases worked out by hand, other libraries, and what bins cost."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from benchmarks.detection.metrics import (
    PixelMetrics,
)
from benchmarks.detection.metrics.overlap import overlap_weights

from .metric_cases import (
    Bools,
    Floats,
    blobs,
    pixel_metrics,
)


def test_pixels_by_hand() -> None:
    # One image, two regions: A of one pixel (score 4), B of two (3 and 1). Ten normal pixels: two
    # score 2, the rest 0.
    scores = np.array([[[4.0, 0, 3, 1, 0], [0, 0, 0, 0, 0], [2, 2, 0, 0, 0]]])[:, :, :5]
    masks = np.zeros((1, 3, 5), np.bool_)
    masks[0, 0, [0, 2, 3]] = True
    # Normal: 15 - 3 = 12 pixels, two of them score 2.
    # AUROC: 4 and 3 beat all 12, 1 beats 10: 34 / 36.
    # AP: precision 1 at 4, 1 at 3, 3/5 at 1: (1 + 1 + 0.6) / 3.
    # Overlap: (4) A: 1/2. (3) half of B more: 3/4. (2) no more, FPR 2/12. (1) all: 1. (0) FPR 1.
    # Area to 0.3: 3/4 · 2/12 + 1 · (0.3 - 2/12), over 0.3.
    found = pixel_metrics(scores, masks)
    assert found["auroc"] == pytest.approx(34 / 36)
    assert found["ap"] == pytest.approx(2.6 / 3)
    assert found["aupro"] == pytest.approx((0.75 * 2 / 12 + 0.3 - 2 / 12) / 0.3)


def test_aupro_is_interpolated_at_its_limit() -> None:
    # One region of one pixel and two normal pixels, all of one score: the curve is the diagonal,
    # its area to 0.3 is 0.3² / 2, over 0.3.
    masks = np.array([[[True, False, False]]])
    assert pixel_metrics(np.zeros((1, 1, 3)), masks)["aupro"] == pytest.approx(0.15)


def test_regions_count_alike_whatever_their_size() -> None:
    # The region of 1 pixel is missed, that of 99 found, without a false positive: 1/2, not 0.99.
    masks = np.zeros((1, 20, 20), np.bool_)
    masks[0, :9, :11] = True
    masks[0, 15, 15] = True
    scores = np.zeros((1, 20, 20))
    scores[0, :9, :11] = 1
    # From there the curve rises straight to (1, 1): 1/2 + 0.3 / 4 on average up to 0.3.
    assert pixel_metrics(scores, masks)["aupro"] == pytest.approx(0.5 + 0.3 / 4)


def test_overlap_weights_by_hand() -> None:
    # Corners touch: one region of 3 in the first image. The pixel in the same place in the second
    # image is a region of its own.
    first = [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    second = [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    weights = overlap_weights(np.array([first, second], np.bool_))
    assert weights.tolist() == [1 / 3, 1 / 3, 1 / 3, 1, 1]


def rounded(scores: Floats, fraction_bits: int) -> Floats:
    """What bins stand for: scores, or their distances from 1, cut to so many bits of fraction."""
    about = np.where(scores.astype(np.float32) < 0.5, 0, 1)
    mantissa, exponent = np.frexp(scores.astype(np.float32) - about.astype(np.float32))
    scale = 2.0 ** (fraction_bits + 1)
    return about + np.ldexp(np.trunc(mantissa.astype(np.float64) * scale) / scale, exponent)


@pytest.mark.parametrize(("bins", "fraction_bits"), [(2**21, 11), (2**15, 5)])
def test_pixels_against_scikit_learn_and_torchmetrics(bins: int, fraction_bits: int) -> None:
    """Exact for the scores that the bins stand for, negative ones too."""
    scores, masks = blobs(8, 48)
    assert scores.min() < 0 < scores.max()
    ours = pixel_metrics(scores, masks, bins)
    samples = masks.ravel(), rounded(scores, fraction_bits).ravel()
    assert ours["auroc"] == pytest.approx(roc_auc_score(*samples), abs=1e-12)
    assert ours["ap"] == pytest.approx(average_precision_score(*samples), abs=1e-12)
    tensors = torch.from_numpy(samples[1]), torch.from_numpy(samples[0]).long()
    assert ours["auroc"] == pytest.approx(float(binary_auroc(*tensors)), abs=1e-5)
    assert ours["ap"] == pytest.approx(float(binary_average_precision(*tensors)), abs=1e-5)


@pytest.mark.parametrize(("bins", "fraction_bits"), [(2**21, 11), (2**15, 5)])
def test_aupro_against_anomalib(bins: int, fraction_bits: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reason = "needs pip install anomalib"
        aupro = pytest.importorskip("anomalib.metrics.aupro", reason=reason)._AUPRO(fpr_limit=0.3)
    scores, masks = blobs(8, 48)
    for batch in (slice(0, 3), slice(3, 8)):
        aupro.update(
            torch.from_numpy(rounded(scores, fraction_bits))[batch].float(),
            torch.from_numpy(masks)[batch].long(),
        )
    found = pixel_metrics(scores, masks, bins)["aupro"]
    assert found == pytest.approx(float(aupro.compute()), abs=2e-6)  # theirs is float32
    assert 0.3 < found < 0.95


@pytest.mark.parametrize(("bins", "fraction_bits"), [(2**21, 11), (2**15, 5), (2**12, 2)])
def test_error_of_bins_is_at_most_half_the_pairs_that_share_one(
    bins: int, fraction_bits: int
) -> None:
    scores, masks = blobs(8, 48)
    weights = overlap_weights(masks)
    _, bin_of = np.unique(rounded(scores, fraction_bits), return_inverse=True)
    bin_of = bin_of.reshape(masks.shape)
    count = bin_of.max() + 1
    normal = np.bincount(bin_of[~masks], minlength=count) / (~masks).sum()
    anomalous = np.bincount(bin_of[masks], minlength=count) / masks.sum()
    overlap = np.bincount(bin_of[masks], weights, minlength=count) / weights.sum()
    found = pixel_metrics(scores, masks, bins)
    auroc = roc_auc_score(masks.ravel(), scores.ravel())
    assert 0 < abs(found["auroc"] - auroc) <= normal @ anomalous / 2
    assert (
        0 < abs(found["aupro"] - aupro_by_definition(scores, masks)) <= normal @ overlap / 2 / 0.3
    )


def test_error_of_bins_by_default() -> None:
    scores, masks = blobs(8, 48)
    samples = masks.ravel(), scores.ravel()
    found = pixel_metrics(scores, masks)
    assert found["auroc"] == pytest.approx(roc_auc_score(*samples), abs=1e-5)
    assert found["ap"] == pytest.approx(average_precision_score(*samples), abs=1e-4)
    assert found["aupro"] == pytest.approx(aupro_by_definition(scores, masks), abs=1e-5)


def aupro_by_definition(scores: Floats, masks: Bools) -> float:
    """Region after region, without bins."""
    thresholds = np.unique(scores)[::-1]
    overlaps = []
    for score_map, mask in zip(scores, masks, strict=True):
        regions, count = ndimage.label(mask, np.ones((3, 3)))
        overlaps += [found(score_map[regions == k], thresholds) for k in range(1, count + 1)]
    fpr = np.append(0, found(scores[~masks], thresholds))
    overlap = np.append(0, np.mean(overlaps, axis=0))
    end = int(np.searchsorted(fpr, 0.3, side="right"))
    at_limit = np.interp(0.3, fpr[end - 1 : end + 1], overlap[end - 1 : end + 1])
    x, y = np.append(fpr[:end], 0.3), np.append(overlap[:end], at_limit)
    return float(np.trapezoid(y, x) / 0.3)


def found(scores: Floats, thresholds: Floats) -> Floats:
    """The share of scores that is not below each threshold."""
    return 1 - np.searchsorted(np.sort(scores), thresholds) / scores.size


def test_probabilities_that_crowd_about_0_and_1() -> None:
    scores, masks = blobs(8, 48)
    probabilities = (1 / (1 + np.exp(-25 * scores))).astype(np.float32)
    assert (probabilities > 0.9999).mean() > 0.05 < (probabilities < 0.0001).mean()
    samples = masks.ravel(), probabilities.ravel()
    found = pixel_metrics(probabilities, masks)
    assert found["auroc"] == pytest.approx(roc_auc_score(*samples), abs=1e-5)
    assert found["ap"] == pytest.approx(average_precision_score(*samples), abs=1e-4)


def test_zero_has_one_bin() -> None:
    zeros = np.array([[[0.0, -0.0]]])
    assert pixel_metrics(zeros, np.array([[[False, True]]]))["auroc"] == 0.5


def test_pixels_by_batches() -> None:
    """Metrics don't depend on batches and their order, nor on the dtype that holds the scores."""
    scores, masks = blobs(9, 32)
    whole = pixel_metrics(scores, masks)
    metrics = PixelMetrics()
    for batch in (slice(5, 9), slice(0, 1), slice(1, 1), slice(1, 5)):
        metrics.update(scores[batch].astype(np.float32), masks[batch])
    assert metrics.compute() == pytest.approx(whole, abs=1e-12)


def test_memory_does_not_grow_with_the_test_set() -> None:
    def peak(batches: int) -> int:
        scores, masks = blobs(4, 64)
        tracemalloc.start()
        metrics = PixelMetrics(2**14)
        for _ in range(batches):
            metrics.update(scores + 0, masks)
        metrics.compute()
        _, bytes_ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return bytes_

    peak(1)  # what is allocated once and kept
    assert peak(60) < 1.1 * peak(2)
