"""Images and masks as the files have them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.io
import torch

from benchmarks.detection.data import (
    load_images,
    mini_images,
)
from sspcab_cuda.demo import data as demo

from .data_cases import Written


@pytest.mark.parametrize("category", mini_images.TEXTURES)
def test_images_are_those_of_the_files(category: str, written: Written) -> None:
    folder = written.root / "mvtec" / category
    size = mini_images.SIDE
    read = load_images("mvtec", folder.parent, category, size)
    assert len(read.train) == 3 and len(read.test) == 2 + 3 * 2  # type: ignore[arg-type]
    for index in range(3):
        file = skimage.io.imread(folder / "train" / "good" / f"{index:03}.png")
        assert torch.equal(read.train[index], torch.from_numpy(file).expand(3, -1, -1) / 255)
    samples = [read.test[index] for index in range(8)]
    kinds = [str(Path(sample.path).parent.name) for sample in samples]
    assert kinds == ["good"] * 2 + [kind for kind in demo.KINDS for _ in range(2)]
    assert [sample.label for sample in samples] == [False] * 2 + [True] * 6
    for sample in samples:
        path = Path(sample.path)
        file = skimage.io.imread(path)
        assert sample.image.dtype == torch.float32 and sample.image.shape == (3, size, size)
        assert torch.equal(sample.image, torch.from_numpy(file).expand(3, -1, -1) / 255)
        assert sample.mask.dtype == torch.bool and bool(sample.mask.any()) == sample.label
        if sample.label:
            masks = folder / "ground_truth" / path.parent.name
            mask = skimage.io.imread(masks / f"{path.stem}_mask.png")
            assert set(np.unique(mask)) == {0, 255}
            assert np.array_equal(sample.mask.numpy(), mask == 255)


@pytest.mark.parametrize(("category", "texture"), mini_images.TEXTURES.items())
def test_masks_are_what_was_drawn(category: str, texture: str, written: Written) -> None:
    """Where the mask is False, a test image is a piece of the photograph, and only there."""
    side = mini_images.SIDE
    photograph = np.rint(255 * demo.split(demo.photograph(texture))[1]).astype(np.uint8)
    pieces = np.lib.stride_tricks.sliding_window_view(photograph, (side, side))
    read = load_images("mvtec", written.root / "mvtec", category, side)
    for index in range(8):
        image, mask, label, _ = read.test[index]
        grey, changed = (255 * image[0]).round().byte().numpy(), mask.numpy()
        rows, columns = np.nonzero(~changed)
        some = slice(None, None, 97)
        fits = (pieces[:, :, rows[some], columns[some]] == grey[rows[some], columns[some]]).all(-1)
        ((top, left),) = np.argwhere(fits)
        assert np.array_equal(grey != pieces[top, left], changed)
        assert 0 < changed.sum() < 0.1 * side**2 if label else not changed.any()


def test_training_images_are_no_test_images(written: Written) -> None:
    """No piece of 16 × 16 pixels is in both."""
    read = load_images("mvtec", written.root / "mvtec", "tile", mini_images.SIDE)
    pieces = [
        {
            window.tobytes()
            for image in images
            for window in np.lib.stride_tricks.sliding_window_view(image[0].numpy(), (16, 16))
            .reshape(-1, 16, 16)
            .copy()
        }
        for images in ([read.train[i] for i in range(3)], [read.test[i].image for i in range(2)])
    ]
    assert pieces[0] and not pieces[0] & pieces[1]


def test_red_is_first_and_grey_has_three_channels(root: Path) -> None:
    path = root / "mvtec" / "tile" / "train" / "good" / "000.png"
    colours = np.zeros((60, 60, 3), np.uint8)
    colours[:, :30] = 255, 51, 0
    skimage.io.imsave(path, colours, check_contrast=False)
    image = load_images("mvtec", root / "mvtec", "tile", 20).train[0]
    assert image[:, 0, 0].tolist() == pytest.approx([1, 0.2, 0])
    assert image[:, 0, 19].tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [16, 32, 64, 256])
def test_masks_lie_where_images_lie_at_every_size(size: int, root: Path) -> None:
    folder = root / "mvtec" / "grid"
    square = np.zeros((128, 128), np.uint8)
    square[16:48, 64:120] = 255
    cv2.imwrite(str(folder / "test" / "patch" / "000.png"), square)
    cv2.imwrite(str(folder / "ground_truth" / "patch" / "000_mask.png"), square)
    sample = load_images("mvtec", root / "mvtec", "grid", size).test[2]
    expected = torch.zeros(size, size, dtype=torch.bool)
    expected[size // 8 : 3 * size // 8, size // 2 : 15 * size // 16] = True
    assert torch.equal(sample.mask, expected)
    assert torch.equal(sample.image[0] > 0.5, expected)


def test_a_smaller_mask_has_the_nearest_pixels(root: Path) -> None:
    mask = np.random.default_rng(0).random((128, 128)) < 0.5
    path = root / "mvtec" / "grid" / "ground_truth" / "patch" / "000_mask.png"
    cv2.imwrite(str(path), 255 * mask.astype(np.uint8))
    sample = load_images("mvtec", root / "mvtec", "grid", 32).test[2]
    assert np.array_equal(sample.mask.numpy(), mask[2::4, 2::4])
