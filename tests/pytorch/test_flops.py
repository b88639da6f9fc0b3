"""torch.utils.flop_counter counts the block as it counts the same in PyTorch's operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import sspcab_cuda
from sspcab_cuda import functional, reference

from ..helpers.cases import SMALL, Case, arguments

CASES = [SMALL, Case(2, 5, 6, 7, 2, 1), Case(1, 16, 1, 1), Case(3, 8, 5, 4, 3, 0)]
NAMES = ["x", *(f"weight{i}" for i in range(1, 5)), *(f"bias{i}" for i in range(1, 5)),
         "fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias"]  # fmt: skip


def sspcab(module: Any, tensors: list[Tensor], case: Case) -> Tensor:
    out, loss = module.sspcab(
        tensors[0], tensors[1:5], tensors[5:9], *tensors[9:], case.dilation, return_loss=True
    )
    return out.sum() + loss


def masked_conv2d(module: Any, tensors: list[Tensor], case: Case) -> Tensor:
    return module.masked_conv2d(tensors[0], tensors[1:5], tensors[5:9], case.dilation).sum()


def squeeze_excite(module: Any, tensors: list[Tensor], case: Case) -> Tensor:
    return module.squeeze_excite(tensors[0], *tensors[9:]).sum()


def reconstruction_loss(module: Any, tensors: list[Tensor], case: Case) -> Tensor:
    return module.reconstruction_loss(tensors[0], tensors[0] + 1)


FUNCTIONS = [sspcab, masked_conv2d, squeeze_excite, reconstruction_loss]


def counted(function: Callable[..., Tensor], module: Any, tensors: list[Tensor], case: Case) -> int:
    for tensor in tensors:
        tensor.grad = None
    with FlopCounterMode(display=False) as counter:
        result = function(module, tensors, case)
        if result.requires_grad:
            result.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_as_many_as_the_reference(function: Callable[..., Tensor], case: Case) -> None:
    """In inference, in training, and with the gradient of any one argument alone."""
    tensors = arguments(case)
    for wanted in ([], NAMES, *([name] for name in NAMES)):
        for name, tensor in zip(NAMES, tensors, strict=True):
            tensor.requires_grad_(name in wanted)
        expected = counted(function, reference, tensors, case)
        assert counted(function, functional, tensors, case) == expected, wanted
        assert expected > 0 or function in (squeeze_excite, reconstruction_loss)


def test_of_a_block() -> None:
    with FlopCounterMode(display=False) as counter:
        sspcab_cuda.SSPCAB(16)(torch.rand(1, 16, 8, 8)).sum().backward()
    assert counter.get_total_flops() == 262_528


def test_every_operator_has_a_formula() -> None:
    names = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names()
             if name.startswith("sspcab::")}  # fmt: skip
    assert names
    for name in names:
        assert getattr(torch.ops.sspcab, name.split(".")[0]) in flop_registry
