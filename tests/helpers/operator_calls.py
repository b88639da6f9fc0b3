"""Every registered operator, and arguments for it."""

from __future__ import annotations

from typing import Any

import torch

from sspcab_cuda import ops

from .cases import LAYOUTS, Case, arguments, output_gradients

# Operators that nothing differentiates again.
PRIVATE = {
    "masked_conv2d_backward",
    "squeeze_excite_backward",
    "reconstruction_loss_backward",
    "sspcab_backward",
    "sspcab_inference",
}

# All that are registered: a new one needs calls here before any test passes.
NAMES = sorted(name.removeprefix("sspcab::") for name in torch._C._dispatch_get_all_op_names()
               if name.startswith("sspcab::"))  # fmt: skip


def calls_of(
    name: str, case: Case, dtype: torch.dtype, device: str, layout: str
) -> list[tuple[Any, ...]]:
    """Arguments for an operator; several where it has options."""
    tensors = arguments(case, dtype, device)
    x = tensors[0] = LAYOUTS[layout](tensors[0])
    grad_out, grad_loss = output_gradients(case, dtype, device)
    weights, excitation, d = tensors[1:5], tensors[9:], case.dilation
    out, _, y, *vectors = ops.sspcab(*tensors, d, True, True)
    saved = (*vectors, excitation[0], excitation[2])
    calls: dict[str, list[tuple[Any, ...]]] = {
        "masked_conv2d": [(*tensors[:9], d, relu) for relu in (True, False)],
        "masked_conv2d_backward": [
            (grad_out, x, y, weights, d, True, [True] * 6),
            (grad_out, x, y, weights, d, False, [False, True, False, False, True, False]),
        ],
        "squeeze_excite": [(x, *excitation)],
        "squeeze_excite_backward": [
            (grad_out, x, *saved, [True] * 5),
            (grad_out, x, *saved, [False, True, False, True, False]),
        ],
        "reconstruction_loss": [(out, x)],
        "reconstruction_loss_backward": [(grad_loss, out, x)],
        "sspcab": [
            (*tensors, d, True, True),
            (*tensors, d, False, True),
            (*tensors, d, True, False),
        ],
        "sspcab_inference": [
            (*tensors, d, True, True),
            (*tensors, d, False, True),
            (*tensors, d, True, False),
        ],
        "sspcab_backward": [
            (grad_out, grad_loss, x, y, *vectors, weights, *saved[3:], d, True, [True] * 10),
            (None, grad_loss, x, y, *vectors, weights, *saved[3:], d, True, [False, True] * 5),
            (grad_out, None, x, y, *vectors, weights, *saved[3:], d, False, [True, False] * 5),
        ],
    }
    return calls[name]


def has_loss(args: tuple[Any, ...]) -> bool:
    """opcheck compares results, and a loss that isn't computed is NaN."""
    return args[-1] is not False
