"""How far from the truth, the reference in float64, a result may be.

float64: 1e-12. float32: twice the error of the eager reference in float32. float16, bfloat16:
twice the error of the eager reference in that dtype, plus one unit in the last place. Errors are
relative: the largest error over the largest true value. A float32 tensor of few elements has its
error by luck, and one whose elements nearly cancel a large relative one, so float32 is judged by
several runs as if their results were one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

# Where eager happens to be exact, some roundings remain.
_FLOOR = {torch.float32: 4 * torch.finfo(torch.float32).eps}


def relative_error(result: Tensor, truth: Tensor) -> float:
    """The largest error over the largest true value; infinite where either is NaN."""
    assert result.shape == truth.shape
    if truth.numel() == 0:
        return 0.0
    error = (result.double() - truth.double()).abs()
    scale = truth.abs().max().item() or 1.0
    return error.nan_to_num(nan=torch.inf).max().item() / scale


def rms_error(result: Tensor, truth: Tensor) -> float:
    """The root of the mean squared error, over the largest true value."""
    if truth.numel() == 0:
        return 0.0
    scale = truth.abs().max().item() or 1.0
    return (result.double() - truth.double()).square().mean().sqrt().item() / scale


def allowed(dtype: torch.dtype, eager_error: float) -> float:
    """The relative error that a result of this dtype may have."""
    if dtype == torch.float64:
        return 1e-12
    return 2 * eager_error + _FLOOR.get(dtype, torch.finfo(dtype).eps)


Results = Mapping[str, Tensor]
Run = tuple[Results, Results, Results]  # ours, eager's, the truth


def errors(
    runs: Sequence[Run], name: str, measure: Callable[[Tensor, Tensor], float] = relative_error
) -> tuple[float, float]:
    """Ours and eager's, the runs' results taken as one tensor."""
    ours, eager, truth = (
        torch.stack([r[name] for r in results]) for results in zip(*runs, strict=True)
    )
    return measure(ours, truth), measure(eager, truth)


def assert_accurate(dtype: torch.dtype, runs: Sequence[Run]) -> None:
    """Every result is as near to the truth as its dtype's rule says."""
    wrong = {}
    for name in runs[0][2]:
        ours, eager = errors(runs, name)
        limit = allowed(dtype, eager)
        if not ours <= limit:
            wrong[name] = f"error {ours:.2e}, eager {eager:.2e}, allowed {limit:.2e}"
    assert not wrong, wrong


def assert_equal(result: Tensor, expected: Tensor) -> None:
    """Bit for bit, dtype included; NaN equals NaN."""
    torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
