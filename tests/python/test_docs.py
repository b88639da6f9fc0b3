"""What the documentation shows is what the package does."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from sspcab_cuda import SSPCAB

DOCS = Path(__file__).resolve().parents[2] / "docs"
PICTURE = runpy.run_path(str(DOCS / "receptive_field.py"))


def test_picture_of_the_receptive_field_is_current() -> None:
    assert (DOCS / "receptive_field.svg").read_text() == PICTURE["draw"]()


@pytest.mark.parametrize(("kernel_dim", "dilation"), [(1, 1), (3, 2), (2, 0)])
def test_corners_of_the_picture_are_those_of_the_paper(kernel_dim: int, dilation: int) -> None:
    size = 2 * kernel_dim + 2 * dilation + 1
    assert f"receptive_field={size}x{size}" in repr(SSPCAB(8, kernel_dim, dilation))
    near, far = range(kernel_dim), range(size - kernel_dim, size)
    assert PICTURE["corner_cells"](kernel_dim, dilation) == [
        [(row, column) for row in rows for column in columns]
        for rows, columns in ((near, near), (far, near), (near, far), (far, far))
    ]
