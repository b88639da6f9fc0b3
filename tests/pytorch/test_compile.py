"""torch.compile: one graph, no recompilation on other sizes, equal numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import sspcab_cuda
from sspcab_cuda import functional

from ..helpers.tolerances import assert_equal

SIZES = [(2, 16, 8, 9), (3, 16, 12, 7), (5, 16, 6, 20)]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch.compiler.reset()


def compiled(function: Callable[..., Any], backend: str = "aot_eager") -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, dynamic=True, backend=backend)


def train(model: torch.nn.Module, function: Callable[..., Any], x: Tensor) -> list[Tensor]:
    model.zero_grad()
    x = x.detach().requires_grad_()
    out, loss = function(x, return_loss=True)
    (out.square().mean() + 0.1 * loss).backward()
    gradients = [t.grad for t in (x, *model.parameters())]
    return [out.detach(), loss.detach(), *(g for g in gradients if g is not None)]


@pytest.mark.parametrize("layout", FORMATS)
def test_inference(layout: str, device: str) -> None:
    model = sspcab_cuda.SSPCAB(16, 2).to(device).eval()
    function = compiled(model)
    with torch.no_grad():
        for size in SIZES:
            x = torch.randn(size, device=device).contiguous(memory_format=FORMATS[layout])
            out, loss = function(x, return_loss=True)
            expected, expected_loss = model(x, return_loss=True)
            assert_equal(out, expected)
            assert_equal(loss, expected_loss)
            assert out.stride() == expected.stride()


@pytest.mark.parametrize("layout", FORMATS)
def test_training(layout: str, device: str) -> None:
    model = sspcab_cuda.SSPCAB(16).to(device)
    function = compiled(model)
    for size in SIZES:
        x = torch.randn(size, device=device).contiguous(memory_format=FORMATS[layout])
        ours, expected = train(model, function, x), train(model, model, x)
        assert len(ours) == 15
        for result, truth in zip(ours, expected, strict=True):
            assert_equal(result, truth)
            assert result.stride() == truth.stride()


@functools.cache
def inductor_runs(device: str) -> bool:
    """Whether its own kernels, with nothing of ours in them, can be compiled and run."""
    try:
        torch.compile(lambda x: x + 1, backend="inductor")(torch.zeros(4, device=device))
    except Exception:
        return False
    return True


def test_inductor(device: str) -> None:
    """With operations before and after that the compiler may fuse and lay out as it likes.

    Compiled no more often than those alone: some versions compile a convolution for every size.
    """
    if device != "cpu" and not inductor_runs(device):
        pytest.skip("inductor can't run its own kernels on this device")
    convolution = torch.nn.Conv2d(3, 16, 3, padding=1)
    block = sspcab_cuda.SSPCAB(16)
    model = torch.nn.ModuleList([convolution, block]).to(device)

    def surrounded(
        inner: Callable[..., tuple[Tensor, Tensor]],
    ) -> Callable[..., tuple[Tensor, Tensor]]:
        def function(x: Tensor, return_loss: bool = True) -> tuple[Tensor, Tensor]:
            out, loss = inner(convolution(x).relu() * 2, return_loss=return_loss)
            return out + 1, loss

        return function

    compilations = []
    for inner in (block, lambda x, return_loss: (x, x.mean())):
        function = surrounded(inner)
        backend = CompileCounterWithBackend("inductor")
        compiled_function = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
        with torch._dynamo.config.patch(error_on_recompile=False):
            for size in ((2, 3, 8, 9), (3, 3, 10, 7)):
                x = torch.randn(size, device=device)
                ours, expected = train(model, compiled_function, x), train(model, function, x)
                for result, truth in zip(ours, expected, strict=True):
                    torch.testing.assert_close(result, truth, rtol=1e-4, atol=1e-5)
        compilations.append(backend.frame_count)
    assert compilations[0] <= compilations[1]


def test_parts(device: str) -> None:
    convolution = sspcab_cuda.MaskedConv2d(16).to(device)
    excitation = sspcab_cuda.SELayer(16).to(device)

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        out = excitation(convolution(x))
        return out, functional.reconstruction_loss(out, x)

    run = compiled(function)
    for size in SIZES:
        x = torch.randn(size, device=device)
        for ours, expected in zip(run(x), function(x), strict=True):
            assert_equal(ours.detach(), expected.detach())


def test_keys_of_a_compiled_model() -> None:
    """A compiled model's checkpoint differs by the prefix alone; compile() in place by nothing."""
    model = sspcab_cuda.SSPCAB(16)
    names = list(model.state_dict())
    wrapped = torch.compile(model, backend="aot_eager")
    assert isinstance(wrapped, torch.nn.Module)
    state = {n.removeprefix("_orig_mod."): t for n, t in wrapped.state_dict().items()}
    assert list(state) == names
    other = sspcab_cuda.SSPCAB(16)
    other.load_state_dict(state)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    model.compile(backend="aot_eager", fullgraph=True)
    assert list(model.state_dict()) == names
    x = torch.randn(SIZES[0])
    assert_equal(model(x).detach(), model.forward(x).detach())
