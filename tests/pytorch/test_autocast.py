"""Autocast: half-precision images beside float32 parameters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import sspcab_cuda
from sspcab_cuda import functional, reference

from ..helpers.cases import (
    HALVES,
    Case,
    arguments,
    block,
    convolution,
    double,
    leaves,
    output_gradients,
)
from ..helpers.tolerances import assert_accurate, assert_equal

CASE = Case(2, 18, 7, 9, 2, 1, 3)
Results = dict[str, Tensor]


def train(library: Any, tensors: list[Tensor], grad_out: Tensor, grad_loss: Tensor) -> Results:
    inputs = leaves(tensors)
    out, loss = block(library, inputs, CASE.dilation)
    gradients = torch.autograd.grad([out, loss], inputs, [grad_out.to(out.dtype), grad_loss])
    named = {str(i): gradient for i, gradient in enumerate(gradients)}
    return {"out": out.detach(), "loss": loss.detach(), **named}


@pytest.mark.parametrize("image_dtype", [torch.float32, "half"], ids=str)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_block(dtype: torch.dtype, image_dtype: torch.dtype | str, device: str) -> None:
    tensors = arguments(CASE, device=device)
    tensors[0] = tensors[0].to(dtype)
    grads = output_gradients(CASE, dtype, device)
    truth = train(reference, double(tensors), *double(grads))
    tensors[0] = tensors[0].to(dtype if image_dtype == "half" else image_dtype)
    with torch.autocast(device, dtype=dtype):
        ours = train(functional, tensors, *grads)
        eager = train(reference, tensors, *grads)
    assert ours["out"].dtype == dtype and ours["loss"].dtype == torch.float32
    assert ours["0"].dtype == tensors[0].dtype
    assert all(ours[str(i)].dtype == torch.float32 for i in range(1, 13))
    assert_accurate(dtype, [(ours, eager, truth)])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_inference_and_parts(dtype: torch.dtype, device: str) -> None:
    tensors = arguments(CASE, device=device)
    x = tensors[0]
    half = [x.to(dtype), *tensors[1:]]
    with torch.autocast(device, dtype=dtype):
        out, loss = block(functional, tensors, CASE.dilation)
        y = convolution(functional, tensors, CASE.dilation)
        scaled = functional.squeeze_excite(x, *tensors[9:])
        direct = functional.reconstruction_loss(out, x)
    assert_equal(out, block(functional, half, CASE.dilation)[0])
    assert_equal(y, convolution(functional, half, CASE.dilation))
    assert_equal(scaled, functional.squeeze_excite(half[0], *tensors[9:]))
    assert loss.dtype == direct.dtype == torch.float32
    assert_equal(direct, functional.reconstruction_loss(out.float(), x))


@pytest.mark.parametrize("region", HALVES, ids=str)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_model_in_a_region(dtype: torch.dtype, region: torch.dtype, device: str) -> None:
    """The region's dtype wins, over that of image and parameters alike."""
    model = sspcab_cuda.SSPCAB(16).to(device, dtype)
    x = torch.randn(2, 16, 6, 6, device=device, dtype=dtype)
    with torch.autocast(device, dtype=region):
        out, loss = model(x, return_loss=True)
    assert out.dtype == region and loss.dtype == torch.float32
    (out.sum().float() + loss).backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in model.parameters())


