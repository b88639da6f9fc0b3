"""Collected losses under PyTorch's checkpoint, torch.func and torch.compile.

Under DDP and FSDP: test_distributed.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from sspcab_cuda import SSPCAB, collect_reconstruction_losses, reference, total_loss
from sspcab_cuda.reference import Variant

from ..helpers.hosts import (
    RUNS,
    VARIANTS,
    Host,
    assert_as_by_hand,
    by_context,
    images,
    with_gradients,
)
from ..helpers.messages import said
from ..helpers.tolerances import assert_equal, relative_error


@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpoint(variant: Variant, early_stop: bool, device: str) -> None:
    """The region runs again in the backward pass, finds the tensors it saved, and adds nothing."""
    host, x = Host(variant).to(device), images(device)

    def run(x: Tensor) -> Tensor:
        out: Tensor = checkpoint(host, x, use_reentrant=False)
        return out

    with set_checkpoint_early_stop(early_stop):
        assert_as_by_hand(host, by_context(host, run, x), x)
        with collect_reconstruction_losses() as collected:
            total_loss(run(x).square().mean(), collected).backward()
            assert len(collected) == RUNS


def test_a_context_inside_a_checkpoint() -> None:
    """A region that collects for itself does so again when it runs again."""
    host, x = Host(), images()

    def region(x: Tensor) -> Tensor:
        with collect_reconstruction_losses() as collected:
            out = host(x)
        return total_loss(out.square().mean(), collected).square()  # saved after the total

    region(x).backward()
    expected = [p.grad for p in host.parameters()]
    host.zero_grad()
    checkpoint(region, x, use_reentrant=False).backward()
    for parameter, gradient in zip(host.parameters(), expected, strict=True):
        assert gradient is not None and parameter.grad is not None
        assert_equal(parameter.grad, gradient)


def test_reentrant_checkpoint() -> None:
    """Its region records no graph: refused in training, taken in evaluation."""
    host, x = Host(), images().requires_grad_()
    text = "a collected loss must have a graph; got a block inside the forward of an autograd.Func"
    with collect_reconstruction_losses() as collected:
        with pytest.raises(RuntimeError, match=said(text)) as caught:
            checkpoint(host, x, use_reentrant=True)
        assert len(collected) == 0
    assert "use_reentrant=False" in str(caught.value)
    with torch.no_grad(), collect_reconstruction_losses() as collected:
        checkpoint(host, x, use_reentrant=True)
    assert len(collected) == RUNS


def test_function_transforms() -> None:
    block, truth = SSPCAB(16).double(), reference.SSPCAB(16).double()
    truth.load_state_dict(block.state_dict())
    x = torch.randn(2, 16, 5, 6, dtype=torch.float64)

    def plain(x: Tensor) -> Tensor:
        out, loss = truth(x, return_loss=True)
        return out.square().mean() + 0.1 * loss

    def inside(x: Tensor) -> Tensor:
        with collect_reconstruction_losses() as collected:
            out = block(x)
        return total_loss(out.square().mean(), collected)

    assert relative_error(torch.func.grad(inside)(x), torch.func.grad(plain)(x)) < 1e-12
    text = "collect_reconstruction_losses must be entered inside the function that torch.func"
    with collect_reconstruction_losses() as collected:
        with pytest.raises(RuntimeError, match=said(text)):
            torch.func.grad(lambda x: block(x).square().mean())(x)
        assert len(collected) == 0


class TestCompiled:
    @pytest.fixture(autouse=True)
    def _fresh_compiler(self) -> Iterator[None]:
        torch.compiler.reset()
        yield
        torch.compiler.reset()

    def test_the_context_outside(self, device: str) -> None:
        """One graph, compiled once, whatever was collected before; it collects at each call."""
        host, backend = Host().to(device), CompileCounterWithBackend("aot_eager")
        run = torch.compile(host, fullgraph=True, backend=backend)
        for x in (images(device), images(device)):
            assert_as_by_hand(host, by_context(host, run, x), x)
        with collect_reconstruction_losses() as collected:
            run(images(device))
            run(images(device))
        assert len({loss.item() for loss in collected}) == 2 * RUNS
        assert backend.frame_count == 1

    def test_compiled_before_the_first_context(self) -> None:
        """In a thread that has not entered one yet, as every program's first thread."""
        block, backend = SSPCAB(16), CompileCounterWithBackend("aot_eager")
        run = torch.compile(block, fullgraph=True, backend=backend)
        counts = []

        def work() -> None:
            x = torch.randn(2, 16, 5, 6)
            for _ in range(2):
                run(x)
                with collect_reconstruction_losses() as collected:
                    run(x)
                counts.append(len(collected))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert counts == [1, 1] and backend.frame_count == 2

    def test_the_context_inside(self, device: str) -> None:
        host, backend = Host().to(device), CompileCounterWithBackend("aot_eager")

        @torch.compile(fullgraph=True, backend=backend)
        def step(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            with collect_reconstruction_losses() as collected:
                out = host(x)
            return total_loss(out.square().mean(), collected), collected

        for _ in range(3):
            x = images(device)
            with collect_reconstruction_losses() as outer:
                loss, collected = step(x)
            assert len(outer) == 0
            assert_as_by_hand(host, with_gradients(host, collected, loss), x)
        assert backend.frame_count == 1

    def test_blocks_compiled_one_by_one(self) -> None:
        """More of them than the compiler would compile anew."""
        backend = CompileCounterWithBackend("aot_eager")
        blocks = nn.Sequential(*[SSPCAB(16) for _ in range(10)])
        for block in blocks:
            block.compile(fullgraph=True, backend=backend)
        with collect_reconstruction_losses() as collected:
            blocks(torch.randn(2, 16, 5, 6, requires_grad=True))
        assert len(collected) == 10 and backend.frame_count == 1

    def test_stacked(self) -> None:
        host, x = Host(), images()
        run = torch.compile(host, fullgraph=True, backend="aot_eager")

        @torch.compile(fullgraph=True, backend="aot_eager")
        def step(x: Tensor) -> Tensor:
            with collect_reconstruction_losses() as collected:
                host(x)
                return torch.stack(list(collected))

        with collect_reconstruction_losses() as collected:
            host(x)
            run(x)
            inside = torch.stack(list(collected))
        for stacked in (inside, torch.stack(collected)):
            assert_equal(stacked.detach(), step(x).detach().repeat(2))
