"""Miniatures of Avenue and ShanghaiTech: people walk over a photograph, all in one direction.

What is abnormal is fast, walks against them, or is a cart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import scipy.io
import skimage.data
from numpy.random import Generator
from numpy.typing import NDArray
from skimage import draw

from .frames import Pixels
from .layout import mark

HEIGHT, WIDTH = 72, 128  # nearly the shape of the real videos
RATE = 25  # frames per second

_SCENES = {"01": "rocket", "02": "coffee"}  # of ShanghaiTech; Avenue has "brick"
_FIRST = 14  # number of the first test video, as in the real data
_EVENTS = (("fast",), ("against",), ("cart",), ("fast", "against"))
_SPEEDS = {"walk": 1, "fast": 4, "against": -2, "cart": 2}  # columns per frame
_LANES = (4, 26, 48)  # the row of the heads
_PERSON = (20, 10)  # rows and columns
_CART = (16, 24)
_NOISE = 2.0  # grey values, standard deviation


class _Sprite(NamedTuple):
    """Something that crosses the picture at an even speed."""

    image: Pixels  # (h, w, 3)
    shape: NDArray[np.bool_]  # (h, w)
    top: int
    left: int  # in frame 0
    speed: int  # columns per frame, negative to the left
    track: int  # of what is abnormal; -1: normal

    def pixels(self, frame: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Pixels]:
        """Rows and columns in the picture, and their colours."""
        rows, columns = np.nonzero(self.shape)
        places = columns + self.left + self.speed * frame
        seen = (places >= 0) & (places < WIDTH)
        return rows[seen] + self.top, places[seen], self.image[rows[seen], columns[seen]]


class Rendered(NamedTuple):
    """A video and what is abnormal in it."""

    frames: Pixels  # (frames, H, W, 3), red first
    tracks: NDArray[np.int64]  # (frames, H, W): the track that each pixel belongs to, or -1


def render(background: str, frames: int, events: Sequence[str], rng: Generator) -> Rendered:
    """People on a photograph, and abnormal things that enter one after another.

    Args:
        background: a photograph of scikit-image.
        frames: how many.
        events: of ``"fast"``, ``"against"`` and ``"cart"``; each has its part of the frames.
        rng: draws lanes, clothes, distances and noise.
    """
    sprites = [person for lane in _LANES for person in _people(lane, frames, rng)]
    for track, kind in enumerate(events):
        entry = int((track + rng.uniform(0.1, 0.3)) * frames / len(events))
        sprites.append(_sprite(kind, int(rng.choice(_LANES)), entry, rng, track))
    sprites.sort(key=lambda sprite: sprite.top)  # who is lower is nearer and hides the others
    ground = _photograph(background, (HEIGHT, WIDTH))
    video = np.empty((frames, HEIGHT, WIDTH, 3), np.uint8)
    tracks = np.full((frames, HEIGHT, WIDTH), -1)
    for frame in range(frames):
        image = ground.astype(np.float64)
        for sprite in sprites:
            rows, columns, colours = sprite.pixels(frame)
            image[rows, columns] = colours
            tracks[frame, rows, columns] = sprite.track
        noisy = image + rng.normal(0, _NOISE, image.shape)
        video[frame] = np.clip(np.rint(noisy), 0, 255)
    return Rendered(video, tracks)


def _people(lane: int, frames: int, rng: Generator) -> list[_Sprite]:
    """A lane of people, from those who cross the picture in frame 0 to the last who enter it."""
    people = []
    entry = -WIDTH // _SPEEDS["walk"]
    while (entry := entry + int(rng.integers(20, 50))) < frames:
        people.append(_sprite("walk", lane, entry, rng))
    return people


def _sprite(kind: str, lane: int, entry: int, rng: Generator, track: int = -1) -> _Sprite:
    """A person or a cart that begins to enter the picture in the frame ``entry``."""
    if kind == "cart":
        image, shape = _photograph("coins", _CART), np.ones(_CART, np.bool_)
    else:
        image, shape = _clothes(rng), _person()
    height, width = shape.shape
    speed = _SPEEDS[kind]
    outside = WIDTH if speed < 0 else -width
    top = lane + _PERSON[0] - height
    return _Sprite(image, shape, top, outside - speed * (entry - 1), speed, track)


def _person() -> NDArray[np.bool_]:
    shape = np.zeros(_PERSON, np.bool_)
    middle = (_PERSON[1] - 1) / 2
    shape[draw.disk((3, middle), 3.2, shape=_PERSON)] = True
    shape[draw.ellipse(13, middle, 7, 5, shape=_PERSON)] = True
    return shape


def _clothes(rng: Generator) -> Pixels:
    """A piece of a photograph, dyed."""
    cloth = _cloth()
    height, width = _PERSON
    top, left = int(rng.integers(len(cloth) - height)), int(rng.integers(cloth.shape[1] - width))
    piece = cloth[top : top + height, left : left + width]
    return np.asarray(0.4 * piece + 0.6 * rng.integers(256, size=3), np.uint8)


@lru_cache(maxsize=1)
def _cloth() -> Pixels:
    return np.asarray(skimage.data.chelsea())


def _photograph(name: str, shape: tuple[int, int]) -> Pixels:
    """The middle of one of scikit-image's photographs, ``(*shape, 3)``."""
    image = getattr(skimage.data, name)()
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    scale = min(image.shape[0] / shape[0], image.shape[1] / shape[1])
    height, width = int(scale * shape[0]), int(scale * shape[1])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    middle = image[top : top + height, left : left + width]
    return np.asarray(cv2.resize(middle, shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def write_avenue(root: Path, seed: int, train: int = 4, test: int = 4, frames: int = 120) -> None:
    """Writes so many training and test videos of so many frames, without files of tracks."""
    mark(root)
    for number in range(1, train + 1):
        rng = np.random.default_rng((seed, 0, number))
        video = render("brick", frames, (), rng)
        write_video(root / "training_videos" / f"{number:02}.avi", video.frames)
    for number in range(1, test + 1):
        rng = np.random.default_rng((seed, 1, number))
        video = render("brick", frames, _EVENTS[(number - 1) % len(_EVENTS)], rng)
        write_video(root / "testing_videos" / f"{number:02}.avi", video.frames)
        cells = np.empty((1, frames), object)
        cells[0] = list((video.tracks >= 0).astype(np.uint8))
        path = root / "ground_truth_demo" / "testing_label_mask" / f"{number}_label.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {"volLabel": cells}, do_compression=True)


def write_shanghaitech(
    root: Path, seed: int, train: int = 2, test: int = 2, frames: int = 100
) -> None:
    """Writes so many training and test videos of each scene, with tracks; the last is normal."""
    mark(root)
    count = len(_SCENES) * test
    for index, (scene, background) in enumerate(_SCENES.items()):
        for number in range(1, train + 1):
            rng = np.random.default_rng((seed, 2, index, number))
            video = render(background, frames, (), rng)
            write_video(root / "training" / "videos" / f"{scene}_{number:03}.avi", video.frames)
        for number in range(index * test, (index + 1) * test):
            rng = np.random.default_rng((seed, 3, number))
            events = () if number == count - 1 else _EVENTS[number % len(_EVENTS)]
            video = render(background, frames, events, rng)
            _write_test(root, f"{scene}_{_FIRST + number:04}", video)


def _write_test(root: Path, name: str, video: Rendered) -> None:
    testing = root / "testing"
    folders = [testing / "frames" / name, testing / "test_frame_mask", testing / "test_pixel_mask"]
    for folder in (*folders, root / "ground_truth"):
        folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(video.frames):
        cv2.imwrite(str(folders[0] / f"{number:03}.jpg"), frame[..., ::-1])
    masks = (video.tracks >= 0).astype(np.uint8)
    np.save(folders[1] / f"{name}.npy", masks.any(axis=(1, 2)).astype(np.uint8))
    np.save(folders[2] / f"{name}.npy", masks)
    lines = []
    for track in np.unique(video.tracks[masks > 0]):
        for frame, owner in enumerate(video.tracks == track):
            rows, columns = np.nonzero(owner)
            if len(rows):
                corners = columns.min(), rows.min(), columns.max(), rows.max()
                lines.append(",".join(map(str, (track, frame, *corners))))
    (root / "ground_truth" / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def write_video(path: Path, frames: Pixels) -> None:
    """Writes an AVI of MPEG-4 video with a key frame every 12, frames (n, H, W, 3), red first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = cv2.VideoWriter.fourcc(*"XVID")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, RATE, (WIDTH, HEIGHT))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
