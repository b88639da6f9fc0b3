"""The block and its parts as functions.

Everywhere: ``x`` is ``(N, C, H, W)``, float16, bfloat16, float32 or float64, of any strides;
results have its shape and dtype and are channels_last where it is. Parameters share one dtype:
that of ``x``, or float32 beside a half-precision ``x``; sums are taken in float32, or float64 for
float64 ``x``. Corners are numbered as in the authors' code: top-left, bottom-left, top-right,
bottom-right. Arguments that break a rule raise an error with the rule and the values seen
(RuntimeError for shapes, dtypes and devices, TypeError or ValueError for the rest).

On CUDA, float32 convolutions round their operands to TF32 where ``nn.Conv2d`` does, that is where
``torch.backends.cudnn.conv.fp32_precision`` is ``"tf32"``, PyTorch's default; sums stay float32.

Under ``torch.func`` transforms, forward-mode differentiation, ``torch.jit.trace`` and
``torch.onnx.export`` the results come from :mod:`sspcab_cuda.reference`, as do second derivatives.
In a graph of ``torch.fx.symbolic_trace`` the functions are leaves.

Source: Ristea et al., "Self-Supervised Predictive Convolutional Attentive Block for Anomaly
Detection", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from . import ops, reference
from .checks import check_activation, check_four, check_image, check_variant
from .fakes import memory_format
from .operator_checks import check_block, check_excitation, check_images, check_sub_kernels
from .reference import Variant
from .torch_private import forward_level


def _is_for_reference() -> bool:
    """Whether a trace of TorchScript or an ONNX export is under way, whose files are loaded where
    this package isn't; or a compiler meets forward-mode differentiation."""
    if torch.compiler.is_compiling():  # and where torch.export traces for ONNX
        return torch.onnx.is_in_onnx_export() or _is_in_dual_level()
    return torch.jit.is_tracing()


@torch.compiler.assume_constant_result
def _is_in_dual_level() -> bool:
    """As in the region that a compiler traces: what runs its graph may enter a level without
    Python's knowledge."""
    return forward_level() >= 0


@torch.compiler.assume_constant_result
def _convolutions_allow_tf32() -> bool:
    """What nn.Conv2d goes by. A compiled graph keeps the value that it was compiled with.

    Not allow_tf32, which can't be read any more once somebody has set fp32_precision.
    """
    return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]


def uses_tf32(x: Tensor) -> bool:
    """Whether the convolution rounds its operands to TF32."""
    return x.is_cuda and x.dtype == torch.float32 and _convolutions_allow_tf32()


def _precision(x: Tensor) -> tuple[bool, ...]:
    """The trailing arguments of the convolution's operators, where they aren't the defaults."""
    return (True,) if uses_tf32(x) else ()


def masked_conv2d(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    dilation: int = 1,
    activation: Literal["relu", "none"] = "relu",
) -> Tensor:
    """Masked convolution: four k'×k' sub-kernels in the corners of the receptive field.

    Args:
        x: ``(N, C, H, W)``; zero outside the image.
        weights: four sub-kernels ``(C, C, k', k')``, in corner order.
        biases: four vectors ``(C,)``; all four are added.
        dilation: distance d ≥ 0, in pixels, between a sub-kernel and the masked centre.
        activation: ``"relu"`` after the sum of the corners (the paper), or ``"none"``.

    Returns:
        ``(N, C, H, W)``. The value at a pixel doesn't depend on x in the rows and columns up to d
        pixels from it.
    """
    check_image("x", x)
    check_four("weights", weights)
    check_four("biases", biases)
    check_activation(activation)
    if _is_for_reference():
        check_sub_kernels(x, weights, biases, dilation)
        return reference.masked_conv2d(x, _like(x, weights), _like(x, biases), dilation, activation)
    with_relu = activation == "relu"
    y: Tensor = ops.masked_conv2d(x, *weights, *biases, dilation, with_relu, *_precision(x))
    return y


