"""The ways of the convolution on the CPU, forced on every case, against the truth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sspcab_cuda import ops, reference

from ..helpers.cases import (
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
from ..helpers.tolerances import assert_accurate, assert_equal

DIRECT, WINOGRAD, WINDOWS = WAYS = range(3)

MORE_CASES = (
    *CASES,
    Case(2, 20, 17, 27, 1, 0, 4),
    Case(1, 16, 8, 300, 1, 0),  # more tiles in a row than are worked off together
    Case(1, 144, 16, 16),  # several tiles of output channels at once
    Case(1, 17, 20, 30, 2, 1),
    Case(1, 16, 16, 16, 3, 0),
    Case(1, 200, 6, 5, 2, 1),  # more rows of a product than are worked off together
    Case(3, 40, 9, 7, 3, 1),
)
SEEDS = 8
BAD = (torch.nan, torch.inf, -torch.inf)


@pytest.mark.parametrize("way", [WINOGRAD, WINDOWS], ids=["winograd", "windows"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", MORE_CASES, ids=str)
def test_accuracy(case: Case, dtype: torch.dtype, layout: str, way: int) -> None:
    runs = []
    for seed in range(SEEDS if dtype == torch.float32 else 1):
        tensors = arguments(case, dtype, seed=seed)
        tensors[0] = LAYOUTS[layout](tensors[0])
        grads = output_gradients(case, dtype, seed=seed + SEEDS)
        ours = forced(tensors, case.dilation, *grads, way)
        eager = forward_backward(reference, tensors, case.dilation, *grads)
        truth = forward_backward(reference, double(tensors), case.dilation, *double(grads))
        runs.append((ours, eager, truth))
    assert_accurate(dtype, runs)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=["direct", "winograd", "windows"])
@pytest.mark.parametrize(
    "case", [Case(1, c, 32, 32) for c in (24, 64, 256, 512)] + [Case(2, 96, 20, 20, 2)], ids=str
)
def test_float32_keeps_its_digits(case: Case, way: int) -> None:
    """Winograd's terms are twice as large as the formula's: in one chain, so would be its error.
    Without ReLU, whose flipped elements are as wrong as they can be.
    """
    squares: dict[str, Tensor] = {}
    for seed in range(4):
        tensors = arguments(case, seed=seed)
        grads = output_gradients(case, torch.float32, seed=seed + SEEDS)
        ours = forced(tensors, case.dilation, *grads, way, relu=False)
        eager = forward_backward(reference, tensors, case.dilation, *grads, variant="anomalib")
        truth = forward_backward(
            reference, double(tensors), case.dilation, *double(grads), variant="anomalib"
        )
        for name, true in truth.items():
            pair = torch.stack([(r[name] - true).square().mean() for r in (ours, eager)])
            squares[name] = squares.get(name, torch.zeros(2)) + pair
    for name, (of_ours, of_eager) in squares.items():
        few = name == "loss" or "fc" in name or "bias" in name  # numbers, to judge by
        assert of_ours <= (2.5 if few else 2) ** 2 * of_eager, (name, of_ours, of_eager)


@pytest.mark.parametrize("way", [WINOGRAD, WINDOWS], ids=["winograd", "windows"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("where", ["x", "weight2", "bias3", "grad_y"])
def test_what_is_not_finite(where: str, bad: float, layout: str, way: int) -> None:
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
        y = ops.masked_conv2d(*inputs, case.dilation, activation == "relu", False, way)
        expected = convolution(reference, inputs, case.dilation, activation)
        ours = [y, *torch.autograd.grad(y, inputs, grad_y)]
        theirs = [expected, *torch.autograd.grad(expected, inputs, grad_y)]
        if where == "weight2":  # at the border again
            ours, theirs = [y[..., 2:-2, 2:-2]], [expected[..., 2:-2, 2:-2]]
        for name, a, b in zip(["y", *NAMES], ours, theirs, strict=False):
            for kind in (Tensor.isnan, Tensor.isposinf, Tensor.isneginf):
                assert torch.equal(kind(a), kind(b)), name


@pytest.mark.parametrize("way", [WINOGRAD, WINDOWS], ids=["winograd", "windows"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_an_output_depends_on_its_own_inputs_alone(layout: str, way: int) -> None:
    """Bit for bit: the differences reach no further than the formula."""
    case = Case(1, 16, 17, 19, 2, 1)
    x, *rest = arguments(case)[:9]
    x = LAYOUTS[layout](x)
    y = ops.masked_conv2d(x, *rest, case.dilation, False, False, way)
    near, far = case.dilation + 1, case.dilation + case.kernel_dim
    for row, column in [(0, 0), (8, 9), (4, 16), (16, 18)]:
        changed = x.clone()
        changed[..., row, column] += 1
        other = ops.masked_conv2d(changed, *rest, case.dilation, False, False, way)
        rows = (torch.arange(case.height) - row).abs()[:, None]
        columns = (torch.arange(case.width) - column).abs()[None]
        corners = (near <= rows) & (rows <= far) & (near <= columns) & (columns <= far)
        assert_equal((other != y).any(1)[0], corners)


def test_choice() -> None:
    """Winograd: large images with many channels, where fewer products outweigh the transformations.
    Windows: fewer pixels than channels, or no tap inside the image."""
    for case, expected in [
        (Case(1, 64, 40, 40), WINOGRAD),
        (Case(1, 64, 40, 40, 2, 0), WINOGRAD),
        (Case(1, 32, 64, 64), WINOGRAD),
        (Case(1, 16, 64, 64), DIRECT),
        (Case(1, 64, 12, 12), DIRECT),
        (Case(2, 256, 16, 16), WINOGRAD),
        (Case(1, 256, 16, 16), WINDOWS),
        (Case(4, 256, 8, 8), WINDOWS),
        (Case(16, 96, 8, 8), DIRECT),
        (Case(1, 128, 9, 9, 3, 1), WINDOWS),
    ]:
        tensors = arguments(case)[:9]
        way = {
            config: ops.masked_conv2d(*tensors, case.dilation, True, False, config)
            for config in (-1, *WAYS)
        }
        chosen = [w for w in WAYS if torch.equal(way[-1], way[w])]
        assert chosen == [expected], case


@pytest.mark.parametrize("way", WAYS, ids=["direct", "winograd", "windows"])
@pytest.mark.parametrize("case", [Case(2, 21, 9, 8, 2, 0), Case(1, 40, 7, 11, 3, 1)], ids=str)
def test_sub_kernels_in_channels_last(case: Case, way: int) -> None:
    """They are read where they lie, all four alike or not."""
    tensors, grads = arguments(case), output_gradients(case, torch.float32)
    expected = forced(tensors, case.dilation, *grads, way)
    for count in (1, 4):
        others = [*tensors]
        for i in range(1, 1 + count):
            others[i] = tensors[i].contiguous(memory_format=torch.channels_last)
        results = forced(others, case.dilation, *grads, way)
        for name, result in results.items():
            torch.testing.assert_close(result, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [-2, 3])
def test_unknown_config(config: int) -> None:
    case = Case(1, 4, 5, 6)
    ways = r"-1 \(automatic\), 0 \(direct\), 1 \(Winograd\) or 2 \(windows\)"
    with pytest.raises(RuntimeError, match=rf"config must be {ways}; got {config}$"):
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
