"""NaN and infinity arrive where they arrive in the reference, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sspcab_cuda import functional, reference

from ..helpers.cases import (
    HALVES,
    NAMES,
    Case,
    arguments,
    block,
    convolution,
    forward_backward,
    leaves,
    output_gradients,
)

CASE = Case(3, 18, 7, 9, 2, 1, 3)
SUB_KERNELS = NAMES[1:5]
BAD = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def kinds(tensor: Tensor) -> Tensor:
    """0 for a finite value, 1 for NaN, 2 and 3 for the infinities."""
    return tensor.isnan() * 1 + tensor.isposinf() * 2 + tensor.isneginf() * 3


def assert_same_kinds(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name in expected:
        assert torch.equal(kinds(ours[name]), kinds(expected[name])), name


def convolution_and_gradients(
    library: object, tensors: list[Tensor], grad_y: Tensor
) -> dict[str, Tensor]:
    inputs = leaves(tensors[:9])
    y = convolution(library, inputs, CASE.dilation)  # type: ignore[arg-type]
    gradients = torch.autograd.grad(y, inputs, grad_y)
    return {"y": y.detach(), **dict(zip(NAMES, gradients, strict=False))}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", ["x", *NAMES[5:], "grad_out", "grad_loss"])
def test_block(where: str, bad: str, layout: str, device: str) -> None:
    tensors = arguments(CASE, torch.float64, device)
    grad_out, grad_loss = output_gradients(CASE, torch.float64, device)
    tensors[0] = tensors[0].contiguous(memory_format=LAYOUTS[layout])
    named = dict(zip(NAMES, tensors, strict=True)) | {"grad_out": grad_out, "grad_loss": grad_loss}
    target = named[where]
    target[(-1,) * target.dim()] = BAD[bad]
    ours = forward_backward(functional, tensors, CASE.dilation, grad_out, grad_loss)
    expected = forward_backward(reference, tensors, CASE.dilation, grad_out, grad_loss)
    # relu and sigmoid may make a finite number of an infinite bias, but never of NaN
    assert bad != "nan" or any(kinds(t).any() for t in expected.values())
    assert_same_kinds(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", ["x", "bias3", "grad_y"])
def test_masked_conv2d(where: str, bad: str, dtype: torch.dtype, device: str) -> None:
    tensors = arguments(CASE, dtype, device)
    grad_y, _ = output_gradients(CASE, dtype, device)
    target = grad_y if where == "grad_y" else tensors[NAMES.index(where)]
    target[(0,) * target.dim()] = BAD[bad]
    ours = convolution_and_gradients(functional, tensors, grad_y)
    # In float64: PyTorch's float32 convolution loses NaN on aarch64.
    expected = convolution_and_gradients(reference, [t.double() for t in tensors], grad_y.double())
    assert_same_kinds(ours, expected)
    assert (kinds(expected["y"]) == 0).any()


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", SUB_KERNELS)
def test_sub_kernels(where: str, bad: str, device: str) -> None:
    """Where the tap lies in the image. Outside, 0 times infinity is nothing or NaN, as comes."""
    tensors = arguments(CASE, device=device)
    index = NAMES.index(where)
    tensors[index][2, 3, 0, 0] = BAD[bad]
    reach = CASE.kernel_dim + CASE.dilation
    inside = (slice(None), slice(None), slice(reach, -reach), slice(reach, -reach))
    ours = convolution(functional, tensors, CASE.dilation)[inside]
    expected = convolution(reference, tensors, CASE.dilation)[inside]
    assert kinds(expected)[:, 2].any() and not kinds(expected)[:, :2].any()
    assert torch.equal(kinds(ours), kinds(expected))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sample_keeps_its_nan_to_itself(layout: str, device: str) -> None:
    tensors = arguments(CASE, device=device)
    tensors[0] = tensors[0].contiguous(memory_format=LAYOUTS[layout])
    (out,) = block(functional, tensors, 1, return_loss=False)
    tensors[0][1, 3, 2, 2] = torch.nan
    (with_nan,) = block(functional, tensors, 1, return_loss=False)
    assert with_nan[1].isnan().all()
    assert torch.equal(with_nan[::2], out[::2])


def test_relu_keeps_nan_and_its_gradient(device: str) -> None:
    """max(a, 0) would make 0 of NaN, and y > 0 would stop its gradient."""
    tensors = arguments(Case(1, 1, 5, 5, 1, 1), device=device)
    tensors[0][..., 0, 0] = torch.nan
    results = convolution_and_gradients(functional, tensors, torch.ones_like(tensors[0]))
    assert results["y"][..., 2, 2].isnan() and not results["y"][..., 0, 0].isnan()
    expected = convolution_and_gradients(reference, tensors, torch.ones_like(tensors[0]))
    assert expected["x"][..., 0, 0] != 0
    torch.testing.assert_close(results["x"], expected["x"], equal_nan=True)


def test_loss(device: str) -> None:
    out, x = torch.randn(2, 2, 3, 4, 5, device=device)
    for bad in BAD.values():
        x[0, 0, 0, 0] = bad
        pair = leaves([out, x])
        loss = functional.reconstruction_loss(*pair)
        assert torch.equal(kinds(loss), kinds(reference.reconstruction_loss(out, x)))
        ours = torch.autograd.grad(loss, pair)
        expected = torch.autograd.grad(reference.reconstruction_loss(*pair), pair)
        assert all(torch.equal(kinds(a), kinds(b)) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("bits", [0x7FFFFFFF, -1])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_nan_of_all_ones(dtype: torch.dtype, bits: int, device: str) -> None:
    """Rounded up as if it were a number, it would become a zero."""
    tensors = arguments(CASE, dtype, device, parameters=torch.float32)
    tensors[5].view(torch.int32).fill_(bits)
    assert convolution(functional, tensors, CASE.dilation, "none").isnan().all()
