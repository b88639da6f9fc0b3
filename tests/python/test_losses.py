"""Which losses a context collects, and their total."""

from __future__ import annotations

import copy
import doctest
import gc
import pickle
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import sspcab_cuda
from sspcab_cuda import SSPCAB, collect_reconstruction_losses, losses, reference, total_loss
from sspcab_cuda.reference import Variant

from ..helpers.hosts import RUNS, VARIANTS, Host, assert_as_by_hand, by_context, images
from ..helpers.messages import said
from ..helpers.tolerances import assert_equal, relative_error


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_host(variant: Variant, device: str) -> None:
    host, x = Host(variant).to(device), images(device)
    assert_as_by_hand(host, by_context(host, host, x), x)


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
        assert torch.stack(collected).shape == (RUNS,)  # also before the context ends
        assert len(collected) == RUNS
    values = [loss.item() for loss in collected]
    assert values == [collected[i].item() for i in range(RUNS)]
    assert [loss.item() for loss in collected[1:]] == values[1:]
    assert collected[-1] in collected
    assert repr(collected).startswith("ReconstructionLosses([tensor(")
    torch.testing.assert_close(torch.stack(collected).sum(), sum(collected))
    assert collected.count(collected[0]) == 1 and isinstance(collected, list)


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
    with collect_reconstruction_losses() as failed, pytest.raises(RuntimeError):
        host.first(x)
    assert not failed
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
        assert_as_by_hand(other, by_context(other, other, x), x)


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


def test_total_of_several_devices() -> None:
    """On the task loss's device. Fake tensors know their device and have no values."""
    with FakeTensorMode():
        task, *single = (torch.zeros((), device=d) for d in ("cuda:1", "cuda:0", "cpu", "cuda:1"))
        assert total_loss(task, single).device == task.device


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


def test_the_example() -> None:
    result = doctest.testmod(losses, extraglobs={"torch": torch, "sspcab_cuda": sspcab_cuda})
    assert result.attempted == 4 and result.failed == 0
