"""Activation checkpointing: the same numbers from a block that runs again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import sspcab_cuda

from ..helpers.tolerances import assert_equal


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = sspcab_cuda.SSPCAB(16, 2)
        self.runs = 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.runs += 1
        out, loss = self.block(2 * x, return_loss=True)
        return out + 1, loss


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_same_gradients(reentrant: bool, autocast: bool, device: str) -> None:
    model = Counted().to(device)
    image = torch.randn(2, 16, 8, 9, device=device)

    def results(run: Callable[[Tensor], Any]) -> list[Tensor]:
        model.zero_grad()
        x = image.clone().requires_grad_()
        with torch.autocast(device, torch.bfloat16) if autocast else nullcontext():
            out, loss = run(x)
        (out.float().square().mean() + loss).backward()
        gradients = [t.grad for t in (x, *model.parameters())]
        return [out.detach(), loss.detach(), *(g for g in gradients if g is not None)]

    expected = results(model)
    ours = results(lambda x: checkpoint(model, x, use_reentrant=reentrant))
    assert model.runs == 3 and len(ours) == 15
    for result, truth in zip(ours, expected, strict=True):
        assert_equal(result, truth)
