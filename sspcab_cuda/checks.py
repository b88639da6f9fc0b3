"""Checks that need Python: types, devices, words, and the name of a dtype that isn't ours. Shapes,
the parameters' dtypes and values are checked by the operators themselves (``csrc/checks.h``)."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any, SupportsIndex, get_args

import torch
from torch import Tensor

from ._extension import BUILD_COMMAND, build_info
from .reference import Variant

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (*HALVES, torch.float32, torch.float64)
_VARIANTS = get_args(Variant)
_DEVICES = ("cpu", "cuda", "meta") if build_info()["cuda"] else ("cpu", "meta")


def check_image(name: str, x: Tensor) -> None:
    """x is a tensor of a dtype and on a device that this build has kernels for."""
    if not isinstance(x, Tensor):
        raise TypeError(f"sspcab: {name} must be a tensor; got {type(x).__name__}")
    if x.dtype not in DTYPES:
        raise RuntimeError(
            f"sspcab: {name} must be float16, bfloat16, float32 or float64; got {x.dtype}"
        )
    device = x.device.type
    if device not in _DEVICES:
        remedy = f"rebuild with FORCE_CUDA=1 {BUILD_COMMAND}, or use" if device == "cuda" else "use"
        raise RuntimeError(
            f"sspcab: this build has kernels for {', '.join(_DEVICES[:-1])}; got {name} on "
            f"{device}. Please {remedy} sspcab_cuda.reference, which runs on every device"
        )


def has_kernels(x: Tensor) -> bool:
    """Whether this build has kernels for the device of x, or x stands for any tensor in a trace."""
    return not isinstance(x, Tensor) or x.device.type in _DEVICES


def check_four(name: str, tensors: Sequence[Tensor]) -> None:
    """One tensor for each corner."""
    if len(tensors) != 4:
        raise ValueError(
            f"sspcab: {name} must have four tensors, one for each corner; got {len(tensors)}"
        )


def check_activation(activation: str) -> None:
    if activation not in ("relu", "none"):
        raise ValueError(f"sspcab: activation must be 'relu' or 'none'; got {activation!r}")


def check_variant(variant: str) -> None:
    if variant not in _VARIANTS:
        raise ValueError(
            "sspcab: variant must be 'paper', 'anomalib' or 'tensorflow'; got " + repr(variant)
        )


def integer_at_least(name: str, value: SupportsIndex, least: int) -> int:
    """value as an int, whatever integer it is: numpy has some of its own."""
    try:
        integer = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        integer = least - 1
    if integer < least:
        raise ValueError(f"sspcab: {name} must be an integer ≥ {least}; got {value!r}")
    return integer


def check_flag(name: str, value: bool) -> None:
    """True or False, or what torch.fx.symbolic_trace has in the place of an argument."""
    if not isinstance(value, (bool, torch.fx.Proxy)):
        raise TypeError(f"sspcab: {name} must be True or False; got {type(value).__name__}")


def check_finite_at_least(name: str, value: Any, least: float) -> None:
    if not isinstance(value, Real) or not least <= float(value) < math.inf:
        raise ValueError(f"sspcab: {name} must be a finite number ≥ {least}; got {value!r}")


def check_scalar(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"sspcab: {name} must be a tensor; got {type(value).__name__}")
    if value.dim() != 0:
        raise ValueError(f"sspcab: {name} must be a scalar; got {tuple(value.shape)}")


def check_losses(losses: Any) -> None:
    """Scalars, one or more."""
    if isinstance(losses, Tensor):
        raise TypeError("sspcab: losses must be a sequence of tensors; got one tensor")
    if not losses:
        raise ValueError(
            "sspcab: there must be one reconstruction loss or more; got none. No block of "
            "sspcab_cuda.SSPCAB ran in this thread inside collect_reconstruction_losses"
        )
    for index, loss in enumerate(losses):
        check_scalar(f"losses[{index}]", loss)


def check_input(x: Tensor, weight: Tensor, owner: str) -> None:
    """x goes with the parameters of a module, of which weight ``(…, C, …)`` is one.

    For where an operator has raised: its user gave a module x, and knows no weights.
    """
    if x.layout != torch.strided or x.is_nested:
        kind = "a nested tensor" if x.is_nested else str(x.layout)
        raise RuntimeError(f"sspcab: x must be dense (torch.strided); got {kind}")
    if x.dtype not in DTYPES or x.device.type not in _DEVICES:
        return
    if x.dim() == 4 and x.shape[1] != weight.shape[1]:
        raise RuntimeError(
            f"sspcab: x must have {weight.shape[1]} channels, as this {owner} has; got "
            f"{x.shape[1]}, in x of {tuple(x.shape)}"
        )
    if x.device != weight.device:
        raise RuntimeError(
            f"sspcab: x must be on {weight.device}, as this {owner} is; got x on {x.device}"
        )
    mixed = x.dtype in HALVES and weight.dtype == torch.float32
    if x.dtype != weight.dtype and not mixed and not casts_beside(x):
        raise RuntimeError(
            f"sspcab: x must be of {weight.dtype}, as this {owner} is; got {x.dtype}"
        )


def casts_beside(x: Tensor) -> bool:
    """Whether autocast takes care of the dtypes of what is computed with x."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)
