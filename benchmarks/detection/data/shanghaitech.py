"""ShanghaiTech Campus: Luo et al., "A Revisit of Sparse Coding Based Anomaly Detection in Stacked
RNN Framework", ICCV 2017; all 13 scenes together.

::

    training/videos/01_001.avi …             or training/converted_videos, anomalib's copies
    testing/frames/01_0014/000.jpg …
    testing/test_frame_mask/01_0014.npy …    (frames,), nonzero: abnormal
    testing/test_pixel_mask/01_0014.npy …    (frames, H, W), nonzero: anomalous
    ground_truth/01_0014.txt …               tracks, if users have put them there
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .frames import Clips, FrameFolder, VideoFile
from .layout import Layout
from .regions import link_components, read_tracks, tracks_file
from .samples import Truth, Video, VideoData

LAYOUT = Layout("ShanghaiTech Campus", "https://svip-lab.github.io/dataset/campus_dataset.html")


def load(root: Path, size: int, context: int) -> VideoData:
    """Looks over the files; see :func:`load_videos`."""
    converted = root / "training" / "converted_videos"
    videos = converted if converted.is_dir() else root / "training" / "videos"
    train = LAYOUT.files(videos, "*_*.avi")
    labels = LAYOUT.files(root / "testing" / "test_frame_mask", "*_*.npy")
    for folder in sorted((root / "testing" / "frames").glob("*_*")):
        LAYOUT.file(labels[0].with_name(f"{folder.name}.npy"))
    return VideoData(
        Clips([VideoFile(path, size, LAYOUT) for path in train], context + 1),
        [_video(root, path.stem, size) for path in labels],
    )


def _video(root: Path, name: str, size: int) -> Video:
    testing = root / "testing"
    labels = _array(testing / "test_frame_mask" / f"{name}.npy", 1) != 0
    masks = _array(LAYOUT.file(testing / "test_pixel_mask" / f"{name}.npy"), 3)
    folder = testing / "frames" / name
    LAYOUT.files(folder, "*.jpg")
    files = [LAYOUT.file(folder / f"{number:03}.jpg") for number in range(len(labels))]
    count = len(list(folder.glob("*.jpg")))
    if not count == len(labels) == len(masks):
        raise LAYOUT.error(
            f"test_frame_mask and test_pixel_mask of {name} must have a label and a mask for each "
            f"frame in {folder}; got {len(labels)}, {len(masks)} and {count} frames"
        )
    frames = FrameFolder(folder, files, size, LAYOUT)
    tracks = tracks_file(root, name)
    return Video(name, frames, count, partial(_truth, labels, masks, tracks, size))


def _array(path: Path, dimensions: int) -> NDArray[np.generic]:
    """Mapped, not read: masks of all videos are gigabytes."""
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r")
    except ValueError as error:
        raise LAYOUT.error(f"{path} must be a NumPy array; got: {error}") from error
    if array.ndim != dimensions:
        raise LAYOUT.error(f"{path} must have {dimensions} dimensions; got the shape {array.shape}")
    return array


def _truth(
    labels: NDArray[np.bool_], masks: NDArray[np.generic], tracks: Path | None, size: int
) -> Truth:
    if tracks is None:
        return Truth(labels, link_components(masks, size), "connected components")
    height, width = masks.shape[1:]
    return Truth(labels, read_tracks(tracks, len(labels), (height, width), size), "annotations")
