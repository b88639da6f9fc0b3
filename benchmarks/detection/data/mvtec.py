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
CATEGORIES = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)


class _Item(NamedTuple):
    image: Path
    mask: Path | None  # None: normal


def load(root: Path, category: str, size: int) -> ImageData:
    """Looks over a category's files; see :func:`load_images`."""
    if category not in CATEGORIES:
        raise LAYOUT.error(f"a category must be one of {', '.join(CATEGORIES)}; got {category}")
    folder = LAYOUT.folder(root / category)
    train = LAYOUT.files(folder / "train" / "good", "*.png")
    items = [_Item(path, None) for path in LAYOUT.files(folder / "test" / "good", "*.png")]
    tops = (folder / "test", folder / "ground_truth")
    defects = {path.name for top in tops for path in top.glob("*") if path.is_dir()} - {"good"}
    if not defects:
        raise LAYOUT.error(f"there must be folders of defects beside {folder / 'test' / 'good'}")
    for defect in sorted(defects):
        images, masks = folder / "test" / defect, folder / "ground_truth" / defect
        for mask in LAYOUT.files(masks, "*_mask.png"):
            LAYOUT.file(images / f"{mask.stem.removesuffix('_mask')}.png")
        items += [
            _Item(path, LAYOUT.file(masks / f"{path.stem}_mask.png"))
            for path in LAYOUT.files(images, "*.png")
        ]
    return ImageData(_Train(train, size), _Test(items, size))


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
