"""What ``csrc/checks.h`` checks, in the same words, where the reference computes and no operator
runs. Within autocast any dtype will do: parameters are cast there. TorchScript's tracer, which ONNX
export may use, is left alone: sizes are tensors in it, and a comparison of them is a warning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .reference import Variant


def check_block(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    excitation: Sequence[Tensor],
    dilation: int,
    variant: Variant,
) -> None:
    if torch.jit.is_tracing():
        return
    check_sub_kernels(x, weights, biases, dilation)
    check_excitation(x, excitation, weights[0])
    reach = weights[0].shape[3] + dilation
    if variant == "tensorflow" and min(x.shape[2:]) <= reach:
        raise RuntimeError(
            f"sspcab: the variant 'tensorflow' mirrors x at its border, so H and W must be larger "
            f"than k' + d = {reach}; got {tuple(x.shape)}"
        )


def check_sub_kernels(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], dilation: int
) -> None:
    if torch.jit.is_tracing():
        return
    _check_image(x)
    if dilation < 0:
        raise RuntimeError(f"sspcab: dilation must be 0 or more; got {dilation}")
    first = weights[0]
    if first.dim() != 4 or first.shape[3] == 0:
        raise RuntimeError(f"sspcab: weight1 must be (C, C, k', k'); got {tuple(first.shape)}")
    channels, kernel_dim = x.shape[1], first.shape[3]
    for number, weight in enumerate(weights, 1):
        shape = (channels, channels, kernel_dim, kernel_dim)
        _check_parameter(f"weight{number}", weight, shape, first, x)
    for number, bias in enumerate(biases, 1):
        _check_parameter(f"bias{number}", bias, (channels,), first, x)


def check_excitation(x: Tensor, parameters: Sequence[Tensor], first: Tensor | None = None) -> None:
    """Of parameters in the order of the arguments, which have the dtype of first."""
    if torch.jit.is_tracing():
        return
    _check_image(x)
    fc1_weight = parameters[0]
    if fc1_weight.dim() != 2:
        raise RuntimeError(f"sspcab: fc1_weight must be (C // r, C); got {tuple(fc1_weight.shape)}")
    channels, hidden = x.shape[1], fc1_weight.shape[0]
    names = ("fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias")
    shapes = ((hidden, channels), (hidden,), (channels, hidden), (channels,))
    for name, tensor, shape in zip(names, parameters, shapes, strict=True):
        _check_parameter(name, tensor, shape, fc1_weight if first is None else first, x)


def check_images(out: Tensor, x: Tensor) -> None:
    """Of the reconstruction loss."""
    if torch.jit.is_tracing():
        return
    _check_image(x)
    _check_shape("out", out, tuple(x.shape), x)
    if out.dtype != x.dtype and not _casts(x):
        raise RuntimeError(f"sspcab: out must have the dtype of x, {_name(x)}; got {_name(out)}")


def _check_image(x: Tensor) -> None:
    if x.dim() != 4:
        raise RuntimeError(f"sspcab: x must be (N, C, H, W); got {tuple(x.shape)}")
    if x.shape[1] == 0:
        raise RuntimeError(f"sspcab: x must have at least one channel; got {tuple(x.shape)}")


def _check_parameter(
    name: str, tensor: Tensor, shape: tuple[int, ...], first: Tensor, x: Tensor
) -> None:
    """Its shape, and its dtype: all share that of x, or float32 beside a half-precision x."""
    _check_shape(name, tensor, shape, x)
    if _casts(x):
        return
    half = x.dtype in (torch.float16, torch.bfloat16)
    if tensor.dtype != x.dtype and not (half and tensor.dtype == torch.float32):
        raise RuntimeError(
            f"sspcab: {name} must have the dtype of x{' or float32' if half else ''}; got "
            f"{_name(tensor)} for x of {_name(x)}"
        )
    if tensor.dtype != first.dtype:
        raise RuntimeError(
            f"sspcab: {name} must have the dtype of the other parameters, {_name(first)}; got "
            f"{_name(tensor)}"
        )


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    if tuple(tensor.shape) != shape:
        raise RuntimeError(
            f"sspcab: {name} must be {shape} for x of {tuple(x.shape)}; got {tuple(tensor.shape)}"
        )


def _casts(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
