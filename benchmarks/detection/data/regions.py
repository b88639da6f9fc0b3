"""Anomalous regions and their tracks: as people drew them, or made from masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .layout import Layout
from .samples import Region

Box = tuple[float, float, float, float]

TRACKS = Layout("tracks of anomalies", "https://github.com/lilygeorgescu/AED")
_NEIGHBOURS = np.ones((3, 3), np.bool_)


def tracks_file(root: Path, video: str) -> Path | None:
    """``root/ground_truth/<video>.txt``, which must exist where that folder does."""
    folder = root / "ground_truth"
    return TRACKS.file(folder / f"{video}.txt", empty=True) if folder.is_dir() else None


def read_tracks(path: Path, frames: int, shape: tuple[int, int], size: int) -> list[Region]:
    """Regions from a file of lines ``track, frame, x1, y1, x2, y2``.

    This is the format in which Georgescu et al. (TPAMI 2021) publish tracks of ShanghaiTech and
    evaluate others. Frames count from 0; columns x and rows y are those of the video, and x2 and y2
    belong to the box. A video without anomalies has an empty file.

    Args:
        path: the file.
        frames: how many frames the video has.
        shape: height and width of the video.
        size: height and width that boxes are scaled to.

    Raises:
        DataError: a line is not like this, or lies outside the video.
    """
    regions = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            track, frame, x1, y1, x2, y2 = (int(field) for field in line.split(","))
        except ValueError:
            raise TRACKS.error(
                f"{path}, line {number}, must be track,frame,x1,y1,x2,y2; got {line!r}"
            ) from None
        height, width = shape
        if not (0 <= frame < frames and 0 <= x1 <= x2 < width and 0 <= y1 <= y2 < height):
            raise TRACKS.error(
                f"{path}, line {number}, must lie in {frames} frames of {width} × {height} pixels; "
                f"got {line!r}"
            )
        regions.append(Region(track, frame, _scaled((y1, x1, y2 + 1, x2 + 1), shape, size)))
    return regions


def link_components(masks: Iterable[NDArray[np.generic]], size: int) -> list[Region]:
    """Regions from the masks of consecutive frames, each ``(H, W)``, nonzero where anomalous.

    A region is a connected component (8 neighbours). It continues the track that it shares most
    pixels with in the frame before; a track goes on in one region, that of the largest share. The
    other regions begin tracks of their own.
    """
    regions: list[Region] = []
    begun = 0
    before: NDArray[np.int64] | None = None  # (H, W): 1 + the track of each pixel, 0 for none
    for frame, mask in enumerate(masks):
        components, count = ndimage.label(mask, _NEIGHBOURS)
        tracks = np.zeros(count + 1, np.int64)
        if before is not None:
            for component, track in _largest_overlaps(components, before):
                tracks[component] = track
        for component, (rows, columns) in enumerate(ndimage.find_objects(components), 1):
            if not tracks[component]:
                begun += 1
                tracks[component] = begun
            box = (rows.start, columns.start, rows.stop, columns.stop)
            regions.append(
                Region(int(tracks[component]) - 1, frame, _scaled(box, mask.shape, size))
            )
        before = tracks[components]
    return regions


def _largest_overlaps(
    components: NDArray[np.int32], before: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Pairs (component, track) by falling overlap, each component and each track at most once."""
    both = (components > 0) & (before > 0)
    base = int(before.max()) + 1
    codes, pixels = np.unique(components[both] * base + before[both], return_counts=True)
    chosen: dict[int, int] = {}
    for code in codes[np.argsort(-pixels, kind="stable")].tolist():
        component, track = divmod(code, base)
        if component not in chosen and track not in chosen.values():
            chosen[component] = track
    return list(chosen.items())


def _scaled(box: Box, shape: tuple[int, ...], size: int) -> Box:
    top, left, bottom, right = box
    y, x = size / shape[0], size / shape[1]
    return top * y, left * x, bottom * y, right * x
