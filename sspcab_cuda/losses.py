"""Reconstruction losses of the blocks inside a host model, without a change to the host.

Only the block's ``forward`` adds to what :func:`active` gives it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from .checks import check_finite_at_least, check_losses, check_scalar
from .torch_private import current_backward_pass, is_forward_mode_on, transform_level


class ReconstructionLosses(list[Tensor]):
    """Losses in the order in which the blocks ran; :func:`collect_reconstruction_losses` makes it.

    A list of scalars, float32 or float64, each ``mean((out - x)²)`` of one run of one block. What
    is made of it, such as slices, sums, copies and pickles, are plain lists.
    """

    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain()

    def add(self, loss: Tensor) -> None:
        self.fetch()
        super().append(loss)

    def fetch(self) -> None:
        """Takes what compiled blocks have added since. Code in C, such as torch.stack, reads a list
        without asking it, so this is done at the end of the context at the latest."""
        super().extend(self.chain.take())

    def __len__(self) -> int:
        self.fetch()
        return super().__len__()

    def __iter__(self) -> Iterator[Tensor]:
        self.fetch()
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        self.fetch()
        return super().__getitem__(index)

    def __repr__(self) -> str:
        return f"ReconstructionLosses({list(self)})"

    def __radd__(self, other: list[Any]) -> list[Any]:
        return other + list(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def _fetching(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def fetching(*arguments: Any, **options: Any) -> Any:
        for argument in arguments:  # self, and what it is compared with or extended by
            if isinstance(argument, ReconstructionLosses):
                argument.fetch()
        return method(*arguments, **options)

    return fetching


# All that a list can do with its values.
_OTHERS = {"__new__", "__getattribute__", "__hash__", "__class_getitem__", "__sizeof__"}
for _name in {*vars(list)} - {*vars(ReconstructionLosses)} - _OTHERS:
    setattr(ReconstructionLosses, _name, _fetching(getattr(list, _name)))


class Chain:
    """Losses as pairs, the latest first: torch.compile would guard a list's length, and compile a
    block once more for each that ran before it."""

    _latest: tuple[Tensor, Any] | None

    def __init__(self) -> None:
        self._latest = None

    def add(self, loss: Tensor) -> None:
        self._latest = (loss, self._latest)

    def take(self) -> list[Tensor]:
        losses, rest = [], self._latest
        self._latest = None
        while rest is not None:
            loss, rest = rest
            losses.append(loss)
        return losses[::-1]


class _Collector:
    """A context that was entered: its losses, if it takes any, and where it was entered."""

    def __init__(self, losses: ReconstructionLosses | None) -> None:
        self.losses = losses
        self.chain = None if losses is None else losses.chain
        self.is_open = True
        compiling = torch.compiler.is_compiling()
        self.backward_pass = -1 if compiling else current_backward_pass()
        self.transform = None if compiling else transform_level()
        self.with_grad = torch.is_grad_enabled()

    def close(self) -> None:
        """A task that was started inside may know this context long after."""
        self.is_open = False
        self.losses = self.chain = None


class _Contexts:
    """Those of a thread that are open. The innermost is what compiled blocks ask for."""

    def __init__(self) -> None:
        self.open: list[_Collector] = []
        self.innermost: _Collector | None = None

    def enter(self, collector: _Collector) -> None:
        self.open.append(collector)
        self.innermost = collector

    def leave(self, collector: _Collector) -> None:
        self.open.remove(collector)
        self.innermost = self.open[-1] if self.open else None


# Not an attribute of the class: torch.compile would set no guard on it, and a block compiled before
# its first context would never collect.
class _Thread(threading.local):
    def __init__(self) -> None:
        self.contexts = _Contexts()


# Contexts are left in any order where tasks or generators take turns, so each is taken out from
# where it lies. Each task has its own, which torch.compile can't ask for: it goes by the thread.
_thread = _Thread()
_of_task: ContextVar[tuple[_Collector, ...]] = ContextVar("sspcab_collectors", default=())


def _open_in_task() -> tuple[_Collector, ...]:
    return tuple(collector for collector in _of_task.get() if collector.is_open)


@contextlib.contextmanager
def _innermost(collector: _Collector) -> Iterator[None]:
    """Blocks that run inside give their losses to collector."""
    contexts = _thread.contexts
    if torch.compiler.is_compiling():  # nothing takes turns in a graph
        outer = contexts.innermost
        contexts.innermost = collector
        try:
            yield
        finally:
            contexts.innermost = outer
        return
    contexts.enter(collector)
    _of_task.set((*_open_in_task(), collector))
    try:
        yield
    finally:
        collector.close()
        contexts.leave(collector)
        _of_task.set(_open_in_task())


def active() -> ReconstructionLosses | Chain | None:
    """Where the loss of a block that runs now belongs, if anywhere.

    Raises:
        RuntimeError: the loss would be of no use: it would have no graph, or one that ends with
            the function that ``torch.func`` transforms.
    """
    if torch.compiler.is_compiling():
        innermost = _thread.contexts.innermost
        return None if innermost is None else innermost.chain
    if not _of_task.get():
        return None
    opened = _open_in_task()
    collector = opened[-1] if opened else None
    if collector is None or collector.losses is None:
        return None
    if current_backward_pass() != collector.backward_pass:
        return None  # a checkpoint runs its region again, or a hook of autograd runs a model
    if transform_level() != collector.transform:
        raise RuntimeError(
            "sspcab: collect_reconstruction_losses must be entered inside the function that "
            "torch.func transforms; got a loss that can't leave that function"
        )
    # Forward-mode differentiation is off in the forward of an autograd.Function, and on under
    # no_grad, where losses without a graph are what was asked for.
    without_graph = not (torch.is_grad_enabled() or is_forward_mode_on())
    if collector.with_grad and without_graph and not torch.is_inference_mode_enabled():
        raise RuntimeError(
            "sspcab: a collected loss must have a graph; got a block inside the forward of an "
            "autograd.Function, which records none, as in torch.utils.checkpoint with "
            "use_reentrant=True. Please checkpoint with use_reentrant=False (to evaluate, enter "
            "collect_reconstruction_losses under torch.no_grad())"
        )
    return collector.losses


@contextlib.contextmanager
def collect_reconstruction_losses() -> Iterator[ReconstructionLosses]:
    """Collects the reconstruction loss of every :class:`sspcab_cuda.SSPCAB` that runs inside.

    Each run of a block's ``forward`` adds one loss, from the same fused pass: a block that runs
    twice adds two. :meth:`sspcab_cuda.SSPCAB.anomaly_map` and the functions of
    :mod:`sspcab_cuda.functional` add none. Losses have their graph, or none under
    ``torch.no_grad()``; nothing but the sequence itself keeps them alive.

    Of nested contexts the innermost takes a loss, so that each is counted once and a helper that
    collects (a validation pass, a model with a loss of its own) doesn't change what its caller
    gets.

    Contexts may be left in any order, and an asyncio task has those that it or its creator entered;
    a compiled block can't ask for its task, and goes by the context that its thread entered last.
    As with all of Python's contexts, one that a generator is in when it yields is its caller's too.

    Leave the context before ``backward``. What a checkpoint runs again adds nothing all the same,
    but a compiled block can't tell that it runs in a checkpoint.

    Not collected: blocks that run in another thread (the replicas of ``nn.DataParallel``; those of
    ``asyncio.to_thread``, which takes the task's contexts along, are), or
    without Python (a replayed CUDA graph, an exported program). Under ``torch.compile`` a
    checkpoint inside the compiled region needs
    ``torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True``. A block whose
    output the host doesn't use has no place in DDP's ``find_unused_parameters=True``.

    Yields:
        A list of the losses, in the order in which the blocks ran; empty at first. Inside the
        context, and inside a compiled function, ``len``, indices and loops see all of it, but
        ``torch.stack`` wants ``list(losses)``. What changes the list breaks a compiled graph.

    Raises:
        RuntimeError: by a block whose loss would be of no use: one in ``torch.utils.checkpoint``
            with ``use_reentrant=True``, which records no graph, or in a function that
            ``torch.func`` transforms, when the context was entered outside of it.

    Example:
        >>> host = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), sspcab_cuda.SSPCAB(16))
        >>> with sspcab_cuda.collect_reconstruction_losses() as losses:
        ...     out = host(torch.rand(2, 3, 32, 32))
        >>> loss = sspcab_cuda.total_loss(out.square().mean(), losses, weight=0.1)
        >>> loss.backward()
    """
    losses = ReconstructionLosses()
    try:
        with _innermost(_Collector(losses)):
            yield losses
    finally:
        losses.fetch()


def suspended() -> contextlib.AbstractContextManager[None]:
    """Blocks that run inside collect nothing."""
    return _innermost(_Collector(None))


def total_loss(task_loss: Tensor, losses: Sequence[Tensor], weight: float = 0.1) -> Tensor:
    """``task_loss + weight · Σ losses``: L_total = L_F + λ · L_SSPCAB of the paper.

    Args:
        task_loss: the host's own loss, a scalar.
        losses: reconstruction losses, scalars on any devices; at least one.
        weight: λ ≥ 0, finite; the paper takes 0.1.

    Returns:
        A scalar on the device of task_loss, in the widest dtype among all.

    Raises:
        TypeError: a loss is no tensor.
        ValueError: a loss is no scalar, there is none, or weight is negative or not finite.
    """
    check_scalar("task_loss", task_loss)
    check_losses(losses)
    check_finite_at_least("weight", weight, 0)
    first, *rest = (loss.to(task_loss.device) for loss in losses)
    return task_loss + weight * sum(rest, first)
