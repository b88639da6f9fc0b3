"""Small data sets and their parts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from benchmarks.detection.data import (
    mini_images,
    mini_videos,
)
from benchmarks.detection.data.layout import Layout

SEED = 3
write_mvtec = partial(mini_images.write_mvtec, train=3, good=2, defective=2)
write_avenue = partial(mini_videos.write_avenue, train=2, test=4, frames=40)
write_shanghaitech = partial(mini_videos.write_shanghaitech, train=1, test=2, frames=24)
LAYOUT = Layout("a data set", "https://example.org")
H, W = mini_videos.HEIGHT, mini_videos.WIDTH


class Written(NamedTuple):
    """A folder of data sets, and the videos as they were drawn, by their file's order."""

    root: Path
    avenue: list[mini_videos.Rendered]
    shanghaitech: list[mini_videos.Rendered]


def write_masks(path: Path, count: int, name: str = "volLabel") -> None:
    cells = np.empty((1, count), object)
    cells[0] = [np.eye(H, W, dtype=np.uint8)] * count
    scipy.io.savemat(path, {name: cells})
