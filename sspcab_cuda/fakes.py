"""Fake results of the compiled operators: shapes, dtypes and strides, without values.

Schemas and argument shapes: ``csrc/registration.cpp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _extension

assert _extension  # loading the compiled module is what registers the operators


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums, gates and the loss."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def memory_format(x: Tensor) -> torch.memory_format:
    """Of the results: channels_last if x's channels are neighbours in memory (tensors.h)."""
    channels_last = not x.is_contiguous() and x.stride(1) == 1
    return torch.channels_last if channels_last else torch.contiguous_format


def _empty_image(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


def _empty_gradients(
    shapes: Sequence[Sequence[int]], like: Tensor, needs: Sequence[bool]
) -> list[Tensor]:
    return [
        like.new_empty(shape if needed else (0,))
        for shape, needed in zip(shapes, needs, strict=True)
    ]


@torch.library.register_fake("sspcab::masked_conv2d")
def _(x: Tensor, *_: object) -> Tensor:
    return _empty_image(x)


@torch.library.register_fake("sspcab::masked_conv2d_backward")
def _(
    grad_y: Tensor,
    x: Tensor,
    y: Tensor,
    weights: list[Tensor],
    dilation: int,
    relu: bool,
    needs: list[bool],
    *_: object,
) -> list[Tensor]:
    grad_x = _empty_image(x) if needs[0] else x.new_empty(0)
    shapes = [*(w.shape for w in weights), (x.shape[1],)]
    return [grad_x, *_empty_gradients(shapes, weights[0], needs[1:])]


@torch.library.register_fake("sspcab::squeeze_excite")
def _(x: Tensor, fc1_weight: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_image(x), *_empty_excitation(x, fc1_weight)


def _empty_excitation(x: Tensor, fc1_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    samples, channels = x.shape[:2]
    mean = x.new_empty((samples, channels), dtype=_wide(x.dtype))
    return mean, mean.new_empty((samples, fc1_weight.shape[0])), torch.empty_like(mean)


@torch.library.register_fake("sspcab::squeeze_excite_backward")
def _(
    grad_out: Tensor,
    x: Tensor,
    mean: Tensor,
    hidden: Tensor,
    gate: Tensor,
    fc1_weight: Tensor,
    fc2_weight: Tensor,
    needs: list[bool],
) -> list[Tensor]:
    grad_x = _empty_image(x) if needs[0] else x.new_empty(0)
    shapes = [fc1_weight.shape, fc1_weight.shape[:1], fc2_weight.shape, fc2_weight.shape[:1]]
    return [grad_x, *_empty_gradients(shapes, fc1_weight, needs[1:])]


@torch.library.register_fake("sspcab::reconstruction_loss")
def _(out: Tensor, x: Tensor) -> Tensor:
    return x.new_empty((), dtype=_wide(x.dtype))


@torch.library.register_fake("sspcab::reconstruction_loss_backward")
def _(grad_loss: Tensor, out: Tensor, x: Tensor) -> Tensor:
    return _empty_image(x)


@torch.library.register_fake("sspcab::sspcab")
def _(x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    loss = x.new_empty((), dtype=_wide(x.dtype))
    return _empty_image(x), loss, _empty_image(x), *_empty_excitation(x, args[8])


@torch.library.register_fake("sspcab::sspcab_inference")
def _(x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return _empty_image(x), x.new_empty((), dtype=_wide(x.dtype))


@torch.library.register_fake("sspcab::sspcab_backward")
def _(
    grad_out: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor,
    y: Tensor,
    mean: Tensor,
    hidden: Tensor,
    gate: Tensor,
    weights: list[Tensor],
    fc1_weight: Tensor,
    fc2_weight: Tensor,
    dilation: int,
    relu: bool,
    needs: list[bool],
    *_: object,
) -> list[Tensor]:
    grad_x = _empty_image(x) if needs[0] else x.new_empty(0)
    shapes = [
        *(w.shape for w in weights),
        (x.shape[1],),
        fc1_weight.shape,
        fc1_weight.shape[:1],
        fc2_weight.shape,
        fc2_weight.shape[:1],
    ]
    return [grad_x, *_empty_gradients(shapes, weights[0], needs[1:])]
