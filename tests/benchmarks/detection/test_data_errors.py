"""Data sets that are incomplete or broken."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.detection.data import (
    DataError,
    load_images,
    load_videos,
)

from .data_cases import H, W, write_masks

Break = Callable[[Path], None]


def remove(path: str) -> Break:
    def act(root: Path) -> None:
        if (root / path).is_dir():
            shutil.rmtree(root / path)
        else:
            (root / path).unlink()

    return act


def put(path: str, content: bytes = b"") -> Break:
    def act(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)

    return act


def save(path: str, array: NDArray[np.generic]) -> Break:
    return lambda root: np.save(root / path, array)


def cut(path: str) -> Break:
    """The second half of a file is lost."""

    def act(root: Path) -> None:
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[: len(content) // 2])

    return act


def remove_files(path: str) -> Break:
    def act(root: Path) -> None:
        for file in (root / path).iterdir():
            file.unlink()

    return act


def copy_training_videos(root: Path) -> None:
    """As many as are published; test videos are missing then."""
    for number in range(3, 17):
        shutil.copy(root / "training_videos/01.avi", root / f"training_videos/{number:02}.avi")
    (root / "MINIATURE").unlink()


MASKS = "ground_truth_demo/testing_label_mask"
BROKEN_IMAGES: list[tuple[Break, str]] = [
    (remove("grid"), "there must be a folder ROOT/grid"),
    (remove("grid/train"), "there must be a folder ROOT/grid/train/good"),
    (remove("grid/test/good"), "there must be a folder ROOT/grid/test/good"),
    (
        remove_files("grid/train/good"),
        "there must be files ROOT/grid/train/good/[0-9]*.png",
    ),
    (put("grid/train/good/001.png"), "the file ROOT/grid/train/good/001.png must not be empty"),
    (
        remove("MINIATURE"),
        "ROOT must have (264, 21, 57) images of grid for training, normal ones and ones with "
        "defects for tests; got (3, 2, 6)",
    ),
    (remove("grid/test/patch"), "there must be a file ROOT/grid/test/patch/000.png"),
    (remove("grid/test/stain/001.png"), "there must be a file ROOT/grid/test/stain/001.png"),
    (remove("grid/ground_truth"), "there must be a folder ROOT/grid/ground_truth/patch"),
    (
        remove("grid/ground_truth/scratch/001_mask.png"),
        "there must be a file ROOT/grid/ground_truth/scratch/001_mask.png",
    ),
]
BROKEN_AVENUE: list[tuple[Break, str]] = [
    (remove("training_videos"), "there must be a folder ROOT/training_videos"),
    (remove("testing_videos"), "there must be a folder ROOT/testing_videos"),
    (remove("ground_truth_demo"), f"there must be a folder ROOT/{MASKS}"),
    (remove("training_videos/01.avi"), "there must be a file ROOT/training_videos/01.avi"),
    (remove("testing_videos/02.avi"), "there must be a file ROOT/testing_videos/02.avi"),
    (remove("testing_videos/04.avi"), "there must be a file ROOT/testing_videos/04.avi"),
    (remove(f"{MASKS}/2_label.mat"), f"there must be a file ROOT/{MASKS}/2_label.mat"),
    (remove(f"{MASKS}/4_label.mat"), f"there must be a file ROOT/{MASKS}/4_label.mat"),
    (put("testing_videos/01.avi"), "the file ROOT/testing_videos/01.avi must not be empty"),
    (
        put("training_videos/02.avi", b"no video"),
        "there must be a video that can be decoded in ROOT/training_videos/02.avi",
    ),
    (put(f"{MASKS}/1_label.mat", b"x" * 200), f"ROOT/{MASKS}/1_label.mat must be a MATLAB file"),
    (
        lambda root: write_masks(root / MASKS / "1_label.mat", 40, "vol"),
        f"ROOT/{MASKS}/1_label.mat must hold volLabel; got vol",
    ),
    (
        lambda root: write_masks(root / MASKS / "3_label.mat", 38),
        f"ROOT/{MASKS}/3_label.mat must have a mask for each frame of ROOT/testing_videos/03.avi; "
        "got 38 and 40",
    ),
    (
        cut("testing_videos/03.avi"),
        "ROOT/testing_videos/03.avi must have the 40 frames of its header; got ",
    ),
    (remove("MINIATURE"), "there must be a file ROOT/training_videos/03.avi"),
    (copy_training_videos, "there must be a file ROOT/testing_videos/05.avi"),
    (put("ground_truth/01.txt"), "there must be a file ROOT/ground_truth/02.txt"),
]
ONE = "testing/frames/01_0014"
BROKEN_SHANGHAITECH: list[tuple[Break, str]] = [
    (remove("training"), "there must be a folder ROOT/training/videos"),
    (
        remove_files("training/videos"),
        "there must be files ROOT/training/videos/[0-9]*.avi",
    ),
    (remove("testing/test_frame_mask"), "there must be a folder ROOT/testing/test_frame_mask"),
    (remove("testing/frames"), f"there must be a folder ROOT/{ONE}"),
    (remove(ONE), f"there must be a folder ROOT/{ONE}"),
    (remove(f"{ONE}/000.jpg"), f"there must be a file ROOT/{ONE}/000.jpg"),
    (remove(f"{ONE}/012.jpg"), f"there must be a file ROOT/{ONE}/012.jpg"),
    (
        remove(f"{ONE}/023.jpg"),
        f"01_0014 must have a label and a mask for each frame in ROOT/{ONE}; "
        "got 24, 24 and 23 frames",
    ),
    (put(f"{ONE}/011.jpg"), f"the file ROOT/{ONE}/011.jpg must not be empty"),
    (
        remove("testing/test_frame_mask/02_0016.npy"),
        "there must be a file ROOT/testing/test_frame_mask/02_0016.npy",
    ),
    (
        remove("testing/test_pixel_mask/02_0016.npy"),
        "there must be a file ROOT/testing/test_pixel_mask/02_0016.npy",
    ),
    (
        put("testing/test_pixel_mask/02_0016.npy", b"no array"),
        "ROOT/testing/test_pixel_mask/02_0016.npy must be a NumPy array; got: ",
    ),
    (
        cut("testing/test_pixel_mask/02_0016.npy"),
        "ROOT/testing/test_pixel_mask/02_0016.npy must be a NumPy array; got: ",
    ),
    (
        save("testing/test_frame_mask/01_0014.npy", np.zeros((24, 1))),
        "ROOT/testing/test_frame_mask/01_0014.npy must have 1 dimensions; got the shape (24, 1)",
    ),
    (
        save("testing/test_frame_mask/01_0014.npy", np.zeros(23)),
        f"must have a label and a mask for each frame in ROOT/{ONE}; got 23, 24 and 24 frames",
    ),
    (
        save("testing/test_pixel_mask/01_0014.npy", np.zeros((25, H, W), bool)),
        f"must have a label and a mask for each frame in ROOT/{ONE}; got 24, 25 and 24 frames",
    ),
    (
        remove("MINIATURE"),
        "ROOT must have (330, 107) videos for training and tests; got (2, 4)",
    ),
    (remove("ground_truth/02_0017.txt"), "there must be a file ROOT/ground_truth/02_0017.txt"),
]


def complains(root: Path, text: str) -> AbstractContextManager[pytest.ExceptionInfo[DataError]]:
    return pytest.raises(DataError, match=re.escape(text.replace("ROOT", str(root))))


@pytest.mark.parametrize(("act", "text"), BROKEN_IMAGES, ids=[text for _, text in BROKEN_IMAGES])
def test_incomplete_images(act: Break, text: str, root: Path) -> None:
    act(root / "mvtec")
    with complains(root / "mvtec", text) as caught:
        load_images("mvtec", root / "mvtec", "grid", 32)
    assert str(caught.value).startswith("MVTec AD: ")
    assert str(caught.value).endswith("https://www.mvtec.com/company/research/datasets/mvtec-ad")


@pytest.mark.parametrize(
    ("name", "act", "text"),
    [("avenue", *broken) for broken in BROKEN_AVENUE]
    + [("shanghaitech", *broken) for broken in BROKEN_SHANGHAITECH],
    ids=[text for _, text in BROKEN_AVENUE + BROKEN_SHANGHAITECH],
)
def test_incomplete_videos(name: str, act: Break, text: str, root: Path) -> None:
    act(root / name)
    with complains(root / name, text) as caught:
        load_videos(name, root / name, 32)
    pages = {"avenue": "cuhk", "shanghaitech": "svip", "ground_truth": "AED"}
    page = pages["ground_truth" if "ROOT/ground_truth/" in text else name]
    assert "Its publisher offers the data at http" in str(caught.value)
    assert page in str(caught.value)


def test_files_that_are_broken_inside(root: Path) -> None:
    """These show when they are read."""
    cut("training_videos/02.avi")(root / "avenue")
    clips = load_videos("avenue", root / "avenue", 32).train
    text = "ROOT/training_videos/02.avi must have the 40 frames of its header; got "
    with complains(root / "avenue", text):
        clips[len(clips) - 1]  # type: ignore[arg-type]

    put(f"{ONE}/003.jpg", b"no image")(root / "shanghaitech")
    video = load_videos("shanghaitech", root / "shanghaitech", 32).test[0]
    text = f"there must be an image that can be decoded in ROOT/{ONE}/003.jpg"
    with complains(root / "shanghaitech", text):
        video.clip(2, 3)

    cut(f"{MASKS}/1_label.mat")(root / "avenue")
    video = load_videos("avenue", root / "avenue", 32).test[0]
    with complains(root / "avenue", f"ROOT/{MASKS}/1_label.mat must be a MATLAB file; got: "):
        video.labels.any()

    put("grid/test/good/001.png", b"no image")(root / "mvtec")
    test = load_images("mvtec", root / "mvtec", "grid", 32).test
    text = "there must be an image that can be decoded in ROOT/grid/test/good/001.png"
    with complains(root / "mvtec", text):
        test[1]


def test_names_that_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the name must be one of mvtec; got avenue"):
        load_images("avenue", tmp_path, "grid", 32)
    with pytest.raises(DataError, match="the name must be one of avenue, shanghaitech; got mvtec"):
        load_videos("mvtec", tmp_path, 32)
    with pytest.raises(DataError, match=r"must be one of bottle, .*, zipper; got brick"):
        load_images("mvtec", tmp_path, "brick", 32)
