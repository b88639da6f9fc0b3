"""CUHK Avenue: Lu et al., "Abnormal Event Detection at 150 FPS in Matlab", ICCV 2013.

::

    training_videos/01.avi …                         also in a folder "Avenue Dataset", which its
    testing_videos/01.avi …                          archive has
    ground_truth_demo/testing_label_mask/1_label.mat …    volLabel: a cell of masks for each frame
    ground_truth/01.txt …                            tracks, if users have put them there

The folders ``training_vol`` and ``testing_vol`` have the same videos as small grey volumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from .frames import Clips, VideoFile
from .layout import Layout, is_miniature
from .regions import link_components, read_tracks, tracks_file
from .samples import Truth, Video, VideoData

LAYOUT = Layout(
    "CUHK Avenue", "http://www.cse.cuhk.edu.hk/leojia/projects/detectabnormal/dataset.html"
)


def load(root: Path, size: int, context: int) -> VideoData:
    """Looks over the files; see :func:`load_videos`."""
    videos = root / "Avenue Dataset" if (root / "Avenue Dataset").is_dir() else root
    train_folder, test_folder = videos / "training_videos", videos / "testing_videos"
    mask_folder = root / "ground_truth_demo" / "testing_label_mask"
    published = (0, 0) if is_miniature(root) else (16, 21)
    train = LAYOUT.numbered(train_folder, "{:02}.avi", published[0])
    test = LAYOUT.numbered(test_folder, "{:02}.avi", published[1])
    masks = LAYOUT.numbered(mask_folder, "{}_label.mat", len(test))
    test = LAYOUT.numbered(test_folder, "{:02}.avi", len(masks))
    return VideoData(
        Clips([VideoFile(path, size, LAYOUT) for path in train], context + 1),
        [_video(root, path, mask, size) for path, mask in zip(test, masks, strict=True)],
    )


def _video(root: Path, path: Path, mask_path: Path, size: int) -> Video:
    """Users count one frame more or less in a few videos: frames without a mask are left out."""
    frames, masks = VideoFile(path, size, LAYOUT), _count_masks(mask_path)
    if abs(len(frames) - masks) > 1:
        raise LAYOUT.error(
            f"{mask_path} must have a mask for each frame of {path}; got {masks} and {len(frames)}"
        )
    length = min(len(frames), masks)
    frames.read(length - 1, 1)  # a file that was cut off says so here and not after the training
    tracks = tracks_file(root, path.stem)
    return Video(path.stem, frames, length, partial(_truth, mask_path, tracks, length, size))


def _count_masks(path: Path) -> int:
    shapes = {name: shape for name, shape, _ in _matlab(scipy.io.whosmat, path)}
    if "volLabel" not in shapes:
        raise LAYOUT.error(f"{path} must hold volLabel; got {', '.join(shapes) or 'nothing'}")
    return math.prod(shapes["volLabel"])


def _matlab(read: Callable[[Path], Any], path: Path) -> Any:
    """What SciPy raises for a file that was cut off depends on where."""
    try:
        return read(path)
    except Exception as error:
        raise LAYOUT.error(f"{path} must be a MATLAB file; got: {error}") from error


def _truth(mask_path: Path, tracks: Path | None, length: int, size: int) -> Truth:
    cells = _matlab(scipy.io.loadmat, mask_path)["volLabel"]
    masks: list[NDArray[np.uint8]] = list(cells.ravel()[:length])
    labels = np.array([mask.any() for mask in masks])
    if tracks is None:
        return Truth(labels, link_components(masks, size), "connected components")
    regions = read_tracks(tracks, length + 1, masks[0].shape, size)
    return Truth(labels, [r for r in regions if r.frame < length], "annotations")
