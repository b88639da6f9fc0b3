"""Miniatures: repeatable, never over something else, in layouts that others read."""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.detection import data
from benchmarks.detection.data import (
    DataError,
    load_images,
    make_mini,
    mini_images,
)

from .data_cases import SEED, Written, write_avenue, write_mvtec, write_shanghaitech


def contents(root: Path) -> dict[str, bytes]:
    """Of every file; a MATLAB file has the date in its first 128 bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes()[128 if path.suffix == ".mat" else 0 :]
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def small_minis(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "mvtec": write_mvtec,
        "avenue": write_avenue,
        "shanghaitech": write_shanghaitech,
    }
    assert small.keys() == data._MINIS.keys()
    monkeypatch.setattr(data, "_MINIS", small)


@pytest.mark.usefixtures("small_minis")
def test_the_same_seed_gives_the_same_files(written: Written, tmp_path: Path) -> None:
    make_mini(tmp_path / "same", SEED)
    make_mini(tmp_path / "other")
    same, other = contents(tmp_path / "same"), contents(tmp_path / "other")
    assert same == contents(written.root)
    assert same.keys() >= {"mvtec/tile/test/good/000.png", "avenue/training_videos/01.avi"}
    pictures = [name for name in same if name.endswith((".png", ".avi", ".jpg"))]
    assert not [name for name in pictures if same[name] == other.get(name)]


@pytest.mark.parametrize("name", ["mvtec", "avenue", "shanghaitech"])
@pytest.mark.usefixtures("small_minis")
def test_a_data_set_is_never_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    message = f"a miniature is written to a new folder; got {tmp_path / name}, which exists"
    with pytest.raises(DataError, match=re.escape(message)):
        make_mini(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [name]


def test_layouts_are_those_that_anomalib_reads(written: Written) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("anomalib", reason="needs pip install anomalib")
        datasets = import_module("anomalib.data.datasets")
        avenue = import_module("anomalib.data.datasets.video.avenue")
        shanghaitech = import_module("anomalib.data.datasets.video.shanghaitech")

    theirs = datasets.MVTecADDataset(written.root / "mvtec", "grid", split="test")
    ours = load_images("mvtec", written.root / "mvtec", "grid", mini_images.SIDE).test
    samples = {sample.path: sample for sample in (ours[index] for index in range(8))}
    assert len(theirs) == len(ours) == 8  # type: ignore[arg-type]
    for index in range(8):
        item = theirs[index]
        sample = samples[item.image_path]
        torch.testing.assert_close(item.image.as_subclass(Tensor), sample.image)
        assert torch.equal(item.gt_mask.as_subclass(Tensor).bool(), sample.mask)
        assert bool(item.gt_label) == sample.label

    folder = written.root / "avenue"
    videos = avenue.make_avenue_dataset(folder, folder / "ground_truth_demo", "test")
    masks = [Path(path) for path in videos.mask_path]
    assert len(masks) == 4 and all(path.is_file() for path in masks)
    for scene in (1, 2):
        tests = shanghaitech.make_shanghaitech_dataset(written.root / "shanghaitech", scene, "test")
        masks = [Path(path) for path in tests.mask_path]
        assert len(masks) == 2 and all(path.is_file() for path in masks)
