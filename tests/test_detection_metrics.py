"""The published metrics: cases worked out by hand, other libraries, and properties."""

from __future__ import annotations

import itertools
import tracemalloc
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from benchmarks.detection.metrics import (
    Detections,
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
from benchmarks.detection.metrics.overlap import overlap_weights

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Transform = Callable[[Floats], Floats]


class Region(NamedTuple):
    track: int
    frame: int
    box: tuple[float, float, float, float]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def detections(*rows: tuple[int, tuple[float, float, float, float], float]) -> Detections:
    """Of (frame, box, score)."""
    return Detections(
        np.array([frame for frame, _, _ in rows], np.int64),
        np.array([box for _, box, _ in rows], np.float64).reshape(-1, 4),
        np.array([score for _, _, score in rows], np.float64),
    )


def blobs(count: int, size: int) -> tuple[Floats, Bools]:
    """Smooth score maps, higher in irregular masks; some images have none."""
    g = generator()
    masks = ndimage.gaussian_filter(g.normal(size=(count, size, size)), (0, 3, 3)) > 0.13
    masks[::3] = False
    noise = ndimage.gaussian_filter(g.normal(size=(count, size, size)), (0, 1, 1))
    return noise + 0.3 * masks * g.random((count, 1, 1)), masks


def pixel_metrics(
    scores: NDArray[np.floating], masks: Bools, bins: int = 2**21
) -> dict[str, float]:
    metrics = PixelMetrics(bins)
    metrics.update(scores, masks)
    return metrics.compute()


# Images ---------------------------------------------------------------------------------------


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


# Frames ---------------------------------------------------------------------------------------


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


# Pixels ---------------------------------------------------------------------------------------


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


# Regions and tracks -----------------------------------------------------------------------------

HERE, ELSEWHERE = (0, 0, 10, 10), (20, 20, 30, 30)
TWO_TRACKS = [Region(0, 0, HERE), Region(0, 1, HERE), Region(1, 2, HERE)]


def both(
    found: Sequence[Detections], regions: Sequence[Sequence[Region]], frames: Sequence[int]
) -> tuple[float, float]:
    return rbdc(found, regions, frames), tbdc(found, regions, frames)


def test_rbdc_and_tbdc_by_hand() -> None:
    video = detections(
        (0, HERE, 0.9),  # detects the first region, and its track with 1 of 2
        (3, HERE, 0.8),  # false: no region in this frame
        (1, (0, 0, 10, 1), 0.7),  # detects the second region: 10 / 100 is enough
        (2, ELSEWHERE, 0.6),  # false: the region of this frame is elsewhere
    )
    # At 0, 1, 2, 2 false positives in 4 frames, 1, 2, 2, 2 of 3 regions and 1 of 2 tracks.
    assert both([video], [TWO_TRACKS], [4]) == pytest.approx((7 / 12, 1 / 2))


def test_overlap_below_beta_detects_nothing() -> None:
    # 9.9 / 100; the false positive comes before the detection of another track.
    video = detections((0, (0, 0, 10, 0.99), 0.9), (2, HERE, 0.8))
    assert both([video], [TWO_TRACKS], [3]) == pytest.approx((2 / 3 / 3, 2 / 3 / 2))


@pytest.mark.parametrize(
    ("length", "needed"), [(9, 1), (10, 1), (11, 2), (20, 2), (30, 3), (31, 4)]
)
def test_tracks_need_a_tenth_of_their_regions(length: int, needed: int) -> None:
    track = [Region(7, frame, HERE) for frame in range(length)]
    enough = detections(*((frame, HERE, 1.0) for frame in range(needed)))
    less = detections(*((frame, HERE, 1.0) for frame in range(needed - 1)))
    assert tbdc([enough], [track], [length]) == 1
    assert tbdc([less], [track], [length]) == 0
    assert rbdc([enough], [track], [length]) == pytest.approx(needed / length)


def test_tracks_of_different_videos_differ() -> None:
    """Track 0 of one video is found, that of the other is not."""
    found = [detections((0, HERE, 1.0)), detections()]
    assert tbdc(found, [TWO_TRACKS[:1], TWO_TRACKS[:1]], [1, 1]) == 1 / 2


def test_one_detection_may_detect_two_regions_and_two_may_detect_one() -> None:
    regions = [Region(0, 0, (0, 0, 10, 5)), Region(1, 0, (0, 5, 10, 10))]
    assert both([detections((0, HERE, 1.0))], [regions], [1]) == (1, 1)
    twice = detections((0, HERE, 0.9), (0, HERE, 0.8), (1, HERE, 0.7))
    assert both([twice], [TWO_TRACKS[:2]], [2]) == (1, 1)


def test_the_area_ends_at_one_false_positive_per_frame() -> None:
    # 2 frames. Between 1 and 2 false positives the region is detected, below it isn't: 1/2. What is
    # found after the second one, at exactly 1 per frame and later, adds nothing.
    false = [(1, HERE, 0.9), (1, HERE, 0.8), (1, HERE, 0.7)]
    assert rbdc([detections(*false, (0, HERE, 0.85))], [TWO_TRACKS[:1]], [2]) == 1 / 2
    assert rbdc([detections(*false, (0, HERE, 0.75))], [TWO_TRACKS[:1]], [2]) == 0


def test_equal_scores_pass_together() -> None:
    # No threshold gives the region without the false positive, whatever the order: 0 up to 1 / 2.
    rows = [(0, HERE, 0.5), (1, HERE, 0.5)]
    for order in (rows, rows[::-1]):
        assert both([detections(*order)], [TWO_TRACKS[:1]], [2]) == (1 / 2, 1 / 2)


def test_without_detections() -> None:
    assert both([detections()], [TWO_TRACKS], [4]) == (0, 0)


def random_videos(seed: int) -> tuple[list[Detections], list[list[Region]], list[int]]:
    """Three videos of short tracks, with detections near them and anywhere, and equal scores."""
    g = generator(seed)
    videos, truth, frames = [], [], [12, 7, 15]
    for length in frames:
        regions: list[Region] = []
        for track in range(int(g.integers(1, 4))):
            first = int(g.integers(0, length))
            for frame in range(first, int(g.integers(first + 1, length + 1))):
                regions.append(Region(track, frame, random_box(g)))
        rows = [(int(g.integers(0, length)), random_box(g)) for _ in range(int(g.integers(0, 40)))]
        rows += [(region.frame, region.box) for region in regions if g.random() < 0.3]
        videos.append(detections(*((*row, float(g.integers(0, 40))) for row in rows)))
        truth.append(regions)
    return videos, truth, frames


def random_box(g: np.random.Generator) -> tuple[float, float, float, float]:
    top, left, height, width = g.integers((0, 0, 1, 1), (20, 20, 13, 13)).tolist()
    return (top, left, top + height, left + width)


def pixels_of(box: Sequence[float]) -> Bools:
    top, left, bottom, right = (int(corner) for corner in box)
    mask = np.zeros((40, 40), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def by_definition(
    videos: Sequence[Detections], truth: Sequence[Sequence[Region]], frames: Sequence[int]
) -> tuple[float, float]:
    """Threshold after threshold, region after region, with intersections counted in pixels."""
    points = [(0.0, 0.0, 0.0)]  # false positives per frame, regions, tracks
    for threshold in np.unique(np.concatenate([video.scores for video in videos])):
        false, hits = 0, []
        for number, (video, regions) in enumerate(zip(videos, truth, strict=True)):
            detected: set[int] = set()
            for frame, box, score in zip(*video, strict=True):
                if score < threshold:
                    continue
                meets = set()
                for index, region in enumerate(regions):
                    one, other = pixels_of(box), pixels_of(region.box)
                    same = region.frame == frame
                    if same and (one & other).sum() / (one | other).sum() >= 0.1:
                        meets.add(index)
                detected |= meets
                false += not meets
            hits += [(number, r.track, i in detected) for i, r in enumerate(regions)]
        tracks: dict[tuple[int, int], list[bool]] = {}
        for number, track, hit in hits:
            tracks.setdefault((number, track), []).append(hit)
        of_tracks = [np.mean(hit) >= 0.1 for hit in tracks.values()]
        rates = np.mean([hit for *_, hit in hits]), np.mean(of_tracks)
        points.append((false / sum(frames), float(rates[0]), float(rates[1])))
    ends = sorted({0.0, 1.0, *(x for x, *_ in points if x < 1)})
    areas = np.zeros(2)
    for first, last in itertools.pairwise(ends):
        areas += (last - first) * np.max([rates for x, *rates in points if x <= first], axis=0)
    return float(areas[0]), float(areas[1])


@pytest.mark.parametrize("seed", range(6))
def test_rbdc_and_tbdc_against_their_definition(seed: int) -> None:
    videos = random_videos(seed)
    assert both(*videos) == pytest.approx(by_definition(*videos), abs=1e-12)
    assert 0 < rbdc(*videos) < tbdc(*videos) < 1


def test_detected_regions_by_hand() -> None:
    maps = np.zeros((3, 4, 5))
    maps[0, 0, 0] = maps[1, 0, 0] = 2  # neighbours in time, but of two frames
    maps[1, 2:, 3] = 3, 1  # a column of two
    maps[1, 1, 2] = 5  # touches it with a corner
    maps[1, 3, 0] = 0.9  # below the threshold
    found = region_detections(maps, 1.0)
    assert found.frames.tolist() == [0, 1, 1]
    assert found.boxes.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 2, 4, 4]]
    assert found.scores.tolist() == [2, 2, 5]


def test_detected_regions_against_scikit_image() -> None:
    from skimage.measure import label, regionprops

    maps, _ = blobs(5, 40)
    expected = []
    for frame, score_map in enumerate(maps):
        for region in regionprops(label(score_map > 0.2, connectivity=2), score_map):
            expected.append((frame, *region.bbox, region.intensity_max))
    found = region_detections(maps, np.nextafter(0.2, 1))
    columns = np.column_stack((found.frames, found.boxes, found.scores))
    assert len(expected) > 50
    assert sorted(map(tuple, columns.tolist())) == sorted(expected)


def test_no_detected_regions() -> None:
    found = region_detections(np.zeros((2, 3, 3)), 1.0)
    assert [column.shape for column in found] == [(0,), (0, 4), (0,)]
    assert both([found], [TWO_TRACKS], [4]) == (0, 0)


# Properties ---------------------------------------------------------------------------------------

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


# Errors -----------------------------------------------------------------------------------------

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
