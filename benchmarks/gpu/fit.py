"""The planner's model of a convolution's time (csrc/cuda/convolution.cpp), fitted to measured ones.

``turns · (steps + overhead) · m · n / rate[config]``: turns of all processors, steps of the sum.
The constants are ``kRate`` of the medium and small tiles (the large one's is 1) and
``kOverheadSteps``. Of the stages that it is used for, those without splits: the forward pass and
the gradient of x.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .parts import Row

# As they stand in convolution.cpp and convolution.h.
RATES, OVERHEAD = (1.0, 0.85, 0.65), 4
TILES = {
    "bfloat16": ((128, 128), (128, 64), (64, 64)),
    "float16": ((128, 128), (128, 64), (64, 64)),
    "tf32": ((128, 128), (128, 64), (64, 64)),
    "float32": ((128, 64), (64, 64), (64, 32)),
}
DEPTH = {"bfloat16": 32, "float16": 32, "tf32": 16, "float32": 16}  # channels of a step
STAGES = ("forward", "input_gradient")
TOLERATED = 1.05  # a choice may be this much slower than the best


@dataclass(frozen=True)
class Constants:
    rates: tuple[float, ...] = RATES
    overhead: int = OVERHEAD


@dataclass(frozen=True)
class Measured:
    """One stage of one problem: µs of each configuration, and of the choice (-1)."""

    case: str
    precision: str
    stage: str
    shape: tuple[int, int, int, int]
    kernel_dim: int
    us: Mapping[int, float]

    @property
    def best(self) -> int:
        return min((c for c in self.us if c >= 0), key=lambda config: self.us[config])

    @property
    def loss(self) -> float:
        """Time of what was chosen over that of the best."""
        return self.us[-1] / self.us[self.best]


def measured(rows: Sequence[Row]) -> list[Measured]:
    """Problems and stages of part tiles, where all configurations and the choice were measured."""
    found: dict[tuple[str, str, str], Row] = {}
    us: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    for row in rows:
        key = row["case"], row["precision"], row["stage"]
        found[key] = row
        us[key][row["config"]] = us[key].get(row["config"], 0) + row["us"]
    return [
        Measured(*key, tuple(row["shape"]), row["kernel_dim"], us[key])
        for key, row in found.items()
        if {-1, 0, 1, 2} <= set(us[key])
    ]


def choice(one: Measured, processors: int, constants: Constants) -> int:
    """The configuration that the planner would take, with these constants."""
    samples, channels, height, width = one.shape
    steps = 4 * one.kernel_dim**2 * math.ceil(channels / DEPTH[one.precision])

    def time(config: int) -> float:
        m, n = TILES[one.precision][config]
        blocks = math.ceil(samples * height * width / m) * math.ceil(channels / n)
        turns = math.ceil(blocks / processors)
        return turns * (steps + constants.overhead) * m * n / constants.rates[config]

    return min(range(3), key=time)


def fit(problems: Sequence[Measured], processors: int) -> tuple[Constants, float]:
    """The constants whose choices lose least, and how much: the mean of choice over best.

    Of several that lose the same, those nearest to the ones in use.
    """
    unsplit = [one for one in problems if one.stage in STAGES]
    grid = [x / 20 for x in range(8, 25)]
    candidates = [
        Constants((1.0, medium, small), overhead)
        for medium, small, overhead in itertools.product(grid, grid, (0, 2, 4, 6, 8, 12, 16))
        if small <= medium
    ]

    def loss(constants: Constants) -> float:
        losses = [one.us[choice(one, processors, constants)] / one.us[one.best] for one in unsplit]
        return sum(losses) / len(losses)

    def distance(constants: Constants) -> float:
        rates = sum(abs(a - b) for a, b in zip(constants.rates, RATES, strict=True))
        return rates + abs(constants.overhead - OVERHEAD) / 20

    best = min(candidates, key=lambda constants: (round(loss(constants), 4), distance(constants)))
    return best, loss(best)
