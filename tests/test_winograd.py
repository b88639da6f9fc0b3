"""Winograd's filtering on the CPU, forced on every case, against the truth and the direct way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sspcab_cuda import ops, reference

from .cases import (
    CASES,
    DTYPES,
    LAYOUTS,
    NAMES,
    Case,
    arguments,
    convolution,
    double,
    forced,
    forward_backward,
    leaves,
    output_gradients,
)
from .tolerances import assert_accurate, assert_equal

DIRECT, WINOGRAD = 0, 1

MORE_CASES = (
    *CASES,
    Case(2, 20, 17, 27, 1, 0, 4),
    Case(1, 16, 8, 300, 1, 0),  # more tiles in a row than are worked off together
    Case(1, 144, 16, 16),  # several tiles of output channels at once
    Case(1, 17, 20, 30, 2, 1),
    Case(1, 16, 16, 16, 3, 0),
)
SEEDS = 8
BAD = (torch.nan, torch.inf, -torch.inf)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", MORE_CASES, ids=str)
def test_accuracy(case: Case, dtype: torch.dtype, layout: str) -> None:
    runs = []
    for seed in range(SEEDS if dtype == torch.float32 else 1):
        tensors = arguments(case, dtype, seed=seed)
        tensors[0] = LAYOUTS[layout](tensors[0])
        grads = output_gradients(case, dtype, seed=seed + SEEDS)
        ours = forced(tensors, case.dilation, *grads, WINOGRAD)
        eager = forward_backward(reference, tensors, case.dilation, *grads)
        truth = forward_backward(reference, double(tensors), case.dilation, *double(grads))
        runs.append((ours, eager, truth))
    assert_accurate(dtype, runs)


@pytest.mark.parametrize("channels", [24, 32, 64, 256])
def test_float32_keeps_its_digits(channels: int) -> None:
    """The terms are twice as large as the formula's; in one chain their error would be, too."""
    case = Case(1, channels, 32, 32)
    squares = torch.zeros(2, dtype=torch.float64)
    for seed in range(SEEDS):
        tensors = arguments(case, seed=seed)[:9]
        truth = convolution(reference, double(tensors), case.dilation, "none")
        eager = convolution(reference, tensors, case.dilation, "none")
        ours = ops.masked_conv2d(*tensors, case.dilation, False, False, WINOGRAD)
        squares += torch.stack([(y - truth).square().mean() for y in (ours, eager)])
    assert squares[0] <= 1.8**2 * squares[1]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", ["x", "weight2", "bias3", "grad_y"])
def test_what_is_not_finite(where: str, bad: float, layout: str) -> None:
    """Differences of infinities are NaN, but not in the results."""
    case = Case(2, 18, 17, 24, 1, 1, 3)
    tensors, (grad_y, _) = arguments(case), output_gradients(case, torch.float32)
    tensors[0] = LAYOUTS[layout](tensors[0])
    target = grad_y if where == "grad_y" else tensors[NAMES.index(where)]
    # not at the border: 0 times infinity, beyond it, is nothing or NaN, as comes
    image = target.shape == case.shape
    target[(0, 0, case.height // 2, case.width // 2) if image else (0,) * target.dim()] = bad
    for activation in ("relu", "none"):
        inputs = leaves(tensors[:9])
        y = ops.masked_conv2d(*inputs, case.dilation, activation == "relu", False, WINOGRAD)
        expected = convolution(reference, inputs, case.dilation, activation)
        ours = [y, *torch.autograd.grad(y, inputs, grad_y)]
        theirs = [expected, *torch.autograd.grad(expected, inputs, grad_y)]
        if where == "weight2":  # at the border again
            ours, theirs = [y[..., 2:-2, 2:-2]], [expected[..., 2:-2, 2:-2]]
        for name, a, b in zip(["y", *NAMES], ours, theirs, strict=False):
            for kind in (Tensor.isnan, Tensor.isposinf, Tensor.isneginf):
                assert torch.equal(kind(a), kind(b)), name


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_an_output_depends_on_its_own_inputs_alone(layout: str) -> None:
    """Bit for bit: the differences reach no further than the formula."""
    case = Case(1, 16, 17, 19, 2, 1)
    x, *rest = arguments(case)[:9]
    x = LAYOUTS[layout](x)
    y = ops.masked_conv2d(x, *rest, case.dilation, False, False, WINOGRAD)
    near, far = case.dilation + 1, case.dilation + case.kernel_dim
    for row, column in [(0, 0), (8, 9), (4, 16), (16, 18)]:
        changed = x.clone()
        changed[..., row, column] += 1
        other = ops.masked_conv2d(changed, *rest, case.dilation, False, False, WINOGRAD)
        rows = (torch.arange(case.height) - row).abs()[:, None]
        columns = (torch.arange(case.width) - column).abs()[None]
        corners = (near <= rows) & (rows <= far) & (near <= columns) & (columns <= far)
        assert_equal((other != y).any(1)[0], corners)


def test_choice() -> None:
    """Large images with many channels, where fewer products outweigh the transformations."""
    for case, expected in [
        (Case(1, 64, 40, 40), WINOGRAD),
        (Case(1, 64, 40, 40, 2, 0), WINOGRAD),
        (Case(1, 32, 64, 64), WINOGRAD),
        (Case(1, 16, 64, 64), DIRECT),
        (Case(1, 64, 12, 12), DIRECT),
        (Case(1, 256, 16, 16), DIRECT),
        (Case(2, 256, 16, 16), WINOGRAD),
    ]:
        tensors = arguments(case)[:9]
        way = {
            config: ops.masked_conv2d(*tensors, case.dilation, True, False, config)
            for config in (-1, DIRECT, WINOGRAD)
        }
        assert not torch.equal(way[DIRECT], way[WINOGRAD])
        assert_equal(way[-1], way[expected])


@pytest.mark.parametrize("config", [-2, 2])
def test_unknown_config(config: int) -> None:
    case = Case(1, 4, 5, 6)
    text = rf"config must be -1 \(automatic\), 0 \(direct\) or 1 \(Winograd\); got {config}$"
    with pytest.raises(RuntimeError, match=text):
        ops.masked_conv2d(*arguments(case)[:9], case.dilation, True, False, config)


@pytest.mark.parametrize("dilation", [2**40, 2**62 - 1, 2**63 - 1])
def test_dilation_beyond_every_image(dilation: int) -> None:
    """Distances of 2 (d + 1) that don't fit 64 bits must not even be divided by."""
    tensors = leaves(arguments(Case(2, 16, 8, 9))[:9])
    y = ops.masked_conv2d(*tensors, dilation, True)
    (grad_x,) = torch.autograd.grad(y.sum(), tensors[:1])
    bias = torch.stack(tensors[5:]).sum(0)
    torch.testing.assert_close(y, bias.relu()[:, None, None].expand_as(y))
    assert not grad_x.any()
