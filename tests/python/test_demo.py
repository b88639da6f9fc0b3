"""The demo: what its defects promise, and one short run from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for _name in ("skimage", "sklearn", "matplotlib", "tqdm"):
    pytest.importorskip(_name)

import numpy as np  # noqa: E402
import torch  # noqa: E402

from sspcab_cuda import demo  # noqa: E402
from sspcab_cuda.demo import data, report, train  # noqa: E402


@pytest.fixture
def crop_and_foreign() -> tuple[data.Image, data.Image]:
    rng = np.random.default_rng(0)
    brick, coffee = data.photograph("brick"), data.photograph("coffee")
    return data.random_crop(brick, rng), data.random_crop(coffee, rng)


@pytest.mark.parametrize("name", (*data.TEXTURES, *data.TRAIN_DONORS, *data.TEST_DONORS))
def test_photographs_are_grey_and_large_enough(name: str) -> None:
    image = data.photograph(name)
    assert image.ndim == 2 and image.dtype == np.float32
    assert min(image.shape) >= data.CROP
    assert 0 <= image.min() < image.max() <= 1


def test_no_photograph_serves_two_purposes() -> None:
    names = (*data.TEXTURES, *data.TRAIN_DONORS, *data.TEST_DONORS)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("texture", data.TEXTURES)
def test_split_is_disjoint_and_complete(texture: str) -> None:
    image = data.photograph(texture)
    train_part, held_out = data.split(image)
    assert not np.shares_memory(train_part, held_out)
    assert np.array_equal(np.concatenate((train_part, held_out)), image)


@pytest.mark.parametrize("kind", data.KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_mask_is_exactly_what_a_defect_altered(
    kind: str, seed: int, crop_and_foreign: tuple[data.Image, data.Image]
) -> None:
    crop, foreign = crop_and_foreign
    before = crop.copy()
    defective, mask = data.add_defect(crop, foreign, kind, np.random.default_rng(seed))
    assert np.array_equal(crop, before)
    assert defective.dtype == np.float32 and defective.shape == mask.shape == crop.shape
    assert np.array_equal(mask, defective != crop)
    assert 0 < mask.sum() < mask.size / 4
    opacity = 0.5 if kind == "stain" else 1
    expected = crop + opacity * (foreign - crop)
    np.testing.assert_allclose(defective[mask], expected[mask], atol=1e-6)


def test_test_crops_are_balanced_and_labelled() -> None:
    held_out = data.split(data.photograph("brick"))[1]
    crops = data.make_test_crops(held_out, [data.photograph("coffee")], count=3, seed=0)
    assert len(crops.images) == len(crops.masks) == len(crops.kinds) == 18
    assert crops.defective.sum() == 9
    assert all(crops.kinds.count(kind) == 3 for kind in data.KINDS)
    assert np.array_equal(crops.masks.any(axis=(1, 2)), crops.defective)


def test_corruption_blends_part_of_each_crop() -> None:
    x, foreign = torch.zeros(64, 1, data.CROP, data.CROP), torch.ones(64, 1, data.CROP, data.CROP)
    corrupted = train.corrupt(x, foreign, torch.Generator().manual_seed(0))
    altered = corrupted != x
    assert 0.1 < altered.float().mean() < 0.35
    assert corrupted[altered].min() >= 0.3 and corrupted.max() <= 1


def test_evaluate_knows_the_best_and_the_worst_maps() -> None:
    held_out = data.split(data.photograph("brick"))[1]
    crops = data.make_test_crops(held_out, [data.photograph("coffee")], count=2, seed=0)
    truth = crops.masks.astype(np.float32)
    assert report.evaluate(truth, crops) == (1, 1, 1)
    image_auroc, pixel_auroc, pixel_ap = report.evaluate(-truth, crops)
    assert pixel_auroc == 0 and pixel_ap < 0.1 and image_auroc <= 0.5


@pytest.mark.parametrize("texture", ("brick", "gravel"))
def test_run_is_repeatable_and_writes_a_figure(
    texture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(demo, "TEST_CROPS", 2)
    monkeypatch.setattr(train, "STEPS", 2)
    monkeypatch.setattr(train, "BATCH", 4)
    argv = ["--texture", texture, "--epochs", "2", "--output", str(tmp_path / "made")]
    demo.main(argv)
    first = capsys.readouterr().out
    demo.main(argv)
    assert capsys.readouterr().out == first
    assert [line.split("  ")[0] for line in first.splitlines()[1:4]] == [
        "without block",
        "with block",
        "chance",
    ]
    figure = tmp_path / "made" / f"{texture}.png"
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_epochs_must_be_positive(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        demo.main(["--epochs", "0"])
    assert "must be at least 1; got 0" in capsys.readouterr().err


def test_missing_dependency_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    monkeypatch.delitem(sys.modules, "sspcab_cuda.demo.report")
    monkeypatch.delattr(demo, "report")
    with pytest.raises(SystemExit, match=r"needs sklearn.*pip install 'sspcab_cuda\[demo\]'"):
        demo.main([])