@pytest.mark.parametrize("image_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("region", HALVES, ids=str)
def test_parameters_of_two_dtypes(
    region: torch.dtype, image_dtype: torch.dtype, device: str
) -> None:
    """As in a half-precision model whose gate somebody keeps in float32; all follow the image."""
    model = sspcab_cuda.SSPCAB(16).to(device, torch.bfloat16)
    model.se.float()
    expected = copy.deepcopy(model).to(region)
    x = torch.randn(2, 16, 6, 6, device=device, dtype=image_dtype)
    with torch.autocast(device, dtype=region):
        out, loss = model(x, return_loss=True)
    (out.sum().float() + loss).backward()
    truth = expected(x.to(region), return_loss=True)
    (truth[0].sum().float() + truth[1]).backward()
    assert_equal(out.detach(), truth[0].detach())
    assert_equal(loss.detach(), truth[1].detach())
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and p.grad.dtype == p.dtype
        assert_equal(p.grad, q.grad.to(p.dtype))
    with torch.autocast(device, dtype=region), torch.no_grad():
        assert_equal(model(x), truth[0].detach())
        y = functional.masked_conv2d(
            x, [c.weight for c in model.children() if isinstance(c, torch.nn.Conv2d)],
            [torch.zeros(16, device=device)] * 4,
        )  # fmt: skip
        assert y.dtype == region


def test_float64_stays(device: str) -> None:
    tensors = arguments(CASE, torch.float64, device)
    expected = block(functional, tensors, CASE.dilation)
    with torch.autocast(device, dtype=torch.bfloat16):
        results = block(functional, tensors, CASE.dilation)
        loss = functional.reconstruction_loss(results[0], tensors[0])
    for result, truth in zip((*results, loss), (*expected, expected[1]), strict=True):
        torch.testing.assert_close(result, truth, rtol=1e-14, atol=1e-14)


def test_a_region_switched_off(device: str) -> None:
    tensors = arguments(CASE, device=device)
    expected = block(functional, tensors, CASE.dilation)
    with torch.autocast(device, dtype=torch.bfloat16), torch.autocast(device, enabled=False):
        for result, truth in zip(block(functional, tensors, CASE.dilation), expected, strict=True):
            assert_equal(result, truth)


def test_scaled_gradients(device: str) -> None:
    """A loss scaled by a power of two, as GradScaler does, scales the gradients and no more."""
    model = sspcab_cuda.SSPCAB(16).to(device)
    x = torch.randn(2, 16, 8, 8, device=device)
    gradients = []
    for scale in (1.0, 2.0**10):
        model.zero_grad()
        with torch.autocast(device, dtype=torch.float16):
            out, loss = model(x, return_loss=True)
        ((out.float().square().mean() + 0.1 * loss) * scale).backward()
        gradients.append([p.grad / scale for p in model.parameters() if p.grad is not None])
    for unscaled, scaled in zip(*gradients, strict=True):
        torch.testing.assert_close(scaled, unscaled, rtol=2e-2, atol=1e-5)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_training_with_a_gradient_scaler(dtype: torch.dtype) -> None:
    """As the reference does, with a scale at first that float16 can't hold: steps are skipped."""
    paths = []
    for module in (sspcab_cuda.SSPCAB, reference.SSPCAB):
        torch.manual_seed(0)
        model: Any = module(16, reduction_ratio=2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**32)
        x = torch.rand(2, 16, 8, 8)
        losses, scales = [], []
        for _ in range(30):
            with torch.autocast("cpu", dtype=dtype):
                out, loss = model(x, return_loss=True)
                loss = loss + 0.1 * out.square().mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
            scales.append(scaler.get_scale())
        paths.append((losses, scales))
    (ours, our_scales), (expected, expected_scales) = paths
    assert ours[-1] < 0.9 * ours[0]
    assert ours == pytest.approx(expected, rel=2e-2)
    assert (our_scales[-1] < 2.0**32) == (expected_scales[-1] < 2.0**32) == (dtype == torch.float16)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_under_compile(dtype: torch.dtype, training: bool, device: str) -> None:
    """A region within the graph, compiled once for all sizes of one memory format."""
    torch.compiler.reset()
    model = sspcab_cuda.SSPCAB(16).to(device).train(training)

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device, dtype=dtype):
            out, loss = model(x, return_loss=True)
        return out, loss

    def results(function: Any, x: Tensor) -> list[Tensor]:
        model.zero_grad()
        out, loss = function(x)
        assert out.dtype == dtype and loss.dtype == torch.float32
        if training:
            (out.float().sum() + loss).backward()
        return [out.detach(), loss.detach(), *(p.grad for p in model.parameters() if training)]

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    channels_last = torch.channels_last
    with torch._dynamo.config.patch(error_on_recompile=True), torch.set_grad_enabled(training):
        for size in ((2, 16, 8, 9), (3, 16, 12, 7)):
            x = torch.randn(size, device=device).contiguous(memory_format=channels_last)
            for ours, expected in zip(results(compiled, x), results(step, x), strict=True):
                assert_equal(ours, expected)
                assert ours.stride() == expected.stride()
