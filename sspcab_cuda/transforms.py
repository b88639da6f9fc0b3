"""Where the compiled operators can't go: transforms of ``torch.func``, forward-mode differentiation
and batches of gradients, of which they know nothing.

PyTorch's own operators compute the same there, by :mod:`.decompositions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .decompositions import decompositions
from .operator_checks import check_block, check_excitation, check_images, check_sub_kernels
from .torch_private import forward_level, is_under_functorch, pytree

_PLAIN = (Tensor, nn.Parameter)


def is_transformed(arguments: Sequence[Any]) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation is under way, for an operator whose
    first argument is a tensor."""
    if is_under_functorch() or forward_level() >= 0:
        return True
    # A compiler enters a level without Python's knowledge, and traces with tensors of its own.
    return type(arguments[0]) not in _PLAIN and has_tangent(arguments)


def has_tangent(arguments: Sequence[Any]) -> bool:
    tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
    return any(forward_ad.unpack_dual(t, level=0).tangent is not None for t in tensors)


# What the operators check, in the order of their arguments.
_CHECKS: dict[str, Callable[..., None]] = {
    "sspcab::masked_conv2d": lambda x, *rest: check_sub_kernels(x, rest[:4], rest[4:8], rest[8]),
    "sspcab::squeeze_excite": lambda x, *rest: check_excitation(x, rest),
    "sspcab::reconstruction_loss": check_images,
    "sspcab::sspcab": lambda x, *rest: check_block(
        x, rest[:4], rest[4:8], rest[8:12], rest[12], "paper"
    ),
}
_CHECKS["sspcab::sspcab_inference"] = _CHECKS["sspcab::sspcab"]


def _checked(operator: Any, formula: Callable[..., Any]) -> Callable[..., Any]:
    check = _CHECKS[operator.name()]

    def function(*arguments: Any) -> Any:
        check(*arguments)
        return formula(*arguments)

    return function


# Every forward operator by PyTorch's own.
FORMULAS = {operator: _checked(operator, f) for operator, f in decompositions().items()}


def batch_by_batch(operator: Any) -> Callable[..., Any]:
    """The rule for ``torch.vmap`` of an operator without a formula: one call after another."""

    def rule(info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
        leaves, structure = pytree.tree_flatten(arguments)
        dims = pytree.tree_leaves(in_dims)

        def call(index: int) -> Any:
            slices = [
                leaf if dim is None else leaf.select(dim, index)
                for leaf, dim in zip(leaves, dims, strict=True)
            ]
            return operator(*pytree.tree_unflatten(slices, structure))

        results = [call(index) for index in range(info.batch_size)]
        batch = pytree.tree_map(lambda *parts: torch.stack(parts), *results)
        return batch, pytree.tree_map(lambda _: 0, batch)

    return rule
