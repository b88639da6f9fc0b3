"""The loss of blocks inside a host model that knows nothing of it."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

import sspcab_cuda
from sspcab_cuda import SSPCAB, collect_reconstruction_losses, losses, reference, total_loss
from sspcab_cuda.reference import Variant

from .tolerances import assert_equal, relative_error

VARIANTS: tuple[Variant, ...] = ("paper", "anomalib", "tensorflow")
RUNS = 3  # of blocks, in one forward of Host


class Host(nn.Module):
    """Runs its first block once and its second, which lies deeper, twice."""

    def __init__(self, variant: Variant = "paper") -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = SSPCAB(16, variant=variant)
        self.deeper = nn.Sequential(nn.Sequential(SSPCAB(16, 2, variant=variant), nn.Softplus()))
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.deeper(self.deeper(self.first(self.stem(x)))))
        return out


class PlumbedHost(Host):
    """The same, with the losses handed up by hand."""

    def forward(self, x: Tensor) -> Any:
        second, softplus = self.deeper[0]  # type: ignore[misc]
        h, loss1 = self.first(self.stem(x), return_loss=True)
        h, loss2 = second(h, return_loss=True)
        h, loss3 = second(softplus(h), return_loss=True)
        return self.head(softplus(h)), [loss1, loss2, loss3]


def images(device: str = "cpu") -> Tensor:
    return torch.randn(4, 3, 9, 10, device=device)


def collect(host: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    with collect_reconstruction_losses() as collected:
        out = run(x)
    loss = total_loss(out.square().mean(), collected)
    return [*collected, loss, *torch.autograd.grad(loss, list(host.parameters()))]


def assert_as_by_hand(host: Host, run: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Losses, their total and all gradients, bit for bit."""
    by_hand = PlumbedHost(host.first.variant).to(x.device)
    by_hand.load_state_dict(host.state_dict())
    out, single = by_hand(x)
    loss = out.square().mean() + 0.1 * (single[0] + single[1] + single[2])
    truth = [*single, loss, *torch.autograd.grad(loss, list(by_hand.parameters()))]
    for ours, expected in zip(collect(host, run, x), truth, strict=True):
        assert_equal(ours.detach(), expected.detach())


def said(text: str) -> str:
    return "^sspcab: " + re.escape(text)


@pytest.fixture(autouse=True)
def _nothing_stays_active() -> Iterator[None]:
    yield
    assert losses.active() is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_host(variant: Variant, device: str) -> None:
    host = Host(variant).to(device)
    assert_as_by_hand(host, host, images(device))


def test_the_output_is_the_same() -> None:
    host, x = Host(), images()
    expected = host(x)
    with collect_reconstruction_losses():
        assert_equal(host(x).detach(), expected.detach())


def test_with_the_loss_returned() -> None:
    block, x = SSPCAB(16), torch.randn(2, 16, 5, 6)
    with collect_reconstruction_losses() as collected:
        _, loss = block(x, return_loss=True)
    assert collected[0] is loss and len(collected) == 1


def test_a_sequence() -> None:
    host, x = Host(), images()
    with collect_reconstruction_losses() as collected:
        assert len(collected) == 0 and list(collected) == [] and not collected
        host(x)
        assert len(collected) == RUNS  # also before the context ends
    values = [loss.item() for loss in collected]
    assert values == [collected[i].item() for i in range(RUNS)]
    assert [loss.item() for loss in collected[1:]] == values[1:]
    assert collected[-1] in collected
    assert repr(collected).startswith("ReconstructionLosses([tensor(")


def test_a_loss_counts_once() -> None:
    """The innermost context takes it: what a helper collects is not its caller's."""
    host, x = Host(), images()
    with collect_reconstruction_losses() as outer:
        host(x)
        with collect_reconstruction_losses() as inner:
            host.first(host.stem(x))
        host(x)
    assert (len(outer), len(inner)) == (2 * RUNS, 1)


