"""Whether one block computes what another does, tried out on a small random image.

Names and structure don't tell what a ``forward`` does with them.
"""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .losses import suspended
from .torch_private import FakeTensor, without_modes

# How far results may be from each other, over the largest of them: products are added up in another
# order. With 4 to 2048 channels they are off by a fifth of these at most.
_TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 6e-2,
}
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def difference(
    old: nn.Module, convert: Callable[[nn.Module], nn.Module], channels: int, reach: int
) -> str | None:
    """What differs between a block and what it is converted to; None if nothing does.

    Copies of the block are tried, so that neither its state nor what it counts is changed; no hooks
    run. Nor do random numbers that it draws count. The copies have random parameters: zeros, of
    which a new block may consist, hide differences. So blocks on the meta device and fake ones can
    be tried as well, on the CPU. Half precision is tried as it is and in float32, which shows more.

    Args:
        old: the block.
        convert: makes the other block, of a copy of it.
        channels, reach: C and k' + d. The image is larger than the receptive field, so that borders
            and corners tell, and higher than wide.
    """
    first = next(old.parameters())
    device = torch.device("cpu") if _is_without_values(first) else first.device
    shape = (2, channels, 2 * reach + 3, 2 * reach + 2)
    wide = torch.float32 if first.dtype.itemsize < torch.float32.itemsize else first.dtype
    dtypes = dict.fromkeys((first.dtype, wide))
    with (
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        without_modes(),
        suspended(),
    ):
        for dtype, training in itertools.product(dtypes, (False, True)):
            x = _random(shape, _generator(), dtype, device)
            try:
                theirs, copied = _copy(old, device), _copy(old, device)
                if dtype != first.dtype:
                    theirs, copied = theirs.to(dtype), copied.to(dtype)
                expected, result = _run(theirs, training, x), _run(convert(copied), training, x)
            except Exception as error:
                return f"it can't be tried: {type(error).__name__}: {error}"
            different = _compare(expected, result)
            if different is not None:
                return f"{different}, in {'training' if training else 'evaluation'} mode"
    return None


def _copy(block: nn.Module, device: torch.device) -> nn.Module:
    """All of it but hooks on it, which may hold anything, with random parameters."""
    generator = _generator()
    instead: dict[int, Any] = {id(getattr(block, hooks)): OrderedDict() for hooks in _HOOKS}
    for tensor in _of_random_values(block):
        values = _random(tensor.shape, generator, tensor.dtype, device)
        values /= max(1, tensor.shape[1:].numel()) ** 0.5  # sums of products are of 1's size again
        is_parameter = isinstance(tensor, nn.Parameter)
        instead[id(tensor)] = nn.Parameter(values, False) if is_parameter else values
    return copy.deepcopy(block, instead)


def _of_random_values(block: nn.Module) -> Iterator[Tensor]:
    for tensor in itertools.chain(block.parameters(), block.buffers()):
        has_to_be = isinstance(tensor, nn.Parameter) or _is_without_values(tensor)
        if has_to_be and tensor.is_floating_point():
            yield tensor


def _is_without_values(tensor: Tensor) -> bool:
    return tensor.is_meta or isinstance(tensor, FakeTensor)


def _generator() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(0)


def _random(
    shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype, device: torch.device
) -> Tensor:
    values = torch.randn(shape, generator=generator, device="cpu")
    return values.to(device, dtype)


def _run(block: nn.Module, training: bool, x: Tensor) -> Any:
    modules = list(block.train(training).modules())
    try:
        for module in modules:
            module._compiled_call_impl = module.forward  # past the hooks of every module
        with parametrize.cached():  # a power iteration is one, however often a weight is read
            return block.forward(x.clone())
    finally:
        for module in modules:  # or copies, cycles now, would keep their memory for a while
            module._compiled_call_impl = None


def _compare(expected: Any, result: Any) -> str | None:
    if not isinstance(expected, Tensor):
        return f"it returns a {type(expected).__name__}"
    if expected.shape != result.shape or expected.dtype != result.dtype:
        described = [f"{t.dtype} of {tuple(t.shape)}" for t in (expected, result)]
        return f"it returns {described[0]}, not {described[1]}"
    error = (result.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    may_be_tf32 = result.is_cuda and result.dtype == torch.float32  # which has float16's digits
    if error <= _TOLERANCE[torch.float16 if may_be_tf32 else result.dtype] * scale:
        return None
    return f"its results are up to {error:.2g} off, of {scale:.2g}"
