"""MVTec AD, CUHK Avenue and ShanghaiTech Campus, read as their publishers distribute them.

:func:`load_images` and :func:`load_videos` look over the files and raise :class:`DataError` where
something is missing; they read images, frames and masks later, when these are asked for. Nothing is
downloaded. :func:`make_mini` writes miniatures in the same layouts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from . import avenue, mini_images, mini_videos, mvtec, shanghaitech
from .layout import DataError
from .samples import ImageData, ImageSample, Region, Video, VideoData

__all__ = [
    "DataError",
    "ImageData",
    "ImageSample",
    "Region",
    "Video",
    "VideoData",
    "load_images",
    "load_videos",
    "make_mini",
]

_IMAGES = {"mvtec": mvtec.load}
_VIDEOS = {"avenue": avenue.load, "shanghaitech": shanghaitech.load}
_MINIS = {
    "mvtec": mini_images.write_mvtec,
    "avenue": mini_videos.write_avenue,
    "shanghaitech": mini_videos.write_shanghaitech,
}


def load_images(name: str, root: Path, category: str, size: int) -> ImageData:
    """Training and test images of a data set.

    Args:
        name: ``"mvtec"``.
        root: the folder that has the categories in it.
        category: one of :data:`mvtec.CATEGORIES`.
        size: images are resized to so many rows and columns.

    Raises:
        DataError: which file is expected where, and where its publisher offers it.
    """
    _check(name, _IMAGES)
    return _IMAGES[name](Path(root), category, size)


def load_videos(name: str, root: Path, size: int, context: int = 4) -> VideoData:
    """Training clips and test videos of a data set.

    Args:
        name: ``"avenue"`` or ``"shanghaitech"``.
        root: its folder.
        size: frames are resized to so many rows and columns.
        context: how many frames a training clip has before its last one.

    Raises:
        DataError: which file is expected where, and where its publisher offers it.
    """
    _check(name, _VIDEOS)
    return _VIDEOS[name](Path(root), size, context)


def _check(name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise DataError(f"the name must be one of {', '.join(known)}; got {name}")


def make_mini(folder: Path, seed: int = 0) -> None:
    """Writes ``mvtec``, ``avenue`` and ``shanghaitech`` into the folder, some 10 MB in all.

    Textures, backgrounds and sprites are photographs of the scikit-image wheel. The same seed gives
    the same data.

    Raises:
        DataError: one of them exists already; it could be the real one.
    """
    for name in _MINIS:
        if (path := Path(folder) / name).exists():
            raise DataError(f"a miniature is written to a new folder; got {path}, which exists")
    for name, write in _MINIS.items():
        write(Path(folder) / name, seed)
