"""Draws receptive_field.svg: where the masked convolution's weights lie.

The cells come from the package: what each corner adds to one pixel is differentiated by x. The SVG
is written by hand so that its bytes depend on nothing else, and a test can tell whether it is
current.
"""

from __future__ import annotations

from pathlib import Path

import torch

from sspcab_cuda import functional

FILE = Path(__file__).with_name("receptive_field.svg")

CELL = 22
MARGIN = 46  # of a panel, for what is written around it
STYLE = """
  text { font: 15px sans-serif; text-anchor: middle; dominant-baseline: central; fill: #333 }
  .name { fill: #fff }
  .none { fill: #e9ecf1 } .corner { fill: #2563ab } .centre { fill: #d9691e }
  line { stroke: #777 }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .name { fill: #fff } .none { fill: #3a4049 }
  }
"""

Cell = tuple[int, int]  # row and column


def corner_cells(kernel_dim: int, dilation: int) -> list[list[Cell]]:
    """The cells of the four sub-kernels in a receptive field of (2k' + 2d + 1)² cells."""
    size = 2 * (kernel_dim + dilation) + 1
    x = torch.zeros(1, 1, size, size, requires_grad=True)
    cells = []
    for corner in range(4):
        weights = [torch.full((1, 1, kernel_dim, kernel_dim), float(i == corner)) for i in range(4)]
        y = functional.masked_conv2d(x, weights, [torch.zeros(1)] * 4, dilation, "none")
        (gradient,) = torch.autograd.grad(y[0, 0, size // 2, size // 2], x)
        cells.append([(row, column) for row, column in gradient[0, 0].nonzero().tolist()])
    return cells


def rectangle(row: int, column: int, kind: str) -> str:
    at = f'x="{column * CELL + 1}" y="{row * CELL + 1}"'
    return f'<rect class="{kind}" {at} width="{CELL - 2}" height="{CELL - 2}" rx="3"/>'


def text(words: str, x: float, y: float, kind: str = "") -> str:
    return f'<text{kind and f" class={kind!r}"} x="{x:g}" y="{y:g}">{words}</text>'


def measure(words: str, first: int, last: int, y: int, below: bool = False) -> list[str]:
    """A dimension line along the columns [first, last)."""
    left, right = first * CELL + 1, last * CELL - 1
    lines = [(left, y, right, y), (left, y - 4, left, y + 4), (right, y - 4, right, y + 4)]
    drawn = ['<line x1="{}" y1="{}" x2="{}" y2="{}"/>'.format(*line) for line in lines]
    return [*drawn, text(words, (left + right) / 2, y + (14 if below else -14))]


def panel(kernel_dim: int, dilation: int) -> list[str]:
    """One receptive field, its upper left corner at 0, 0."""
    size = 2 * (kernel_dim + dilation) + 1
    corners = corner_cells(kernel_dim, dilation)
    kinds = {cell: "corner" for cells in corners for cell in cells}
    kinds[size // 2, size // 2] = "centre"
    drawn = [
        rectangle(row, column, kinds.get((row, column), "none"))
        for row in range(size)
        for column in range(size)
    ]
    for number, cells in enumerate(corners, 1):
        row, column = (sum(along) / len(cells) + 0.5 for along in zip(*cells, strict=True))
        drawn.append(text(f"K{number}", column * CELL, row * CELL, "name"))
    drawn += measure("k'", 0, kernel_dim, -12)
    drawn += measure("d", kernel_dim, kernel_dim + dilation, -12)
    width = f"2k' + 2d + 1 = {size}"
    drawn += measure(width, 0, size, size * CELL + 12, below=True)
    middle = size * CELL / 2
    return [*drawn, text(f"k' = {kernel_dim}, d = {dilation}", middle, size * CELL + 52)]


def draw() -> str:
    """The whole picture, as SVG."""
    panels, x, tallest = [], MARGIN, 11 * CELL
    for kernel_dim, dilation in ((1, 1), (3, 2)):
        size = (2 * (kernel_dim + dilation) + 1) * CELL
        y = MARGIN + (tallest - size) // 2
        panels += [f'<g transform="translate({x} {y})">', *panel(kernel_dim, dilation), "</g>"]
        x += size + 2 * MARGIN
    view = f'viewBox="0 0 {x - MARGIN} {tallest + MARGIN + 70}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {view} width="{x - MARGIN}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *panels, "</svg>", ""])


if __name__ == "__main__":
    FILE.write_text(draw())
