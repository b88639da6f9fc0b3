"""Textures, crops and defects: photographs out of the scikit-image wheel, nothing to download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import skimage.data
from numpy.random import Generator
from numpy.typing import NDArray
from skimage import draw, filters, morphology
from skimage.color import rgb2gray
from skimage.util import img_as_float32

Image = NDArray[np.float32]  # (H, W), grey values 0..1
Mask = NDArray[np.bool_]  # (H, W)

CROP = 64  # pixels, height and width
TEXTURES = ("brick", "grass", "gravel")
KINDS = ("patch", "scratch", "stain")
# Where foreign content comes from: what the host meets in training is never used for testing.
TRAIN_DONORS = ("camera", "chelsea", "coins")
TEST_DONORS = ("coffee", "immunohistochemistry", "rocket")
_TRAIN_ROWS = 320  # of 512: the rows above are for training, those below for testing


@dataclass(frozen=True)
class TestCrops:
    """Crops to score. Those without a defect have an empty mask and the kind ``"normal"``."""

    images: NDArray[np.float32]  # (N, CROP, CROP)
    masks: NDArray[np.bool_]  # (N, CROP, CROP), True where a defect altered the pixel
    kinds: tuple[str, ...]  # N names

    @property
    def defective(self) -> NDArray[np.bool_]:
        """``(N,)``, True for a crop with a defect."""
        return np.array([kind != "normal" for kind in self.kinds])


def photograph(name: str) -> Image:
    """One of scikit-image's photographs as ``(H, W)`` grey values in 0..1."""
    image = getattr(skimage.data, name)()
    grey: Image = img_as_float32(rgb2gray(image) if image.ndim == 3 else image)
    return grey


def split(texture: Image) -> tuple[Image, Image]:
    """The rows for training and the rows for testing; no pixel is in both."""
    return texture[:_TRAIN_ROWS], texture[_TRAIN_ROWS:]


def random_crop(image: Image, rng: Generator) -> Image:
    """A ``(CROP, CROP)`` view at a random place of the image."""
    top, left = (int(rng.integers(size - CROP + 1)) for size in image.shape)
    return image[top : top + CROP, left : left + CROP]


def random_crops(images: list[Image], count: int, rng: Generator) -> NDArray[np.float32]:
    """``(count, CROP, CROP)``, each crop from a random one of the images."""
    return np.stack([random_crop(images[rng.integers(len(images))], rng) for _ in range(count)])


def _patch(rng: Generator) -> Mask:
    """A rectangle of 8 to 20 pixels a side, as in CutPaste."""
    extent = rng.integers(8, 21, size=2)
    shape = np.zeros((CROP, CROP), dtype=bool)
    shape[draw.rectangle(rng.integers(CROP - extent + 1), extent=extent)] = True
    return shape


def _scratch(rng: Generator) -> Mask:
    """A bent line, three pixels thick."""
    (r0, c0), (r1, c1), (r2, c2) = rng.integers(4, CROP - 4, size=(3, 2))
    shape = np.zeros((CROP, CROP), dtype=bool)
    shape[draw.bezier_curve(r0, c0, r1, c1, r2, c2, weight=1)] = True
    return np.asarray(morphology.dilation(shape, np.ones((3, 3))), dtype=bool)


def _stain(rng: Generator) -> Mask:
    """A blob: the upper half of smoothed noise within a disc of radius 14."""
    noise = filters.gaussian(rng.standard_normal((CROP, CROP)), sigma=4)
    disc = np.zeros((CROP, CROP), dtype=bool)
    disc[draw.disk(rng.integers(14, CROP - 14, size=2), 14)] = True
    return np.asarray(disc & (noise > np.median(noise[disc])), dtype=bool)


_SHAPES = {"patch": _patch, "scratch": _scratch, "stain": _stain}
_OPACITY = {"patch": 1.0, "scratch": 1.0, "stain": 0.5}


def add_defect(crop: Image, foreign: Image, kind: str, rng: Generator) -> tuple[Image, Mask]:
    """Lets foreign content show through a random shape.

    Args:
        crop, foreign: ``(CROP, CROP)``; neither is changed.
        kind: one of ``KINDS``; patches and scratches are opaque, stains cover half.

    Returns:
        The defective crop, and the mask of the pixels that differ from the original: where the
        foreign content happens to have the same grey value there is no defect to find.
    """
    opacity = np.float32(_OPACITY[kind])
    blend = (1 - opacity) * crop + opacity * foreign
    defective: Image = np.where(_SHAPES[kind](rng), blend, crop)
    return defective, defective != crop


def make_test_crops(held_out: Image, donors: list[Image], count: int, seed: int) -> TestCrops:
    """``count`` crops with each kind of defect, and as many normal crops in all."""
    rng = np.random.default_rng(seed)
    kinds = KINDS * count
    normal = random_crops([held_out], len(kinds), rng)
    crops = random_crops([held_out], len(kinds), rng)
    foreign = random_crops(donors, len(kinds), rng)
    defects = [add_defect(*args, rng) for args in zip(crops, foreign, kinds, strict=True)]
    return TestCrops(
        images=np.concatenate((normal, [image for image, _ in defects])),
        masks=np.concatenate((np.zeros(normal.shape, bool), [mask for _, mask in defects])),
        kinds=("normal",) * len(kinds) + kinds,
    )
