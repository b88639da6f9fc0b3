"""Training: the same path as the reference, step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sspcab_cuda
from sspcab_cuda import reference

from ..helpers.tolerances import relative_error

STEPS = 20


def losses_and_model(
    module: type[nn.Module],
    kernel_dim: int,
    dtype: torch.dtype,
    layout: torch.memory_format,
    device: str,
) -> tuple[list[Tensor], nn.Module]:
    """20 steps of an encoder, the block and a decoder on L_F + 0.1 · L_SSPCAB."""
    torch.manual_seed(3)
    encoder = nn.Conv2d(3, 16, 3, padding=1)
    block = module(16, kernel_dim)
    decoder = nn.Conv2d(16, 3, 3, padding=1)
    model = nn.ModuleList([encoder, block, decoder]).to(device, dtype)
    images = torch.rand(4, 3, 12, 11, device=device, dtype=dtype).contiguous(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        out, reconstruction = block(encoder(images), return_loss=True)
        loss = (decoder(out) - images).square().mean() + 0.1 * reconstruction
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses, model


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("kernel_dim", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)], ids=str
)
def test_sgd(
    dtype: torch.dtype, tolerance: float, kernel_dim: int, layout: torch.memory_format, device: str
) -> None:
    ours, model = losses_and_model(sspcab_cuda.SSPCAB, kernel_dim, dtype, layout, device)
    expected, truth = losses_and_model(reference.SSPCAB, kernel_dim, dtype, layout, device)
    assert expected[-1] < 0.5 * expected[0]
    assert relative_error(torch.stack(ours), torch.stack(expected)) < tolerance
    for parameter, true in zip(model.parameters(), truth.parameters(), strict=True):
        assert relative_error(parameter.detach(), true.detach()) < 10 * tolerance
