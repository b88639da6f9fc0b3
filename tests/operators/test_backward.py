"""Gradients: exact sums, which of them are computed, empty images, the parts on their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sspcab_cuda import functional, ops, reference

from ..helpers.cases import (
    CASES,
    DTYPES,
    EMPTY,
    NAMES,
    SMALL,
    Case,
    arguments,
    block,
    convolution,
    double,
    forward_backward,
    integers,
    leaves,
    output_gradients,
)
from ..helpers.tolerances import assert_equal


@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_sums(case: Case, dtype: torch.dtype, device: str, activation: str) -> None:
    tensors = integers(case, dtype, device)
    grad_y = integers(case, dtype, device, seed=1)[0]
    inputs, truth_inputs = leaves(tensors), leaves(double(tensors))
    convolution(functional, inputs, case.dilation, activation).backward(grad_y)
    convolution(reference, truth_inputs, case.dilation, activation).backward(grad_y.double())
    for tensor, truth in zip(inputs, truth_inputs, strict=True):
        assert tensor.grad is not None and truth.grad is not None
        assert_equal(tensor.grad, truth.grad.to(dtype))


@pytest.mark.parametrize("through", ["out", "loss"])
@pytest.mark.parametrize("case", [SMALL, Case(3, 9, 7, 5, 2, 0, 2)], ids=str)
def test_one_output_alone(case: Case, device: str, through: str) -> None:
    tensors = arguments(case, torch.float64, device)
    grad_out, grad_loss = output_gradients(case, torch.float64, device)
    grads = (grad_out, None) if through == "out" else (None, grad_loss)
    ours = forward_backward(functional, tensors, case.dilation, *grads)
    truth = forward_backward(reference, tensors, case.dilation, *grads)
    torch.testing.assert_close(ours, truth, rtol=0, atol=1e-11)


def gradients_of_part(function: Callable[..., Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
    inputs = leaves(tensors)
    out = function(*inputs)
    weights = torch.arange(out.numel(), dtype=out.dtype, device=out.device).cos()
    return torch.autograd.grad(out, inputs, weights.reshape(out.shape))


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_parts_in_float64(case: Case, device: str) -> None:
    x, *rest = arguments(case, torch.float64, device)
    for part, others in (("squeeze_excite", rest[8:]), ("reconstruction_loss", [x.flip(0) + 1])):
        ours = gradients_of_part(getattr(functional, part), x, *others)
        truth = gradients_of_part(getattr(reference, part), x, *others)
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-12)


def recorded(monkeypatch: pytest.MonkeyPatch, name: str) -> list[list[Any]]:
    """The arguments of every call of an operator from here on."""
    calls: list[list[Any]] = []
    operator = getattr(ops, name)

    def record(*args: Any) -> Any:
        calls.append(list(args))
        return operator(*args)

    monkeypatch.setattr(ops, name, record)
    return calls


@pytest.mark.parametrize("name", NAMES)
def test_only_one_gradient(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient that nobody wants isn't computed, and the others don't depend on it."""
    calls = recorded(monkeypatch, "sspcab_backward")
    tensors = arguments(SMALL, device=device)
    grads = output_gradients(SMALL, torch.float32, device)
    expected = forward_backward(functional, tensors, SMALL.dilation, *grads)
    wanted = tensors[NAMES.index(name)].requires_grad_()
    torch.autograd.backward(list(block(functional, tensors, SMALL.dilation)), list(grads))
    assert wanted.grad is not None
    assert_equal(wanted.grad, expected[f"grad_{name}"])
    assert all(t.grad is None for t in tensors if t is not wanted)
    order = [*NAMES[:5], "bias", *NAMES[9:]]
    kind = "bias" if name.startswith("bias") else name
    assert calls[-1][-1] == [entry == kind for entry in order]
    with torch.no_grad():
        results = ops.sspcab_backward(*calls[-1])
    assert [r.numel() > 0 for r in results] == calls[-1][-1]


@pytest.mark.parametrize("index", range(5))
def test_only_one_gradient_of_the_parts(index: int, device: str) -> None:
    tensors = arguments(SMALL, device=device)
    excitation = [tensors[0], *tensors[9:]]
    expected = gradients_of_part(functional.squeeze_excite, *excitation)[index]

    def alone(wanted: Tensor) -> Tensor:
        others = [*excitation]
        others[index] = wanted
        return functional.squeeze_excite(*others)

    assert_equal(gradients_of_part(alone, excitation[index])[0], expected)
    names = [0, 1, 2, 3, 4, 5][index]

    def convolution_alone(wanted: Tensor) -> Tensor:
        others = [*tensors]
        others[names] = wanted
        return convolution(functional, others, 1)

    every = gradients_of_part(lambda *t: convolution(functional, t, 1), *tensors[:9])
    assert_equal(gradients_of_part(convolution_alone, tensors[names])[0], every[names])


def test_the_loss_has_a_gradient_for_each_image(device: str) -> None:
    out, x = torch.randn(2, *SMALL.shape, device=device)
    for index in (0, 1):
        pair = [out, x]
        pair[index] = pair[index].clone().requires_grad_()
        (functional.reconstruction_loss(*pair) * 3).backward()
        expected = 3 * 2 / x.numel() * (pair[index] - pair[1 - index]).detach()
        assert pair[1 - index].grad is None and pair[index].grad is not None
        torch.testing.assert_close(pair[index].grad, expected)


def test_unused_outputs_have_no_gradient(device: str) -> None:
    tensors = leaves(arguments(SMALL, device=device))
    out, mean, _, _ = ops.squeeze_excite(tensors[0], *tensors[9:])
    assert out.requires_grad and not mean.requires_grad
    y, *vectors = ops.sspcab(*tensors, 1, True, True)[2:]
    assert not y.requires_grad and not any(v.requires_grad for v in vectors)


@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_empty(case: Case, device: str) -> None:
    tensors = arguments(case, torch.float64, device)
    grad_out, grad_loss = (
        torch.ones(case.shape, dtype=torch.float64, device=device),
        torch.tensor(1.0, dtype=torch.float64, device=device),
    )
    ours = forward_backward(functional, tensors, case.dilation, grad_out, None)
    for name, gradient in ours.items():
        assert name == "loss" or not gradient.any(), name  # sums of nothing
    ours = forward_backward(functional, tensors, case.dilation, grad_out, grad_loss)
    assert ours["grad_x"].shape == case.shape
    inputs = leaves(tensors)
    convolution(functional, inputs, case.dilation).sum().backward()
    functional.squeeze_excite(inputs[0], *inputs[9:]).sum().backward()
    functional.reconstruction_loss(inputs[0], tensors[0]).backward()
    for tensor, like in zip(inputs, tensors, strict=True):
        assert tensor.grad is not None and tensor.grad.shape == like.shape
        assert not tensor.grad.any()
