"""The operators in terms of PyTorch's own, for exported programs that run without this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from . import _extension, reference
from .torch_private import OperatorBase

assert _extension  # loading the compiled module is what registers the operators


def decompositions() -> dict[OperatorBase, Callable[..., Any]]:
    """Each forward operator mapped to :mod:`sspcab_cuda.reference`.

    Returns:
        A table for ``torch.export.ExportedProgram.run_decompositions``, after which the program
        has no operator of this package and can be turned into ONNX or loaded where the package
        isn't installed. (``torch.onnx.export`` of a module needs no table.)

    Example:
        >>> program = torch.export.export(model.eval(), (images,))
        >>> program = program.run_decompositions(sspcab_cuda.decompositions())
        >>> torch.onnx.export(program, f="model.onnx")  # doctest: +SKIP
    """
    ops = torch.ops.sspcab
    return {
        ops.masked_conv2d.default: _masked_conv2d,
        ops.squeeze_excite.default: _squeeze_excite,
        ops.reconstruction_loss.default: reference.reconstruction_loss,
        ops.sspcab.default: _sspcab,
        ops.sspcab_inference.default: lambda *arguments: _sspcab(*arguments)[:2],
    }


# Arguments as in csrc/registration.cpp. What follows with_loss, or relu where there is none, says
# how CUDA kernels compute.


def _masked_conv2d(x: Tensor, *arguments: Any) -> Tensor:
    weights, biases = _like(x, arguments[:4]), _like(x, arguments[4:8])
    dilation, relu = arguments[8:10]
    activation: Literal["relu", "none"] = "relu" if relu else "none"
    return reference.masked_conv2d(x, weights, biases, dilation, activation)


def _squeeze_excite(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    """The result, and mean, hidden and gate, which the operator keeps for its backward."""
    fc1_weight, fc1_bias, fc2_weight, fc2_bias = _like(x, parameters)
    kept = reference.excitation(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    return x * kept[2][:, :, None, None], *(t.to(_wide(x)) for t in kept)


def _sspcab(x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The result, the loss (NaN without with_loss), and what is kept for backward."""
    dilation, relu, with_loss = arguments[12:15]
    y = _masked_conv2d(x, *arguments[:8], dilation, relu)
    out, *kept = _squeeze_excite(y, *arguments[8:12])
    nan = x.new_full((), torch.nan, dtype=_wide(x))
    return out, reference.reconstruction_loss(out, x) if with_loss else nan, y, *kept


def _like(x: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Parameters in the dtype of x: the reference has no mixed arithmetic."""
    return [p.to(x.dtype) for p in parameters]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
