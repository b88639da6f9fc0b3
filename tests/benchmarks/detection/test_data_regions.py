"""Anomalous regions and tracks, from masks and from files, by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.detection.data import DataError, Region
from benchmarks.detection.data.regions import link_components, read_tracks


def masks_of(*pictures: str) -> list[NDArray[np.bool_]]:
    """From rows of ``.`` and ``#``, separated by ``/``."""
    return [np.array([[c == "#" for c in row] for row in p.split("/")]) for p in pictures]


def test_components_by_hand() -> None:
    """Two tracks; the left one moves on in steps of one column, the right one ends after a frame.

    The diagonal is one component: eight neighbours. Frame 2 is empty, so that frame 3 begins anew.
    """
    regions = link_components(
        masks_of("#..#/.#.#", "..../.##.", "..../....", "..../..#."),
        4,  # 2 rows become 4; 4 columns stay
    )
    assert regions == [
        Region(0, 0, (0, 0, 4, 2)),
        Region(1, 0, (0, 3, 4, 4)),
        Region(0, 1, (2, 1, 4, 3)),
        Region(2, 3, (2, 2, 4, 3)),
    ]


def test_a_track_goes_on_where_it_overlaps_most() -> None:
    """It splits into parts of 2 and 3 columns; then these join again, and the larger one wins."""
    regions = link_components(masks_of("########", "##...###", "########"), 8)
    assert [(region.track, region.frame) for region in regions] == [
        (0, 0),
        (1, 1),  # the left part is the smaller one
        (0, 1),
        (0, 2),
    ]


def test_a_region_takes_no_track_that_another_has_more_of() -> None:
    """The left one shares a pixel with track 1, but goes on with track 0."""
    regions = link_components(masks_of("##.####.", "####.###"), 8)
    assert [(region.track, region.box[1]) for region in regions] == [(0, 0), (1, 3), (0, 0), (1, 5)]


def test_tracks_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "01.txt"
    path.write_text("0,0,0,0,0,0\n0, 1, 10, 20, 19, 39\n7,9,855,479,855,479\n")
    regions = read_tracks(path, 10, (480, 856), 256)
    assert [(region.track, region.frame) for region in regions] == [(0, 0), (0, 1), (7, 9)]
    unscaled = np.array([region.box for region in regions]) / 256 * (480, 856, 480, 856)
    expected = [(0, 0, 1, 1), (20, 10, 40, 20), (479, 855, 480, 856)]  # a pixel, a box, the last
    np.testing.assert_allclose(unscaled, expected, atol=1e-9)


@pytest.mark.parametrize(
    "line",
    ["0,0,1,1,2", "0,0,1,1,2,x", "0,0,1,1,2,2,2", "0 0 1 1 2 2"],
)
def test_lines_that_are_no_tracks(line: str, tmp_path: Path) -> None:
    path = tmp_path / "01.txt"
    path.write_text(f"0,0,1,1,2,2\n{line}\n")
    message = f"01.txt, line 2, must be track,frame,x1,y1,x2,y2; got {line!r}"
    with pytest.raises(DataError, match=re.escape(message)):
        read_tracks(path, 10, (8, 8), 8)


@pytest.mark.parametrize(
    "line",
    ["0,10,1,1,2,2", "0,-1,1,1,2,2", "0,0,3,1,2,2", "0,0,1,3,2,2", "0,0,1,1,9,2", "0,0,1,1,2,8"],
)
def test_tracks_outside(line: str, tmp_path: Path) -> None:
    path = tmp_path / "01.txt"
    path.write_text(line)
    message = f"01.txt, line 1, must lie in 10 frames of 9 × 8 pixels; got {line!r}"
    with pytest.raises(DataError, match=re.escape(message)):
        read_tracks(path, 10, (8, 9), 8)