def squeeze_excite(
    x: Tensor, fc1_weight: Tensor, fc1_bias: Tensor, fc2_weight: Tensor, fc2_bias: Tensor
) -> Tensor:
    """Squeeze-and-excitation channel attention (Hu et al., CVPR 2018).

    Args:
        x: ``(N, C, H, W)``.
        fc1_weight, fc1_bias: ``(C // r, C)`` and ``(C // r,)``; C // r may be 0.
        fc2_weight, fc2_bias: ``(C, C // r)`` and ``(C,)``.

    Returns:
        ``(N, C, H, W)``: x times the gate, ``sigmoid(fc2(relu(fc1(mean of x over H and W))))``.
    """
    check_image("x", x)
    if _is_for_reference():
        check_excitation(x, (fc1_weight, fc1_bias, fc2_weight, fc2_bias))
        parameters = _like(x, (fc1_weight, fc1_bias, fc2_weight, fc2_bias))
        return reference.squeeze_excite(x, *parameters)
    out: Tensor = ops.squeeze_excite(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias)[0]
    return out


def reconstruction_loss(out: Tensor, x: Tensor) -> Tensor:
    """``mean((out - x)²)``.

    Args:
        out, x: ``(N, C, H, W)``, of one dtype.

    Returns:
        A scalar, float64 for float64 input, otherwise float32. NaN for an empty input.
    """
    check_image("out", out)
    check_image("x", x)
    if _is_for_reference():
        check_images(out, x)
        return reference.reconstruction_loss(out, x)
    loss: Tensor = ops.reconstruction_loss(out, x)
    return loss


@overload
def sspcab(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    dilation: int = ...,
    return_loss: Literal[False] = ...,
    variant: Variant = ...,
) -> Tensor: ...
@overload
def sspcab(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    dilation: int = ...,
    *,
    return_loss: Literal[True],
    variant: Variant = ...,
) -> tuple[Tensor, Tensor]: ...
@overload
def sspcab(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    dilation: int = ...,
    return_loss: bool = ...,
    variant: Variant = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...
def sspcab(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    dilation: int = 1,
    return_loss: bool = False,
    variant: Variant = "paper",
) -> Tensor | tuple[Tensor, Tensor]:
    """The whole block, fused: masked convolution, ReLU, squeeze and excitation, loss.

    Args:
        x, weights, biases, dilation: as in :func:`masked_conv2d`.
        fc1_weight, fc1_bias, fc2_weight, fc2_bias: as in :func:`squeeze_excite`.
        return_loss: also return the reconstruction loss, computed in the same pass.
        variant: ``"paper"``, ReLU after the sum of the corners; ``"anomalib"``, no activation
            there; ``"tensorflow"``, the authors' TensorFlow code, with x mirrored at the border
            (H and W larger than k' + d) and ReLU on each corner before the sum. The last isn't
            fused: its masked convolution is :func:`sspcab_cuda.reference.masked_conv2d_tensorflow`.

    Returns:
        ``out`` of shape ``(N, C, H, W)``; with ``return_loss`` the pair of it and the scalar
        ``mean((out - x)²)`` (float64 for float64 x, otherwise float32).
    """
    check_image("x", x)
    check_four("weights", weights)
    check_four("biases", biases)
    check_variant(variant)
    excitation = (fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    by_reference = _is_for_reference()
    if by_reference or variant == "tensorflow":
        check_block(x, weights, biases, excitation, dilation, variant)
        w, b, fc = _like(x, weights), _like(x, biases), _like(x, excitation)
        if by_reference:
            return reference.sspcab(
                x, w, b, fc[0], fc[1], fc[2], fc[3], dilation, return_loss, variant
            )
        y = reference.masked_conv2d_tensorflow(x, w, b, dilation)
        out = squeeze_excite(y.contiguous(memory_format=memory_format(x)), *excitation)
        if return_loss or torch.is_grad_enabled():
            # Autograd saves the same, asked for or not: a checkpoint may ask the first time only.
            loss = reconstruction_loss(out, x)
        return (out, loss) if return_loss else out
    tensors = (x, *weights, *biases, *excitation)
    saves = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    operator = ops.sspcab if saves else ops.infer
    with_relu = variant == "paper"
    out, loss = operator(*tensors, dilation, with_relu, return_loss, *_precision(x))[:2]
    return (out, loss) if return_loss else out


for _name in ("masked_conv2d", "squeeze_excite", "reconstruction_loss", "sspcab"):
    torch.fx.wrap(_name)


def _like(x: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Parameters in the dtype of x: the reference has no mixed arithmetic."""
    return [p.to(x.dtype) for p in parameters]