def test_what_is_not_the_host_s_forward_adds_nothing() -> None:
    block, x = SSPCAB(16), torch.randn(2, 16, 5, 6)
    with collect_reconstruction_losses() as collected:
        block.anomaly_map(x)
        block.se(x)
        sspcab_cuda.functional.reconstruction_loss(x, x)
    block(x)
    assert len(collected) == 0


def test_without_gradients() -> None:
    host, x = Host(), images()
    for guard in (torch.no_grad, torch.inference_mode):
        with collect_reconstruction_losses() as collected, guard():
            host(x)
        assert len(collected) == RUNS and not any(loss.requires_grad for loss in collected)


def test_nothing_is_kept() -> None:
    host, x = Host(), images()
    attributes = {name: set(vars(module)) for name, module in host.named_modules()}
    with pytest.raises(KeyError), collect_reconstruction_losses() as collected:
        host(x)
        raise KeyError
    assert {name: set(vars(module)) for name, module in host.named_modules()} == attributes
    alive = [weakref.ref(loss) for loss in collected]
    del collected
    gc.collect()
    assert len(alive) == RUNS and all(loss() is None for loss in alive)


def test_copies_and_functional_call() -> None:
    """No state is on the modules: copies, pickles and calls with other parameters collect too."""
    host, x = Host(), images()
    with collect_reconstruction_losses() as collected:
        copies = (copy.deepcopy(host), pickle.loads(pickle.dumps(host)))
        torch.func.functional_call(host, {k: p + 1 for k, p in host.named_parameters()}, (x,))
        assert len(collected) == RUNS
    for other in copies:
        assert_as_by_hand(other, other, x)


def test_threads() -> None:
    """Each thread has contexts of its own; another thread's blocks are not collected."""
    host, x = Host(), images()
    counts: list[int] = []

    def work() -> None:
        host(x)
        with collect_reconstruction_losses() as theirs:
            host(x)
        counts.append(len(theirs))

    with collect_reconstruction_losses() as ours:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        counts.append(len(ours))
    assert counts == [RUNS, 0]


@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpoint(variant: Variant, early_stop: bool, device: str) -> None:
    """The region runs again in the backward pass, finds the tensors it saved, and adds nothing."""
    host, x = Host(variant).to(device), images(device)

    def run(x: Tensor) -> Tensor:
        out: Tensor = checkpoint(host, x, use_reentrant=False)
        return out

    with set_checkpoint_early_stop(early_stop):
        assert_as_by_hand(host, run, x)
        with collect_reconstruction_losses() as collected:
            total_loss(run(x).square().mean(), collected).backward()
            assert len(collected) == RUNS


def test_a_context_inside_a_checkpoint() -> None:
    """A region that collects for itself does so again when it runs again."""
    host, x = Host(), images()

    def region(x: Tensor) -> Tensor:
        with collect_reconstruction_losses() as collected:
            out = host(x)
        return total_loss(out.square().mean(), collected)

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

    def by_hand(x: Tensor) -> Tensor:
        out, loss = truth(x, return_loss=True)
        return out.square().mean() + 0.1 * loss  # type: ignore[no-any-return]

    def inside(x: Tensor) -> Tensor:
        with collect_reconstruction_losses() as collected:
            out = block(x)
        return total_loss(out.square().mean(), collected)

    assert relative_error(torch.func.grad(inside)(x), torch.func.grad(by_hand)(x)) < 1e-12
    text = "collect_reconstruction_losses must be entered inside the function that torch.func"
    with collect_reconstruction_losses() as collected:
        with pytest.raises(RuntimeError, match=said(text)):
            torch.func.grad(lambda x: block(x).square().mean())(x)
        assert len(collected) == 0


