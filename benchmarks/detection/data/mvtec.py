"""MVTec AD: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021.

::

    <category>/train/good/000.png …
    <category>/test/good/000.png …      normal
    <category>/test/<defect>/000.png …  each with ground_truth/<defect>/000_mask.png

anomalib reads this too, but importing it takes tens of seconds and needs torchvision and Lightning.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .frames import read_image, resize
from .layout import Layout
from .samples import ImageData, ImageSample

LAYOUT = Layout("MVTec AD", "https://www.mvtec.com/company/research/datasets/mvtec-ad")
_IMAGES = "[0-9]*.png"  # some unpackers leave files such as ._000.png

# How many images each category has: training, normal test images, test images with defects.
CATEGORIES = {
    "bottle": (209, 20, 63),
    "cable": (224, 58, 92),
    "capsule": (219, 23, 109),
    "carpet": (280, 28, 89),
    "grid": (264, 21, 57),
    "hazelnut": (391, 40, 70),
    "leather": (245, 32, 92),
    "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141),
    "screw": (320, 41, 119),
    "tile": (230, 33, 84),
    "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40),
    "wood": (247, 19, 60),
    "zipper": (240, 32, 119),
}


class _Item(NamedTuple):
    image: Path
    mask: Path | None  # None: normal


def load(root: Path, category: str, size: int) -> ImageData:
    """Looks over a category's files; see :func:`load_images`."""
    if category not in CATEGORIES:
        raise LAYOUT.error(f"a category must be one of {', '.join(CATEGORIES)}; got {category}")
    folder = LAYOUT.folder(root / category)
    train = LAYOUT.files(folder / "train" / "good", _IMAGES)
    good = LAYOUT.files(folder / "test" / "good", _IMAGES)
    tops = (folder / "test", folder / "ground_truth")
    defects = {path.name for top in tops for path in top.glob("*") if path.is_dir()} - {"good"}
    defective = [item for defect in sorted(defects) for item in _defective(folder, defect)]
    counts = len(train), len(good), len(defective)
    what = f"images of {category} for training, normal ones and ones with defects for tests"
    LAYOUT.whole(root, what, counts, CATEGORIES[category])
    return ImageData(
        _Train(train, size), _Test([*(_Item(path, None) for path in good), *defective], size)
    )


def _defective(folder: Path, defect: str) -> list[_Item]:
    """Each image has a mask, and each mask an image."""
    images, masks = folder / "test" / defect, folder / "ground_truth" / defect
    for mask in LAYOUT.files(masks, "[0-9]*_mask.png"):
        LAYOUT.file(images / f"{mask.stem.removesuffix('_mask')}.png")
    return [
        _Item(path, LAYOUT.file(masks / f"{path.stem}_mask.png"))
        for path in LAYOUT.files(images, _IMAGES)
    ]


class _Train(Dataset[Tensor]):
    def __init__(self, paths: list[Path], size: int) -> None:
        self._paths = paths
        self._size = size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        return _read(self._paths[index], self._size)


class _Test(Dataset[ImageSample]):
    def __init__(self, items: list[_Item], size: int) -> None:
        self._items = items
        self._size = size

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> ImageSample:
        path, mask_path = self._items[index]
        mask = torch.zeros(self._size, self._size, dtype=torch.bool)
        if mask_path is not None:
            mask = _read_mask(mask_path, self._size)
        return ImageSample(_read(path, self._size), mask, mask_path is not None, str(path))


def _read(path: Path, size: int) -> Tensor:
    return resize(read_image(path, LAYOUT), size).float() / 255


def _read_mask(path: Path, size: int) -> Tensor:
    """The nearest pixel, as the field has it: a thin scratch would vanish from a mean."""
    mask = read_image(path, LAYOUT, grey=True)
    nearest = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return torch.from_numpy(nearest > 0)
