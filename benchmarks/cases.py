"""What is timed: the shapes that the bars are set for, and sweeps over one quantity at a time."""

from __future__ import annotations

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


def dtypes_of(suite: str) -> tuple[str, ...]:
    """The dtypes that a suite runs in when the command line names none."""
    return ("bfloat16", "float16") if suite == "half" else ("float32",)
