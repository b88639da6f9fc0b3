"""What PyTorch's ``torch.utils.flop_counter`` counts for each operator.

As for PyTorch's own operators: two for each product of a convolution or a matrix product, taps
beyond the border among them, and nothing for biases, activations, means and losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from . import _extension

assert _extension  # loading the compiled module is what registers the operators

_operators = torch.ops.sspcab
Shape = Sequence[int]


def _convolution(x: Shape, weight: Shape) -> int:
    """Of one sub-kernel, as of its gradient and of what it adds to that of x."""
    samples, channels, height, width = x
    return 2 * samples * height * width * channels * channels * weight[2] * weight[3]


def _linear(x: Shape, fc1_weight: Shape) -> int:
    """Of one of the two layers of the gate, as of its gradients."""
    hidden, channels = fc1_weight
    return 2 * x[0] * channels * hidden


def _linear_gradients(x: Shape, fc1_weight: Shape, into: bool, needs: Sequence[bool]) -> int:
    """into: the mean needs a gradient; needs: fc1_weight, fc1_bias, fc2_weight, fc2_bias."""
    products = [into, into or needs[0] or needs[1], needs[0], needs[2]]
    return sum(products) * _linear(x, fc1_weight)


@register_flop_formula(_operators.masked_conv2d)
def _(x: Shape, weight1: Shape, *_: Any, **__: Any) -> int:
    return 4 * _convolution(x, weight1)


@register_flop_formula(_operators.masked_conv2d_backward)
def _(
    grad_y: Shape,
    x: Shape,
    y: Shape,
    weights: Sequence[Shape],
    dilation: int,
    relu: bool,
    needs: Sequence[bool],
    *_: Any,
    **__: Any,
) -> int:
    return (4 * needs[0] + sum(needs[1:5])) * _convolution(x, weights[0])


@register_flop_formula(_operators.squeeze_excite)
def _(x: Shape, fc1_weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * _linear(x, fc1_weight)


@register_flop_formula(_operators.squeeze_excite_backward)
def _(
    grad_out: Shape,
    x: Shape,
    mean: Shape,
    hidden: Shape,
    gate: Shape,
    fc1_weight: Shape,
    fc2_weight: Shape,
    needs: Sequence[bool],
    **_: Any,
) -> int:
    return _linear_gradients(x, fc1_weight, needs[0], needs[1:])


@register_flop_formula([_operators.reconstruction_loss, _operators.reconstruction_loss_backward])
def _(*_: Any, **__: Any) -> int:
    return 0


@register_flop_formula([_operators.sspcab, _operators.sspcab_inference])
def _(x: Shape, weight1: Shape, *arguments: Any, **_: Any) -> int:
    return 4 * _convolution(x, weight1) + 2 * _linear(x, arguments[7])


@register_flop_formula(_operators.sspcab_backward)
def _(
    grad_out: Shape | None,
    grad_loss: Shape | None,
    x: Shape,
    y: Shape,
    mean: Shape,
    hidden: Shape,
    gate: Shape,
    weights: Sequence[Shape],
    fc1_weight: Shape,
    fc2_weight: Shape,
    dilation: int,
    relu: bool,
    needs: Sequence[bool],
    *_: Any,
    **__: Any,
) -> int:
    convolutions = (4 * needs[0] + sum(needs[1:5])) * _convolution(x, weights[0])
    return convolutions + _linear_gradients(x, fc1_weight, any(needs[:6]), needs[6:])
