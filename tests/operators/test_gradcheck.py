"""First and second derivatives against finite differences, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sspcab_cuda import functional

from ..helpers.cases import Case, arguments, block, convolution, leaves

SLOW = [Case(2, 3, 4, 3, 1, 0, 2), Case(1, 2, 5, 4, 2, 0, 1)]
FAST = [Case(2, 5, 6, 7, 1, 1, 2), Case(2, 4, 5, 6, 3, 1, 2), Case(1, 17, 5, 14, 2, 2, 4)]
THROUGH = {"out": slice(0, 1), "loss": slice(1, 2), "both": slice(0, 2)}


# Thousands of tiny calls: waking another thread for each would take most of the time.
pytestmark = pytest.mark.usefixtures("one_thread")


def inputs_of(case: Case, device: str) -> list[Tensor]:
    return leaves(arguments(case, torch.float64, device, seed=3))


@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("case", SLOW + FAST, ids=str)
def test_block(case: Case, device: str, through: str) -> None:
    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return block(functional, tensors, case.dilation)[THROUGH[through]]

    assert torch.autograd.gradcheck(
        function, inputs_of(case, device), fast_mode=case in FAST, nondet_tol=0.0
    )


@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("case", SLOW[:1] + FAST, ids=str)
def test_block_twice(case: Case, device: str, through: str) -> None:
    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return block(functional, tensors, case.dilation)[THROUGH[through]]

    assert torch.autograd.gradgradcheck(function, inputs_of(case, device), fast_mode=True)


@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("case", SLOW + FAST, ids=str)
def test_masked_conv2d(case: Case, device: str, activation: str) -> None:
    def function(*tensors: Tensor) -> Tensor:
        return convolution(functional, tensors, case.dilation, activation)

    inputs = inputs_of(case, device)[:9]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=case in FAST)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("case", SLOW + FAST, ids=str)
def test_squeeze_excite(case: Case, device: str) -> None:
    tensors = inputs_of(case, device)
    inputs = [tensors[0], *tensors[9:]]
    assert torch.autograd.gradcheck(functional.squeeze_excite, inputs, fast_mode=case in FAST)
    assert torch.autograd.gradgradcheck(functional.squeeze_excite, inputs, fast_mode=True)


def test_reconstruction_loss(device: str) -> None:
    shape = (2, 3, 4, 5)
    pair = [torch.randn(shape, dtype=torch.float64, device=device) for _ in range(2)]
    inputs = leaves(pair)
    assert torch.autograd.gradcheck(functional.reconstruction_loss, inputs)
    assert torch.autograd.gradgradcheck(functional.reconstruction_loss, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_second_derivative_beside_float32_parameters(dtype: torch.dtype, device: str) -> None:
    """create_graph=True also where x and the parameters differ in dtype."""
    case = Case(2, 5, 6, 7, 1, 1, 2)
    tensors = leaves(arguments(case, dtype, device, parameters=torch.float32))
    out, loss = block(functional, tensors, case.dilation)
    first = torch.autograd.grad([out.float().sum() + loss], tensors, create_graph=True)
    assert [g.dtype for g in first] == [t.dtype for t in tensors]
    second = torch.autograd.grad([g.float().square().sum() for g in first], tensors[1])
    assert second[0].isfinite().all() and second[0].any()