@pytest.mark.parametrize("task", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_total_of_mixed_dtypes(task: torch.dtype) -> None:
    task_loss = torch.tensor(2.0, dtype=task)
    single = [torch.tensor(1 / 3), torch.tensor(1 / 3, dtype=torch.float64), torch.tensor(0.25)]
    result = total_loss(task_loss, single, weight=0.5)
    assert result.dtype == torch.float64 and result.shape == ()
    expected = 2 + 0.5 * (single[0].double() + single[1] + 0.25)
    assert relative_error(result, expected) < 1e-15
    result = total_loss(task_loss, single[:1], weight=0)
    assert result.dtype == torch.promote_types(task, torch.float32) and result.item() == 2


@pytest.mark.parametrize("where", ["meta", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_total_is_on_the_task_loss_s_device(where: str) -> None:
    block, x = SSPCAB(16), torch.randn(2, 16, 5, 6)
    other = SSPCAB(16).to(where)
    with collect_reconstruction_losses() as collected:
        block(x)
        other(x.to(where))
    assert [loss.device.type for loss in collected] == ["cpu", where]
    assert total_loss(torch.zeros((), device=where), collected).device.type == where


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), "0.1", None])
def test_weight(weight: Any) -> None:
    text = f"weight must be a finite number ≥ 0; got {weight!r}"
    with pytest.raises(ValueError, match=said(text)):
        total_loss(torch.ones(()), [torch.ones(())], weight)


@pytest.mark.parametrize(
    ("task_loss", "collected", "error", "text"),
    [
        (torch.ones(3), [torch.ones(())], ValueError, "task_loss must be a scalar; got (3,)"),
        (1.0, [torch.ones(())], TypeError, "task_loss must be a tensor; got float"),
        (torch.ones(()), torch.ones(()), TypeError, "losses must be a sequence of tensors; got"),
        (torch.ones(()), [torch.ones(()), 2.0], TypeError, "losses[1] must be a tensor; got float"),
        (torch.ones(()), [torch.ones(2)], ValueError, "losses[0] must be a scalar; got (2,)"),
        (torch.ones(()), [], ValueError, "there must be one reconstruction loss or more; got none"),
    ],
)  # fmt: skip
def test_what_total_loss_refuses(
    task_loss: Any, collected: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=said(text)):
        total_loss(task_loss, collected)


def test_no_block_ran() -> None:
    """A host with somebody else's block: silence would hide the wrong import."""
    host = nn.Sequential(nn.Conv2d(3, 16, 3), reference.SSPCAB(16))
    with collect_reconstruction_losses() as collected:
        out = host(images())
    with pytest.raises(ValueError, match=r"got none\. No block of sspcab_cuda\.SSPCAB ran"):
        total_loss(out.mean(), collected)


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
        for _ in range(2):
            assert_as_by_hand(host, run, images(device))
        with collect_reconstruction_losses() as collected:
            for _ in range(2):
                run(images(device))
        assert len({loss.item() for loss in collected}) == 2 * RUNS
        assert backend.frame_count == 1
        run(images(device))  # and compiled once more without a context
        assert backend.frame_count == 2

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
            expected = collect(host, host, x)
            ours = [*collected, loss, *torch.autograd.grad(loss, list(host.parameters()))]
            for result, truth in zip(ours, expected, strict=True):
                assert_equal(result.detach(), truth.detach())
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


def distributed_worker(rank: int, store: str) -> None:
    """Gradients on half a batch, averaged by DDP, against those on the whole batch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    host = Host().double()
    batches = [images().double() for _ in range(3)]
    for options in ({}, {"static_graph": True}, {"find_unused_parameters": True}):
        distributed = nn.parallel.DistributedDataParallel(host, **options)
        for batch in batches:
            expected = collect(host, host, batch)[RUNS + 1 :]
            host.zero_grad()
            with collect_reconstruction_losses() as collected:
                out = distributed(batch[2 * rank : 2 * rank + 2])
            total_loss(out.square().mean(), collected).backward()
            for parameter, truth in zip(host.parameters(), expected, strict=True):
                assert parameter.grad is not None
                assert relative_error(parameter.grad, truth) < 1e-12, options
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_distributed(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(distributed_worker, (f"file://{tmp_path / 'store'}",), nprocs=2)
