"""Models and factories of other people that hold the block."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from skimage import data, io, transform
from torch import Tensor

import sspcab_cuda

SIZE = 64  # pixels, of which the block sees 4×4


def photographs() -> Tensor:
    """Two pieces of one, (2, 3, SIZE, SIZE) in [0, 1]."""
    image = transform.resize(data.astronaut(), (2 * SIZE, 2 * SIZE), anti_aliasing=True)
    whole = torch.from_numpy(image).permute(2, 0, 1)
    return torch.stack([whole[:, :SIZE, :SIZE], whole[:, SIZE:, SIZE:]])


def build_draem(anomalib: ModuleType, textures: Path) -> Any:
    """DRAEM with the block, in float64, an eighth as wide as anomalib makes it."""
    torch.manual_seed(0)
    draem = anomalib.models.Draem(dtd_dir=textures, enable_sspcab=True)
    networks = anomalib.models.image.draem.torch_model
    draem.model.reconstructive_subnetwork = networks.ReconstructiveSubNetwork(
        base_width=16, sspcab=True
    )
    draem.model.discriminative_subnetwork = networks.DiscriminativeSubNetwork(6, 2, base_width=8)
    draem.setup_sspcab()
    draem.augmenter.probability = 1.0
    draem.log = lambda *_, **__: None  # there's no trainer
    return draem.double()


def train(draem: Any, optimizer: torch.optim.Optimizer, steps: range) -> list[tuple[float, float]]:
    """Each step's loss, and the block's, from what DRAEM's hooks on the block have seen."""
    losses = []
    for step in steps:
        torch.manual_seed(step)  # the augmenter draws from it
        draem.sspcab_activations.clear()
        loss = draem.training_step(SimpleNamespace(image=photographs()))["loss"]
        seen = draem.sspcab_activations
        reconstruction_loss = draem.sspcab_loss(seen["input"], seen["output"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append((loss.item(), reconstruction_loss.item()))
    return losses


@pytest.mark.filterwarnings(
    "ignore:The image decoding and encoding capabilities:DeprecationWarning"
)
def test_draem_trains_as_before(anomalib: ModuleType, tmp_path: Path) -> None:
    for name in ("coffee", "brick"):  # pasted into the images as defects
        io.imsave(tmp_path / f"{name}.png", getattr(data, name)()[::3, ::3])
    runs = []
    for swaps in (False, True):
        draem = build_draem(anomalib, tmp_path)
        (optimizer,), _ = draem.configure_optimizers()
        before = train(draem, optimizer, range(2))
        if swaps:
            replaced = sspcab_cuda.replace(draem)
            assert list(replaced) == ["model.reconstructive_subnetwork.encoder.block5"]
            assert type(draem.get_submodule(*replaced)) is sspcab_cuda.SSPCAB
        runs.append([*before, *train(draem, optimizer, range(2, 5))])
    for loss, expected in zip(*runs, strict=True):
        assert loss == pytest.approx(expected, rel=1e-10)


def test_timm_makes_the_block(anomalib: ModuleType) -> None:
    """timm comes with anomalib."""
    from timm.layers import create_attn

    block = create_attn(sspcab_cuda.SSPCAB, 16)
    assert type(block) is sspcab_cuda.SSPCAB
    assert block.conv1.weight.shape == (16, 16, 1, 1)
    x = torch.randn(2, 16, 7, 8)
    assert block(x).shape == x.shape
    block = create_attn(sspcab_cuda.SSPCAB, 16, kernel_dim=3, variant="anomalib")
    assert block.conv1.weight.shape == (16, 16, 3, 3) and block.variant == "anomalib"


def test_a_model_of_timm_with_the_block_in_it() -> None:
    timm = pytest.importorskip("timm", reason="needs pip install 'sspcab_cuda[anomalib]'")
    model = timm.create_model("resnet18", block_args={"attn_layer": sspcab_cuda.SSPCAB})
    blocks = [module for module in model.modules() if isinstance(module, sspcab_cuda.SSPCAB)]
    assert len(blocks) == 8
    with sspcab_cuda.collect_reconstruction_losses() as losses:
        model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert len(losses) == 8
    assert all(parameter.grad is not None for parameter in blocks[-1].parameters())
