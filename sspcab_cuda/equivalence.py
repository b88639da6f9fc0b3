"""Whether one block computes what another does, tried out on a small random image.

Names and structure don't tell what a ``forward`` does with them.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

# How far results may be from each other, over the largest of them: products are added up in another
# order, and on a GPU float32 may be TF32. What is computed otherwise is off by about as much as
# there is.
_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-2,
    torch.float16: 3e-2,
    torch.bfloat16: 1e-1,
}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def difference(
    old: nn.Module, convert: Callable[[nn.Module], nn.Module], channels: int, reach: int
) -> str | None:
    """What differs between a block and what it is converted to; None if nothing does.

    Copies of the block are tried, so that neither its state nor what it counts is changed; hooks on
    it don't run. Nor do random numbers that it draws count.

    Args:
        old: the block.
        convert: makes the other block, of a copy of it.
        channels, reach: C and k' + d. The image is larger than the receptive field, so that borders
            and corners tell, and higher than wide.

    Returns:
        None where the parameters have no values: on the meta device, and in fake tensors.
    """
    parameter = next(old.parameters())
    if parameter.is_meta or isinstance(parameter, FakeTensor):
        return None
    generator = torch.Generator().manual_seed(0)
    shape = (2, channels, 2 * reach + 3, 2 * reach + 2)
    x = torch.randn(shape, generator=generator, device="cpu").to(parameter.device, parameter.dtype)
    devices = [x.device] if x.is_cuda else []
    with (
        torch.no_grad(),
        torch.autocast(x.device.type, enabled=False),
        torch.random.fork_rng(devices),
    ):
        for training in (False, True):
            try:
                theirs, copied = _copy(old), _copy(old)
                expected: Any = theirs.train(training).forward(x.clone())
            except Exception as error:
                return f"it can't be tried: {type(error).__name__}: {error}"
            ours = convert(copied)
            different = _compare(expected, ours.train(training)(x))
            if different is not None:
                return f"{different}, in {'training' if training else 'evaluation'} mode"
    return None


def _copy(block: nn.Module) -> nn.Module:
    """All of it but hooks on it, which may hold anything."""
    bare = copy.copy(block)
    for hooks in _HOOKS:
        bare.__dict__[hooks] = OrderedDict()
    return copy.deepcopy(bare)


def _compare(expected: Any, result: Tensor) -> str | None:
    if not isinstance(expected, Tensor):
        return f"it returns a {type(expected).__name__}"
    if expected.shape != result.shape or expected.dtype != result.dtype:
        described = [f"{t.dtype} of {tuple(t.shape)}" for t in (expected, result)]
        return f"it returns {described[0]}, not {described[1]}"
    ours, theirs = result.double(), expected.double()
    scale = theirs.nan_to_num(0, 0, 0).abs().max().item()
    allowed = _TOLERANCE[result.dtype] * scale
    if torch.allclose(ours, theirs, rtol=0, atol=allowed, equal_nan=True):
        return None
    return f"its results are up to {(ours - theirs).abs().max().item():.2g} off, of {scale:.2g}"
