"""Fake results of the compiled operators: shapes, dtypes and strides, without values.

Schemas and argument shapes: ``csrc/registration.cpp``. The same checks in the same order as in
``csrc/operators/arguments.h``: what kernels refuse is refused where they are only thought of, and
where a tensor on meta has kept them from being called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _extension
from .operator_checks import (
    check_biases,
    check_config,
    check_excited,
    check_gate,
    check_gate_weights,
    check_grad_loss,
    check_image,
    check_needs,
    check_same_image,
    check_weights,
    wide,
)

assert _extension  # loading the compiled module is what registers the operators


def memory_format(x: Tensor) -> torch.memory_format:
    """Of the results: channels_last if x's channels are neighbours in memory (layout.h)."""
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
def _(x: Tensor, *arguments: Any) -> Tensor:
    _check_masked_conv2d(x, arguments[:4], arguments[4:8], *arguments[8:])
    return _empty_image(x)


def _check_masked_conv2d(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    dilation: int,
    relu: bool,
    allow_tf32: bool = False,
    config: int = -1,
) -> None:
    check_image(x)
    check_weights(x, weights, dilation)
    check_biases(x, biases, weights[0])
    check_config(x, config)


@torch.library.register_fake("sspcab::masked_conv2d_backward")
def _(
    grad_y: Tensor,
    x: Tensor,
    y: Tensor,
    weights: list[Tensor],
    dilation: int,
    relu: bool,
    needs: list[bool],
    allow_tf32: bool = False,
    config: int = -1,
) -> list[Tensor]:
    check_image(x)
    check_weights(x, weights, dilation)
    check_same_image("y", y, x)
    check_same_image("grad_y", grad_y, x)
    check_needs(needs, 6)
    check_config(x, config)
    grad_x = _empty_image(x) if needs[0] else x.new_empty(0)
    shapes = [*(w.shape for w in weights), (x.shape[1],)]
    return [grad_x, *_empty_gradients(shapes, weights[0], needs[1:])]


@torch.library.register_fake("sspcab::squeeze_excite")
def _(x: Tensor, *excitation: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_image(x)
    check_gate(x, excitation, excitation[0])
    return _empty_image(x), *_empty_excitation(x, excitation[0])


def _empty_excitation(x: Tensor, fc1_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    samples, channels = x.shape[:2]
    mean = x.new_empty((samples, channels), dtype=wide(x.dtype))
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
    check_image(x)
    check_same_image("grad_out", grad_out, x)
    check_gate_weights(x, fc1_weight, fc2_weight, fc1_weight)
    check_excited(x, (mean, hidden, gate), fc1_weight)
    check_needs(needs, 5)
    grad_x = _empty_image(x) if needs[0] else x.new_empty(0)
    shapes = [fc1_weight.shape, fc1_weight.shape[:1], fc2_weight.shape, fc2_weight.shape[:1]]
    return [grad_x, *_empty_gradients(shapes, fc1_weight, needs[1:])]


@torch.library.register_fake("sspcab::reconstruction_loss")
def _(out: Tensor, x: Tensor) -> Tensor:
    check_image(x)
    check_same_image("out", out, x)
    return x.new_empty((), dtype=wide(x.dtype))


@torch.library.register_fake("sspcab::reconstruction_loss_backward")
def _(grad_loss: Tensor, out: Tensor, x: Tensor) -> Tensor:
    check_image(x)
    check_same_image("out", out, x)
    check_grad_loss(grad_loss, x)
    return _empty_image(x)


@torch.library.register_fake("sspcab::sspcab")
def _(x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    _check_sspcab(x, *arguments)
    loss = x.new_empty((), dtype=wide(x.dtype))
    return _empty_image(x), loss, _empty_image(x), *_empty_excitation(x, arguments[8])


def _check_sspcab(x: Tensor, *arguments: Any) -> None:
    dilation, relu, _, *kernels = arguments[12:]
    _check_masked_conv2d(x, arguments[:4], arguments[4:8], dilation, relu, *kernels)
    check_gate(x, arguments[8:12], arguments[0])


@torch.library.register_fake("sspcab::sspcab_inference")
def _(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    _check_sspcab(x, *arguments)
    return _empty_image(x), x.new_empty((), dtype=wide(x.dtype))


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
    allow_tf32: bool = False,
    config: int = -1,
) -> list[Tensor]:
    check_image(x)
    check_weights(x, weights, dilation)
    check_gate_weights(x, fc1_weight, fc2_weight, weights[0])
    check_same_image("y", y, x)
    if grad_out is not None:
        check_same_image("grad_out", grad_out, x)
    if grad_loss is not None:
        check_grad_loss(grad_loss, x)
    check_excited(x, (mean, hidden, gate), fc1_weight)
    check_needs(needs, 10)
    check_config(x, config)
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
