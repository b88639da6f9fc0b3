"""RBDC and TBDC: cases worked out by hand, and their definition spelled out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.detection.metrics import (
    Detections,
    rbdc,
    region_detections,
    tbdc,
)

from .metric_cases import (
    ELSEWHERE,
    HERE,
    TWO_TRACKS,
    Bools,
    Region,
    blobs,
    both,
    detections,
    random_videos,
)


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
