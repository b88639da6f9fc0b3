"""ShanghaiTech Campus: Luo et al., "A Revisit of Sparse Coding Based Anomaly Detection in Stacked
RNN Framework", ICCV 2017; all 13 scenes together.

::

    training/videos/01_001.avi …             else training/converted_videos, anomalib's copies
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
    videos, converted = (root / "training" / name for name in ("videos", "converted_videos"))
    if converted.is_dir() and not videos.is_dir():
        videos = converted
    train = LAYOUT.files(videos, "[0-9]*.avi")
    labels = LAYOUT.files(root / "testing" / "test_frame_mask", "[0-9]*.npy")
    LAYOUT.whole(root, "videos for training and tests", (len(train), len(labels)), (330, 107))
    for folder in sorted((root / "testing" / "frames").glob("[0-9]*")):
        LAYOUT.file(labels[0].with_name(f"{folder.name}.npy"))
    return VideoData(
        Clips([VideoFile(path, size, LAYOUT) for path in train], context + 1),
        [_video(root, path.stem, size) for path in labels],
    )


def _video(root: Path, name: str, size: int) -> Video:
    testing = root / "testing"
    labels = _array(testing / "test_frame_mask" / f"{name}.npy", 1) != 0
    masks = _array(LAYOUT.file(testing / "test_pixel_mask" / f"{name}.npy"), 3)
    files = _frames(testing / "frames" / name)
    if not len(files) == len(labels) == len(masks):
        raise LAYOUT.error(
            f"{name} must have a label and a mask for each frame in {files[0].parent}; "
            f"got {len(labels)}, {len(masks)} and {len(files)} frames"
        )
    frames = FrameFolder(files, size, LAYOUT)
    tracks = tracks_file(root, name)
    return Video(name, frames, len(files), partial(_truth, labels, masks, tracks, size))


def _frames(folder: Path) -> list[Path]:
    """From 0 on without a gap."""
    files = sorted(LAYOUT.files(folder, "[0-9]*.jpg"), key=lambda path: int(path.stem))
    for number, path in enumerate(files):
        if int(path.stem) != number:
            LAYOUT.file(folder / f"{number:0{len(files[0].stem)}}.jpg")
    return files


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
