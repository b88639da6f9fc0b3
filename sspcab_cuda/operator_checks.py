"""What the operators check, in the words of ``csrc/checks.h``, where no kernel runs: for fake and
meta tensors, and where the reference computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from .checks import DTYPES, HALVES, casts_beside
from .reference import Variant

# Where the reference computes. Within autocast any dtype will do: parameters are cast there.


def check_block(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    excitation: Sequence[Tensor],
    dilation: int,
    variant: Variant,
) -> None:
    check_sub_kernels(x, weights, biases, dilation)
    check_gate(x, excitation, weights[0], casts_beside(x))
    reach = weights[0].shape[3] + dilation
    if variant == "tensorflow" and _has_sizes() and min(x.shape[2:]) <= reach:
        _refuse(
            f"the variant 'tensorflow' mirrors x at its border, so H and W must be larger than "
            f"k' + d = {reach}; got {tuple(x.shape)}"
        )


def check_sub_kernels(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], dilation: int
) -> None:
    check_image(x)
    check_weights(x, weights, dilation, casts_beside(x))
    check_biases(x, biases, weights[0], casts_beside(x))


def check_excitation(x: Tensor, parameters: Sequence[Tensor]) -> None:
    check_image(x)
    check_gate(x, parameters, parameters[0], casts_beside(x))


def check_images(out: Tensor, x: Tensor) -> None:
    """Of the reconstruction loss."""
    check_image(x)
    check_same_image("out", out, x, casts_beside(x))


# The rules that operators are made of. `casts`: autocast takes care of dtypes.


def check_image(x: Tensor) -> None:
    _check_dim("x", x, 4, "(N, C, H, W)")
    if _has_sizes() and x.shape[1] == 0:
        _refuse(f"x must have at least one channel; got {tuple(x.shape)}")
    if x.dtype not in DTYPES:
        _refuse(f"x must be float16, bfloat16, float32 or float64; got {_name(x.dtype)}")


def check_weights(x: Tensor, weights: Sequence[Tensor], dilation: int, casts: bool = False) -> None:
    if len(weights) != 4:
        _refuse(f"weights must be four sub-kernels; got {len(weights)}")
    if dilation < 0:
        _refuse(f"dilation must be 0 or more; got {dilation}")
    first = weights[0]
    _check_dim("weight1", first, 4, "(C, C, k', k')")
    if _has_sizes() and first.shape[3] == 0:
        _refuse(f"weight1 must have k' of 1 or more; got {tuple(first.shape)}")
    channels, kernel_dim = x.shape[1], first.shape[3]
    shape = (channels, channels, kernel_dim, kernel_dim)
    for number, weight in enumerate(weights, 1):
        _check_parameter(f"weight{number}", weight, shape, first, x, casts)


def check_biases(x: Tensor, biases: Sequence[Tensor], first: Tensor, casts: bool = False) -> None:
    for number, bias in enumerate(biases, 1):
        _check_parameter(f"bias{number}", bias, (x.shape[1],), first, x, casts)


def check_gate(x: Tensor, parameters: Sequence[Tensor], first: Tensor, casts: bool = False) -> None:
    """In the order of the arguments; of the dtype of first."""
    fc1_weight, fc1_bias, fc2_weight, fc2_bias = parameters
    check_gate_weights(x, fc1_weight, fc2_weight, first, casts)
    _check_parameter("fc1_bias", fc1_bias, fc1_weight.shape[:1], first, x, casts)
    _check_parameter("fc2_bias", fc2_bias, (x.shape[1],), first, x, casts)


def check_gate_weights(
    x: Tensor, fc1_weight: Tensor, fc2_weight: Tensor, first: Tensor, casts: bool = False
) -> None:
    _check_dim("fc1_weight", fc1_weight, 2, "(C // r, C)")
    channels, hidden = x.shape[1], fc1_weight.shape[0]
    _check_parameter("fc1_weight", fc1_weight, (hidden, channels), first, x, casts)
    _check_parameter("fc2_weight", fc2_weight, (channels, hidden), first, x, casts)


def check_excited(x: Tensor, excited: Sequence[Tensor], fc1_weight: Tensor) -> None:
    mean, hidden, gate = excited
    samples, channels = x.shape[:2]
    _check_tensor("mean", mean, (samples, channels), wide(x.dtype), x)
    _check_tensor("hidden", hidden, (samples, fc1_weight.shape[0]), wide(x.dtype), x)
    _check_tensor("gate", gate, (samples, channels), wide(x.dtype), x)


def check_grad_loss(grad_loss: Tensor, x: Tensor) -> None:
    _check_tensor("grad_loss", grad_loss, (), wide(x.dtype), x)


def check_same_image(name: str, tensor: Tensor, x: Tensor, casts: bool = False) -> None:
    _check_tensor(name, tensor, x.shape, x.dtype, x, casts)


def check_needs(needs: Sequence[bool], count: int) -> None:
    if len(needs) != count:
        _refuse(f"needs must have {count} entries; got {len(needs)}")


def check_config(x: Tensor, config: int) -> None:
    """On meta what CUDA has, which is more."""
    last, ways = 3, "0 to 2 (tiles) or 3 (plain kernels)"
    if x.device.type == "cpu":
        last, ways = 2, "0 (direct), 1 (Winograd) or 2 (windows)"
    if not -1 <= config <= last:
        _refuse(f"config must be -1 (automatic), {ways}; got {config}")


def _check_tensor(
    name: str,
    tensor: Tensor,
    shape: Sequence[int],
    dtype: torch.dtype,
    x: Tensor,
    casts: bool = False,
) -> None:
    _check_shape(name, tensor, shape, x)
    if tensor.dtype != dtype and not casts:
        _refuse(
            f"{name} must be {_name(dtype)} for x of {_name(x.dtype)}; got {_name(tensor.dtype)}"
        )
    _check_device(name, tensor, x)


def _check_parameter(
    name: str, tensor: Tensor, shape: Sequence[int], first: Tensor, x: Tensor, casts: bool
) -> None:
    """All share one dtype: that of x, or float32 beside a half-precision x."""
    _check_shape(name, tensor, shape, x)
    half = x.dtype in HALVES
    if not (casts or tensor.dtype == x.dtype or (half and tensor.dtype == torch.float32)):
        _refuse(
            f"{name} must have the dtype of x{' or float32' if half else ''}; got "
            f"{_name(tensor.dtype)} for x of {_name(x.dtype)}"
        )
    if not (casts or tensor.dtype == first.dtype):
        _refuse(
            f"{name} must have the dtype of the other parameters, {_name(first.dtype)}; got "
            f"{_name(tensor.dtype)}"
        )
    _check_device(name, tensor, x)


def _check_dim(name: str, tensor: Tensor | None, dim: int, shape: str) -> None:
    """shape: in words, what has dim dimensions."""
    if tensor is None:
        _refuse(f"{name} must be a tensor; got None")
    if tensor.dim() != dim:
        _refuse(f"{name} must be {shape}; got {tuple(tensor.shape)}")


def _check_shape(name: str, tensor: Tensor | None, shape: Sequence[int], x: Tensor) -> None:
    if tensor is None:
        _refuse(f"{name} must be a tensor; got None")
    if _has_sizes() and tuple(tensor.shape) != tuple(shape):
        _refuse(
            f"{name} must be {tuple(shape)} for x of {tuple(x.shape)}; got {tuple(tensor.shape)}"
        )


def _check_device(name: str, tensor: Tensor, x: Tensor) -> None:
    if tensor.device != x.device:
        _refuse(f"{name} must be on the device of x, {x.device}; got {tensor.device}")


def _refuse(text: str) -> NoReturn:
    raise RuntimeError(f"sspcab: {text}")


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums, gates and the loss."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _has_sizes() -> bool:
    """Not in TorchScript's tracer, which ONNX export may use: sizes are tensors there, and a
    comparison of them is a warning."""
    return not torch.jit.is_tracing()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
