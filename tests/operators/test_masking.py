"""What an output may depend on: the four corners of its receptive field, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sspcab_cuda
from sspcab_cuda import functional

from ..helpers.cases import Case, arguments, convolution
from ..helpers.tolerances import assert_equal


def influence(case: Case, row: int, column: int, device: str, corners: range) -> Tensor:
    """Of each pixel of x on y[row, column], (H, W); only the given corners have weights."""
    tensors = [t.abs() + 1 for t in arguments(case, torch.float64, device)]
    for corner in set(range(4)) - set(corners):
        tensors[1 + corner].zero_()
    x = tensors[0].requires_grad_()
    y = convolution(functional, tensors, case.dilation)
    (gradient,) = torch.autograd.grad(y[..., row, column].sum(), x)
    return gradient.abs().sum((0, 1))


def expected_influence(case: Case, row: int, column: int, corners: range) -> Tensor:
    """True where a pixel lies in one of the corners: between d + 1 and d + k' away, both ways."""
    nearest, farthest = case.dilation + 1, case.dilation + case.kernel_dim
    rows = torch.arange(case.height)[:, None] - row
    columns = torch.arange(case.width)[None] - column

    def near(offset: Tensor) -> Tensor:
        return (nearest <= offset) & (offset <= farthest)

    masks = [
        near(-rows) & near(-columns),
        near(rows) & near(-columns),
        near(-rows) & near(columns),
        near(rows) & near(columns),
    ]
    return torch.stack([masks[corner] for corner in corners]).any(0)


PIXELS = st.tuples(st.integers(1, 4), st.integers(0, 3)).flatmap(
    lambda kd: st.tuples(
        st.just(kd), st.integers(1, 2 * sum(kd) + 4), st.integers(1, 2 * sum(kd) + 4)
    )
)


@given(
    PIXELS,
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 17),
)
def test_derivative_is_zero_but_in_the_corners(
    device: str,
    sizes: tuple[tuple[int, int], int, int],
    row: float,
    column: float,
    channels: int,
) -> None:
    (kernel_dim, dilation), height, width = sizes
    case = Case(2, channels, height, width, kernel_dim, dilation)
    h, w = int(row * height), int(column * width)
    result = influence(case, h, w, device, range(4))
    assert_equal((result != 0).cpu(), expected_influence(case, h, w, range(4)))


@pytest.mark.parametrize("corner", range(4))
@pytest.mark.parametrize(("kernel_dim", "dilation"), [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_each_sub_kernel_has_its_own_corner(
    corner: int, kernel_dim: int, dilation: int, device: str
) -> None:
    size = 2 * (kernel_dim + dilation) + 1
    centre = kernel_dim + dilation
    case = Case(1, 3, size, size, kernel_dim, dilation)
    only = range(corner, corner + 1)
    result = influence(case, centre, centre, device, only)
    assert_equal((result != 0).cpu(), expected_influence(case, centre, centre, only))
    assert int((result != 0).sum()) == kernel_dim**2


@pytest.mark.parametrize(("kernel_dim", "dilation"), [(1, 0), (1, 2), (2, 1), (3, 0)])
def test_masked_pixels_are_never_read(kernel_dim: int, dilation: int, device: str) -> None:
    """NaN in the masked cross of a pixel leaves its output as it was."""
    case = Case(1, 5, 14, 15, kernel_dim, dilation)
    row, column = 6, 7
    tensors = arguments(case, device=device)
    expected = convolution(functional, tensors, dilation)[..., row, column]
    x = tensors[0].clone()
    x[:, :, row - dilation : row + dilation + 1] = torch.nan
    x[..., column - dilation : column + dilation + 1] = torch.nan
    y = convolution(functional, [x, *tensors[1:]], dilation)
    assert_equal(y[..., row, column], expected)
    assert y.isnan().any()


def test_a_block_cannot_see_the_pixel_that_it_reconstructs() -> None:
    block = sspcab_cuda.MaskedConv2d(8, kernel_dim=2, dilation=0)
    x = torch.randn(1, 8, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x)[..., 4, 4].sum(), x)
    assert not gradient[..., 4, :].any() and not gradient[..., :, 4].any()
    assert gradient.any()
