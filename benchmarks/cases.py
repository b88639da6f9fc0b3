"""What is timed: the shapes that the bars are set for, and sweeps over one quantity at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One problem size. Every case has the default reduction ratio, 8."""

    n: int
    channels: int
    height: int
    width: int
    kernel_dim: int = 1
    dilation: int = 1

    def __str__(self) -> str:
        shape = f"{self.n}x{self.channels}x{self.height}x{self.width}"
        return f"{shape} k'={self.kernel_dim} d={self.dilation}"


SUITES: dict[str, tuple[Case, ...]] = {
    "main": (
        Case(8, 1024, 16, 16),
        Case(8, 128, 64, 64),
        Case(4, 64, 128, 128),
        Case(1, 512, 32, 32),
        Case(1, 32, 256, 256),
    ),
    # So small that the time is that of the calls, not of the arithmetic.
    "overhead": (Case(2, 16, 8, 8),),
    "kernel_dim": (
        Case(4, 256, 32, 32, kernel_dim=3, dilation=1),
        Case(16, 64, 32, 32, kernel_dim=2, dilation=2),
    ),
    # Small images with many channels, as at the bottleneck of a network: the sub-kernels are larger
    # than the image.
    "deep": (
        Case(1, 1024, 16, 16),
        Case(1, 2048, 8, 8),
        Case(1, 1280, 16, 16),
        Case(1, 1024, 8, 8),
        Case(2, 768, 14, 14, dilation=2),
        Case(8, 512, 8, 8),
        Case(1, 160, 8, 8, kernel_dim=2),
    ),
    # The shapes above, scaled down: ATen's half-precision convolutions may need a hundred times
    # the time of its float32 ones on a CPU.
    "half": (
        Case(2, 256, 16, 16),
        Case(2, 128, 32, 32),
        Case(1, 64, 64, 64),
        Case(1, 32, 128, 128),
        Case(1, 64, 16, 16, kernel_dim=3, dilation=1),
        Case(4, 32, 16, 16, kernel_dim=2, dilation=2),
    ),
    "sweep-n": tuple(Case(n, 64, 32, 32) for n in (1, 2, 4, 8, 16, 32)),
    "sweep-hw": tuple(Case(2, 64, size, size) for size in (4, 8, 16, 32, 64, 128, 256)),
    "sweep-c": tuple(Case(4, c, 32, 32) for c in (8, 16, 32, 48, 64, 100, 128, 256, 512)),
    "sweep-k": tuple(Case(4, 64, 32, 32, kernel_dim=k) for k in (1, 2, 3, 4, 5, 7)),
    "sweep-d": tuple(Case(4, 64, 32, 32, dilation=d) for d in (0, 1, 2, 4, 8, 16)),
}


def _random_cases(count: int, seed: int) -> Iterator[Case]:
    """Problems of every kind, of at most 2 GFLOP and 32 MiB of image and of sub-kernels each."""
    draw = random.Random(seed)
    for _ in range(count):
        while True:
            case = Case(
                n=draw.choice((1, 1, 2, 4, 8, 16)),
                channels=_log_uniform(draw, 3, 2048),
                height=_log_uniform(draw, 4, 224),
                width=_log_uniform(draw, 4, 224),
                kernel_dim=draw.choice((1, 1, 1, 2, 3)),
                dilation=draw.randint(0, 4),
            )
            image = case.n * case.channels * case.height * case.width
            filters = 4 * (case.kernel_dim * case.channels) ** 2
            if max(image, filters) <= 1 << 23 and 2 * image * filters / case.channels <= 2e9:
                break
        yield case


def _log_uniform(draw: random.Random, low: int, high: int) -> int:
    return round(math.exp(draw.uniform(math.log(low), math.log(high))))


SUITES["sweep-random"] = tuple(_random_cases(200, seed=0))


def dtypes_of(suite: str) -> tuple[str, ...]:
    """The dtypes that a suite runs in when the command line names none."""
    return ("bfloat16", "float16") if suite == "half" else ("float32",)
