"""What this package takes of PyTorch that has no public name: what each is for, and what would be
without it. The tests run under the oldest torch and the newest."""

from __future__ import annotations

import torch
from torch._ops import OperatorBase
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes as without_modes

__all__ = [
    "DelayedError",
    "FakeTensor",
    "FunctionalTensor",
    "OperatorBase",
    "any_requires_grad",
    "below_autograd",
    "current_backward_pass",
    "dispatch_key",
    "excluding",
    "forward_level",
    "is_batch",
    "is_forward_mode_on",
    "is_under_functorch",
    "pytree",
    "transform_level",
    "without_modes",
]

# FakeTensor, FunctionalTensor: what a compiler traces with in the place of a parameter, which is
# read as that is. Without them such a block would call its parts.
# OperatorBase: the type of an operator, for annotations.
# pytree: nested arguments and results, as PyTorch itself walks them.
# without_modes: a block is tried out with real numbers while a mode of fakes is active.

# A context that puts autograd aside, for an operator of which it is known that nothing is
# differentiated: it saves 4 µs of a call.
below_autograd = torch._C._AutoDispatchBelowAutograd
# Whether something among arguments of any kind requires a gradient; a loop in Python takes longer.
any_requires_grad = torch._C._any_requires_grad
# A function that hands its tensor on and raises in the backward pass.
DelayedError = torch._C._functions.DelayedError
# The context in which an operator that casts under autocast calls itself without.
excluding = torch._C._ExcludeDispatchKeyGuard


def dispatch_key(name: str) -> torch._C.DispatchKeySet:
    return torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name))


# Where a loss is collected: in which backward pass (-1: in none; a checkpoint runs its region again
# in one) and in which function that torch.func transforms. Without them losses would be counted
# twice, or leave a transform.
current_backward_pass = torch._C._current_graph_task_id
transform_level = torch._C._functorch.maybe_current_level
# Off in the forward of an autograd.Function, where a collected loss has no graph.
is_forward_mode_on = torch._C._is_fwd_grad_enabled

# Transforms and tangents, which the compiled operators know nothing of; see transforms.py. Without
# these, derivatives would silently be 0.
is_under_functorch = torch._C._are_functorch_transforms_active
is_batch = torch._C._functorch.is_legacy_batchedtensor


def forward_level() -> int:
    """Of the context of forward-mode differentiation that is open; -1: none."""
    return forward_ad._current_level
