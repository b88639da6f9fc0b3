"""A miniature of MVTec AD: photographs of textures, with the demo's defects drawn into them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from sspcab_cuda.demo import data as demo

from .frames import Pixels
from .layout import mark

SIDE = 128  # pixels, height and width
TEXTURES = {"grid": "brick", "tile": "gravel"}  # of each category: a pattern, and stone


def write_mvtec(
    root: Path, seed: int, train: int = 48, good: int = 24, defective: int = 12
) -> None:
    """Writes two categories, and a file that says that they are no real ones.

    Training images are from the upper rows of a photograph, test images from the lower ones.

    Args:
        root: a new folder.
        seed: of crops and defects.
        train: how many training images.
        good: how many normal test images.
        defective: how many test images with each kind of defect.
    """
    mark(root)
    donors = [demo.photograph(name) for name in demo.TEST_DONORS]
    for number, (category, texture) in enumerate(TEXTURES.items()):
        rng = np.random.default_rng((seed, number))
        upper, lower = (_pixels(part) for part in demo.split(demo.photograph(texture)))
        folder = root / category
        for index in range(train):
            _write(folder / "train" / "good" / f"{index:03}.png", _crop(upper, rng))
        for index in range(good):
            _write(folder / "test" / "good" / f"{index:03}.png", _crop(lower, rng))
        for kind in demo.KINDS:
            for index in range(defective):
                normal = _crop(lower, rng)
                image = _with_defect(normal, donors, kind, rng)
                _write(folder / "test" / kind / f"{index:03}.png", image)
                mask = 255 * (image != normal).astype(np.uint8)
                _write(folder / "ground_truth" / kind / f"{index:03}_mask.png", mask)


def _with_defect(image: Pixels, donors: list[demo.Image], kind: str, rng: Generator) -> Pixels:
    """A copy of the image with a defect in a window of the size that the demo draws in."""
    top, left = rng.integers(SIDE - demo.CROP + 1, size=2)
    image = image.copy()
    window = image[top : top + demo.CROP, left : left + demo.CROP]
    foreign = demo.random_crops(donors, 1, rng)[0]
    window[:] = _pixels(demo.add_defect(np.float32(window) / 255, foreign, kind, rng)[0])
    return image


def _pixels(image: demo.Image) -> Pixels:
    return np.rint(255 * image).astype(np.uint8)


def _crop(image: Pixels, rng: Generator) -> Pixels:
    top, left = (int(rng.integers(length - SIDE + 1)) for length in image.shape)
    return image[top : top + SIDE, left : left + SIDE]


def _write(path: Path, image: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
