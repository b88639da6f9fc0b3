"""Strides of the arguments, of the gradients that come in, and of what goes out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sspcab_cuda
from sspcab_cuda import functional, reference

from ..helpers.cases import (
    LAYOUTS,
    NAMES,
    Case,
    arguments,
    block,
    convolution,
    double,
    forward_backward,
    leaves,
    output_gradients,
)
from ..helpers.tolerances import assert_accurate, assert_equal

CASE = Case(3, 18, 7, 13, 2, 1, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout_of_grad", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(layout: str, layout_of_grad: str, dtype: torch.dtype, device: str) -> None:
    tensors = arguments(CASE, dtype, device)
    grad_out, grad_loss = output_gradients(CASE, dtype, device)
    tensors[0], grad_out = LAYOUTS[layout](tensors[0]), LAYOUTS[layout_of_grad](grad_out)
    grads = (grad_out, grad_loss)
    ours = forward_backward(functional, tensors, CASE.dilation, *grads)
    eager = forward_backward(reference, tensors, CASE.dilation, *grads)
    truth = forward_backward(reference, double(tensors), CASE.dilation, *double(grads))
    assert_accurate(dtype, [(ours, eager, truth)])


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_have_the_layout_of_x(layout: str, device: str) -> None:
    tensors = arguments(CASE, device=device)
    tensors[0] = LAYOUTS[layout](tensors[0])
    grads = output_gradients(CASE, torch.float32, device)
    ours = forward_backward(functional, tensors, CASE.dilation, *grads)
    images = {
        "out": ours["out"],
        "grad_x": ours["grad_x"],
        "inference": block(functional, tensors, CASE.dilation)[0],
        "masked_conv2d": convolution(functional, tensors, CASE.dilation),
        "squeeze_excite": functional.squeeze_excite(tensors[0], *tensors[9:]),
    }
    for name, image in images.items():
        if "channels_last" in layout:
            assert is_channels_last(image), name
        else:
            assert image.is_contiguous(), name


@pytest.mark.parametrize("shape", [(2, 1, 5, 6), (2, 5, 1, 1), (1, 1, 1, 1)])
def test_ambiguous_layouts_are_contiguous(shape: tuple[int, ...], device: str) -> None:
    case = Case(*shape)
    tensors = arguments(case, device=device)
    tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
    assert block(functional, tensors, 1)[0].is_contiguous()


@pytest.mark.parametrize("layout", ["sliced", "permuted"])
def test_strides_don_t_change_a_bit(layout: str, device: str) -> None:
    tensors = arguments(CASE, device=device)
    grad_out, grad_loss = output_gradients(CASE, torch.float32, device)
    expected = forward_backward(functional, tensors, CASE.dilation, grad_out, grad_loss)
    tensors[0], grad_out = LAYOUTS[layout](tensors[0]), LAYOUTS[layout](grad_out)
    ours = forward_backward(functional, tensors, CASE.dilation, grad_out, grad_loss)
    for name in expected:
        assert_equal(ours[name], expected[name])


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("kind", ["channels_last", "sliced", "transposed"])
def test_parameters_of_any_strides(name: str, kind: str, device: str) -> None:
    tensors = arguments(CASE, torch.float32, device)
    grads = output_gradients(CASE, torch.float32, device)
    expected = forward_backward(functional, tensors, CASE.dilation, *grads)
    index = NAMES.index(name)
    parameter = tensors[index]
    if kind == "sliced":
        bigger = parameter.new_full([2 * size + 1 for size in parameter.shape], torch.nan)
        tensors[index] = bigger[tuple(slice(1, None, 2) for _ in parameter.shape)].copy_(parameter)
    elif kind == "transposed":
        dims = list(reversed(range(parameter.dim())))
        tensors[index] = parameter.permute(dims).contiguous().permute(dims)
    elif parameter.dim() == 4:
        tensors[index] = parameter.contiguous(memory_format=torch.channels_last)
    ours = forward_backward(functional, tensors, CASE.dilation, *grads)
    for key in expected:
        assert_equal(ours[key], expected[key])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_sum_backward(layout: str, device: str) -> None:
    """.sum() hands on an expanded gradient: one number with strides of 0."""
    tensors = arguments(CASE, torch.float64, device)
    tensors[0] = LAYOUTS[layout](tensors[0])
    inputs, expected = leaves(tensors), leaves(tensors)
    block(functional, inputs, 1, return_loss=False)[0].sum().backward()
    block(reference, expected, 1, return_loss=False)[0].sum().backward()
    for ours, truth in zip(inputs, expected, strict=True):
        torch.testing.assert_close(ours.grad, truth.grad, rtol=0, atol=1e-11)
    part, truth_part = leaves(tensors), leaves(tensors)
    convolution(functional, part, 1).mean(dim=(2, 3)).sum().backward()
    convolution(reference, truth_part, 1).mean(dim=(2, 3)).sum().backward()
    functional.squeeze_excite(part[0], *part[9:]).sum().backward()
    reference.squeeze_excite(truth_part[0], *truth_part[9:]).sum().backward()
    for ours, truth in zip(part, truth_part, strict=True):
        torch.testing.assert_close(ours.grad, truth.grad, rtol=0, atol=1e-11)


def test_a_whole_model_in_channels_last(device: str) -> None:
    """Weights in channels_last, too, as .to(memory_format=...) makes them."""
    plain = sspcab_cuda.SSPCAB(16, kernel_dim=2).to(device)
    model = sspcab_cuda.SSPCAB(16, kernel_dim=2).to(device).to(memory_format=torch.channels_last)
    model.load_state_dict(plain.state_dict())
    x = torch.randn(2, 16, 9, 10, device=device)
    out = model(x.to(memory_format=torch.channels_last))
    assert is_channels_last(out)
    torch.testing.assert_close(out, plain(x))
    out.square().sum().backward()
    plain(x).square().sum().backward()
    for ours, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-4, atol=1e-5)
