"""Messages of the metrics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.detection.metrics import (
    PixelMetrics,
    average_precision,
    macro_auc,
    micro_auc,
    normalise,
    rbdc,
    region_detections,
    roc_auc,
    tbdc,
)

from .metric_cases import (
    HERE,
    TWO_TRACKS,
    Region,
    blobs,
    detections,
    pixel_metrics,
)

ZERO_ONE = np.array([0.0, 1.0])
FALSE_TRUE = np.array([False, True])
NAN = np.array([0.0, np.nan])
MAPS, MASKS = np.zeros((1, 2, 2)), np.zeros((1, 2, 2), np.bool_)
NOT_BOOL = np.array([[[0.0, 1.0], [1.0, 0.0]]])
ONE = [TWO_TRACKS[:1]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: roc_auc(ZERO_ONE, FALSE_TRUE[:1]),
            r"roc_auc: scores must be \(n,\) and labels \(n,\) bool, n ≥ 1; "
            r"got \(2,\) and \(1,\) bool",
        ),
        (lambda: roc_auc(ZERO_ONE, ZERO_ONE), r"got \(2,\) and \(2,\) float64"),
        (lambda: average_precision(MAPS, MASKS), r"average_precision: .* got \(1, 2, 2\) and"),
        (lambda: roc_auc(NAN, FALSE_TRUE), "roc_auc: scores must be finite; 1 of 2 are not"),
        (
            lambda: average_precision(np.array([np.inf, -np.inf]), FALSE_TRUE),
            "average_precision: scores must be finite; 2 of 2 are not",
        ),
        (
            lambda: roc_auc(ZERO_ONE, np.array([True, True])),
            "roc_auc: both classes must occur; 2 of 2 are anomalous",
        ),
        (
            lambda: average_precision(ZERO_ONE, np.array([False, False])),
            "average_precision: both classes must occur; 0 of 2 are anomalous",
        ),
        (lambda: micro_auc([ZERO_ONE], [np.array([False, False])]), "both classes .* 0 of 2"),
        (
            lambda: micro_auc([ZERO_ONE], []),
            "micro_auc: scores and labels must be of the same videos, at least one; got 1 and 0",
        ),
        (lambda: macro_auc([], []), "macro_auc: .* at least one; got 0 and 0"),
        (
            lambda: macro_auc([ZERO_ONE, ZERO_ONE[:0]], [FALSE_TRUE, FALSE_TRUE[:0]]),
            r"macro_auc, video 1: scores must be \(n,\) .* got \(0,\) and \(0,\) bool",
        ),
        (
            # As many frames in all, but not in each.
            lambda: micro_auc([ZERO_ONE, ZERO_ONE[:1]], [FALSE_TRUE[:1], FALSE_TRUE]),
            r"micro_auc, video 0: .* got \(2,\) and \(1,\) bool",
        ),
        (
            lambda: macro_auc([NAN], [FALSE_TRUE]),
            "macro_auc, video 0: scores must be finite; 1 of 2",
        ),
        (lambda: normalise(NAN), "normalise: scores must be finite; 1 of 2 are not"),
        (
            lambda: normalise(ZERO_ONE[:0]),
            r"normalise: scores must be \(frames,\), frames ≥ 1; got \(0,\)",
        ),
        (
            lambda: PixelMetrics(3000),
            r"PixelMetrics: bins must be a power of 2, 2\*\*11 to 2\*\*25; got 3000",
        ),
        (lambda: PixelMetrics(2**10), "got 1024"),
        (lambda: PixelMetrics(2**26), "got 67108864"),
        (
            lambda: PixelMetrics().update(MAPS, MASKS[0]),
            r"PixelMetrics: score_maps must be \(B, H, W\) and masks \(B, H, W\) bool; "
            r"got \(1, 2, 2\) and \(2, 2\) bool",
        ),
        (lambda: PixelMetrics().update(MAPS, NOT_BOOL), r"and \(1, 2, 2\) float64"),
        (lambda: PixelMetrics().update(MAPS[0], MASKS[0]), r"got \(2, 2\) and \(2, 2\) bool"),
        (
            lambda: PixelMetrics().update(MAPS + 1e39, MASKS),
            "PixelMetrics: scores must be finite; 4 of 4 are not",
        ),
        (
            lambda: PixelMetrics().compute(),
            "PixelMetrics: both classes must occur; there were 0 normal and 0 anomalous pixels",
        ),
        (lambda: pixel_metrics(MAPS, MASKS), "there were 4 normal and 0 anomalous pixels"),
        (lambda: pixel_metrics(MAPS, ~MASKS), "there were 0 normal and 4 anomalous pixels"),
        (
            lambda: region_detections(MAPS[0], 1.0),
            r"region_detections: score_maps must be \(frames, H, W\), threshold finite; "
            r"got \(2, 2\) and 1.0",
        ),
        (lambda: region_detections(MAPS, np.nan), r"got \(1, 2, 2\) and nan"),
        (
            lambda: region_detections(MAPS + np.nan, 1.0),
            "region_detections: scores must be finite; 4 of 4 are not",
        ),
        (
            lambda: rbdc([detections()], ONE, [1, 2]),
            "rbdc: detections, regions and frames must be of the same videos; got 1, 1 and 2",
        ),
        (
            lambda: tbdc([detections()], [[]], [1]),
            "tbdc: there must be a true region; got none in 1 videos",
        ),
        (
            lambda: rbdc([detections()._replace(scores=ZERO_ONE)], ONE, [1]),
            r"rbdc, video 0: detections must be frames \(n,\), boxes \(n, 4\), scores \(n,\); "
            r"got \(\(0,\), \(0, 4\), \(2,\)\)",
        ),
        (
            lambda: tbdc([detections((0, HERE, np.nan))], ONE, [1]),
            "tbdc, video 0: scores must be finite; 1 of 1 are not",
        ),
        (
            lambda: rbdc([detections((1, HERE, 1.0))], ONE, [1]),
            r"rbdc, video 0: the frame of a detection must be in \[0, 1\); got 1",
        ),
        (
            lambda: rbdc([detections()], [TWO_TRACKS], [2]),
            r"rbdc, video 0: the frame of a true region must be in \[0, 2\); got 2",
        ),
        (
            lambda: tbdc([detections((0, (1, 2, 1, 3), 1.0))], ONE, [1]),
            "tbdc, video 0: the box of a detection must have top < bottom and left < right; "
            r"got \(1.0, 2.0, 1.0, 3.0\)",
        ),
        (
            lambda: rbdc([detections()], [[Region(0, 0, (0, 5, 2, 4))]], [1]),
            r"the box of a true region must have .* got \(0.0, 5.0, 2.0, 4.0\)",
        ),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        call()


def test_a_refused_batch_adds_nothing() -> None:
    scores, masks = blobs(4, 32)
    metrics = PixelMetrics()
    metrics.update(scores, masks)
    before = metrics.compute()
    with pytest.raises(ValueError, match="finite"):
        metrics.update(np.where(masks, np.nan, scores), masks)
    assert metrics.compute() == before
