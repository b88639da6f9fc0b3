"""The functions against the formula itself, exact sums, known special cases and empty images."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sspcab_cuda import functional, ops, reference

from ..helpers.cases import (
    CASES,
    DTYPES,
    EMPTY,
    HALVES,
    SMALL,
    Case,
    arguments,
    block,
    convolution,
    double,
    integers,
)
from ..helpers.tolerances import assert_equal


def formula(tensors: list[Tensor], dilation: int) -> Tensor:
    """The pre-activation, tap by tap: corners top-left, bottom-left, top-right, bottom-right."""
    x, weights, biases = tensors[0], tensors[1:5], tensors[5:9]
    height, width = x.shape[2:]
    k = weights[0].shape[-1]
    a = torch.zeros_like(x) + sum(biases)[:, None, None]  # type: ignore[index]
    for corner, i, j in itertools.product(range(4), range(k), range(k)):
        row = i + dilation + 1 if corner in (1, 3) else i - (k + dilation)
        column = j + dilation + 1 if corner in (2, 3) else j - (k + dilation)
        for h, w in itertools.product(range(height), range(width)):
            if 0 <= h + row < height and 0 <= w + column < width:
                pixel = x[:, :, h + row, w + column]
                a[:, :, h, w] += pixel @ weights[corner][:, :, i, j].T
    return a


@pytest.mark.parametrize(
    "case", [Case(2, 3, 7, 6), Case(1, 2, 9, 8, 2, 1), Case(1, 2, 8, 9, 3, 0)], ids=str
)
def test_formula(case: Case, device: str) -> None:
    tensors = arguments(case, torch.float64, device)
    expected = formula(tensors, case.dilation)
    for library in (functional, reference):
        for activation, result in (("none", expected), ("relu", expected.relu())):
            y = convolution(library, tensors, case.dilation, activation)
            torch.testing.assert_close(y, result, rtol=0, atol=1e-13)


@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_sums(case: Case, dtype: torch.dtype, device: str, activation: str) -> None:
    tensors = integers(case, dtype, device)
    y = convolution(functional, tensors, case.dilation, activation)
    truth = convolution(reference, double(tensors), case.dilation, activation)
    assert_equal(y, truth.to(dtype))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_results_are_rounded_to_the_nearest_even(dtype: torch.dtype, device: str) -> None:
    """Weights of 0 leave the bias, here in steps of a quarter of the last place, ties included."""
    steps = torch.arange(64, dtype=torch.float32, device=device) - 32
    bias = steps.sign() + steps * torch.finfo(dtype).eps / 4
    case = Case(1, 64, 1, 3)
    x, *rest = arguments(case, dtype, device, parameters=torch.float32)
    rest[:8] = [torch.zeros_like(tensor) for tensor in rest[:8]]
    rest[4] = bias
    y = convolution(functional, [x, *rest], case.dilation, "none")
    assert_equal(y, bias.to(dtype)[:, None, None].expand_as(x))


@pytest.mark.parametrize("dilation", [0, 1, 3])
def test_one_pixel_sub_kernels_are_one_dilated_convolution(dilation: int, device: str) -> None:
    x, *rest = arguments(Case(2, 9, 8, 11, 1, dilation), torch.float64, device)
    weights, biases = rest[:4], rest[4:8]
    upper, lower = torch.cat(weights[::2], dim=3), torch.cat(weights[1::2], dim=3)
    expected = F.conv2d(
        x,
        torch.cat([upper, lower], dim=2),
        torch.stack(biases).sum(0),
        padding=dilation + 1,
        dilation=2 * dilation + 2,
    )
    y = functional.masked_conv2d(x, weights, biases, dilation, "none")
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_parts_in_float64(case: Case, device: str) -> None:
    tensors = arguments(case, torch.float64, device)
    x, excitation = tensors[0], tensors[9:]
    out = functional.squeeze_excite(x, *excitation)
    torch.testing.assert_close(out, reference.squeeze_excite(x, *excitation), rtol=0, atol=1e-12)
    loss = functional.reconstruction_loss(out, x)
    torch.testing.assert_close(loss, F.mse_loss(out, x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [SMALL, Case(3, 33, 9, 14, 2, 1)], ids=str)
def test_block_is_its_parts(case: Case, dtype: torch.dtype, device: str) -> None:
    tensors = arguments(case, dtype, device)
    out, loss = block(functional, tensors, case.dilation)
    y = convolution(functional, tensors, case.dilation)
    tolerance = 4 * torch.finfo(dtype).eps
    parts = functional.squeeze_excite(y, *tensors[9:])
    torch.testing.assert_close(out, parts, rtol=tolerance, atol=tolerance)
    expected = functional.reconstruction_loss(parts, tensors[0])
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_inference_equals_training(case: Case, dtype: torch.dtype, device: str) -> None:
    tensors = arguments(case, dtype, device)
    inference = block(functional, tensors, case.dilation)
    tensors[0].requires_grad_()
    training = block(functional, tensors, case.dilation)
    assert training[0].grad_fn is not None
    for ours, expected in zip(inference, training, strict=True):
        assert_equal(ours, expected.detach())
    with torch.no_grad():
        assert_equal(block(functional, tensors, case.dilation, return_loss=False)[0], inference[0])
    without_loss = block(functional, tensors, case.dilation, return_loss=False)[0]
    assert_equal(without_loss.detach(), inference[0])


def test_arguments_stay_as_they_are(device: str) -> None:
    tensors = arguments(SMALL, device=device)
    copies = [tensor.clone() for tensor in tensors]
    out, _ = block(functional, tensors, SMALL.dilation)
    out.zero_()
    for tensor, copy in zip(tensors, copies, strict=True):
        assert_equal(tensor, copy)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_empty(case: Case, dtype: torch.dtype, device: str) -> None:
    tensors = arguments(case, dtype, device)
    out, loss = block(functional, tensors, case.dilation)
    assert out.shape == case.shape and out.dtype == dtype
    assert loss.isnan() and loss.dtype == torch.promote_types(dtype, torch.float32)
    assert convolution(functional, tensors, case.dilation).shape == case.shape
    assert functional.squeeze_excite(tensors[0], *tensors[9:]).shape == case.shape
    assert functional.reconstruction_loss(out, tensors[0]).isnan()


def test_a_loss_that_nobody_asked_for_is_nan(device: str) -> None:
    tensors = arguments(SMALL, device=device)
    for operator in (ops.sspcab, ops.sspcab_inference):
        assert operator(*tensors, 1, True, False)[1].isnan()
