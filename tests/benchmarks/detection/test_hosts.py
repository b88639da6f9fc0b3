"""Hosts with and without the block."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.detection import train as training
from benchmarks.detection.blocks import KINDS, Block, Kind, Slot
from benchmarks.detection.hosts import ImageHost, VideoHost
from benchmarks.detection.hosts.autoencoder import foreign_content
from benchmarks.detection.hosts.base import image_scores, smooth
from benchmarks.detection.hosts.future_frame import FutureFrame

from .training_cases import (
    SIZE,
    SMALL,
    assert_same_weights,
    data_of,
    make_small,
    samples,
    weights,
)


def test_fused_and_reference_give_the_same_training_curve(name: str, tmp_path: Path) -> None:
    curves = {}
    for kind in ("fused", "reference"):
        host = make_small(name, kind, torch.float64)
        path = tmp_path / kind
        curves[kind] = training.train(host, data_of(name), SMALL, path).losses
    assert curves["fused"].shape == (6, 2) and (curves["fused"] > 0).all()
    assert curves["fused"][-1, 0] < curves["fused"][0, 0]
    torch.testing.assert_close(curves["fused"], curves["reference"], rtol=0, atol=1e-8)


def test_only_the_slot_depends_on_the_block(name: str) -> None:
    """The same weights elsewhere, with every block; the same in the slot with fused and eager."""
    of = {kind: weights(make_small(name, kind)) for kind in KINDS}
    shared = of["fused"].keys() & of["none"].keys()
    assert shared and any(key not in shared for key in of["fused"])
    assert_same_weights({k: of["fused"][k] for k in shared}, {k: of["none"][k] for k in shared})
    # anomalib numbers the corners otherwise; what is compared is sorted.
    fused, eager = (sorted(float(v.sum()) for v in of[k].values()) for k in ("fused", "reference"))
    assert fused == eager


def test_without_a_block_there_is_no_loss_of_it(name: str) -> None:
    task_loss, block_loss = make_small(name, "none")(samples(name))
    assert task_loss.isfinite() and block_loss is None


def test_the_loss_of_the_block_is_of_what_went_through_it(name: str) -> None:
    host = make_small(name)
    block = next(m for m in host.modules() if type(m).__name__ == "SSPCAB")
    seen: list[Tensor] = []
    block.register_forward_hook(
        lambda _, inputs, out: seen.extend((inputs[0], out[0] if isinstance(out, tuple) else out))
    )
    _, block_loss = host(samples(name))
    x, out = seen
    torch.testing.assert_close(block_loss, (out - x).square().mean())


def test_maps_and_scores_have_their_shapes(name: str) -> None:
    host = make_small(name).eval()
    with torch.inference_mode():
        if isinstance(host, ImageHost):
            maps = host.anomaly_maps(samples(name))
            assert image_scores(maps).shape == (8,)
        else:
            assert isinstance(host, VideoHost)
            scores, maps = host.frame_errors(samples(name))
            assert scores.shape == (8,) and scores.isfinite().all()
    assert maps.shape == (8, SIZE, SIZE) and maps.isfinite().all() and (maps >= 0).all()


def test_psnr_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by 0.2 of 2 everywhere is 0.1 of 1: a PSNR of 20 dB. Off in one corner: seen there."""
    host = FutureFrame(Block("none"), width=2)
    clips = torch.zeros(2, 5, 3, SIZE, SIZE)
    predicted = torch.full((2, 3, SIZE, SIZE), 0.2)
    predicted[1] = 0
    predicted[1, :, :4, :4] = 0.2
    monkeypatch.setattr(host, "predict", lambda _: (predicted, None))
    scores, maps = host.frame_errors(clips)
    torch.testing.assert_close(scores, torch.tensor([-20.0, -20 - 10 * math.log10(64)]))
    predicted[:] = 0
    assert host.frame_errors(clips)[0].tolist() == [-100, -100]  # no infinity
    assert maps[1].argmax() == 0 and maps[1, 10:, 10:].max() == 0
    torch.testing.assert_close(maps[0], torch.full((SIZE, SIZE), 0.01))


def test_loss_of_future_frames_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ramp predicted as its mirror image has the same gradients: only intensities differ."""
    host = FutureFrame(Block("none"), width=2)
    ramp = torch.linspace(-1, 1, SIZE).expand(1, 3, SIZE, SIZE)
    clips = ramp.expand(5, 1, 3, SIZE, SIZE).transpose(0, 1)
    monkeypatch.setattr(host, "predict", lambda _: (ramp.flip(3), None))
    torch.testing.assert_close(host.losses(clips)[0], (2 * ramp).square().mean())
    monkeypatch.setattr(host, "predict", lambda _: (torch.zeros_like(ramp), None))
    step = 2 / (SIZE - 1)
    torch.testing.assert_close(host.losses(clips)[0], ramp.square().mean() + step)


def test_the_next_frame_is_not_seen() -> None:
    host = FutureFrame(Block("fused"), width=8)
    clips = samples("future-frame")
    before = host.predict(clips)[0]
    clips[:, -1] = 0
    assert torch.equal(host.predict(clips)[0], before)


def test_foreign_content_is_of_another_image() -> None:
    images = torch.zeros(4, 3, SIZE, SIZE)
    images[1, :, :, ::2] = 1
    foreign = foreign_content(images)
    assert foreign.min() >= 0 and foreign.max() <= 1
    spread = foreign.std(dim=(1, 2, 3), correction=0) - foreign.mean((2, 3)).std(1, correction=0)
    assert spread[2] > 0.01 and spread[[0, 1, 3]].abs().max() < 1e-6


def test_smooth_keeps_constants_and_image_scores_find_the_spot() -> None:
    maps = torch.full((2, 48, 48), 3.0)
    torch.testing.assert_close(smooth(maps), maps)
    maps[1, 20:25, 20:25] += 1  # the window: 5×5
    torch.testing.assert_close(image_scores(maps), torch.tensor([3.0, 4.0]))


@pytest.mark.parametrize("kind", KINDS)
def test_slot_takes_the_shape_of_the_block(kind: Kind) -> None:
    slot = Slot(8, Block(kind, kernel_dim=2, dilation=3, reduction_ratio=4))
    out, loss = slot(torch.rand(2, 8, 16, 16))
    assert out.shape == (2, 8, 16, 16) and (loss is None) == (kind == "none")
    if kind != "none":
        shapes = {name: parameter.shape for name, parameter in slot.layer.named_parameters()}
        assert shapes["conv1.weight"] == (8, 8, 2, 2) and shapes["se.fc1.weight"] == (2, 8)
        assert slot.layer.dilation == 3
