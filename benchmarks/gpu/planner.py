"""csrc/cuda/convolution/plan.cpp, restated, so that other constants can be tried out.

It takes the tiles and the splits of the sum for which turns · (steps + overhead) · m · n / rate is
least: turns of all processors, steps of a block's part of the sum, elements of its tile. A test
compares it with the compiled one. Of one group of samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property

TILES = {
    "bfloat16": ((128, 128), (128, 64), (64, 64)),
    "float16": ((128, 128), (128, 64), (64, 64)),
    "tf32": ((128, 128), (128, 64), (64, 64)),
    "float32": ((128, 64), (64, 64), (64, 32)),
    "float64": ((64, 64), (64, 32), (32, 32)),
}
DEPTH = {"bfloat16": 32, "float16": 32, "tf32": 16, "float32": 16, "float64": 8}  # of a step
CONFIGS = range(3)
SHARING_CHANNELS = 128  # up to here the weights' gradient takes tiles that can share a launch


@dataclass(frozen=True)
class Constants:
    """kRate and kOverheadSteps; by default as they stand in plan.cpp."""

    rates: tuple[float, ...] = (1.0, 0.85, 0.65)
    overhead: int = 4


@dataclass(frozen=True)
class Stage:
    """One of the convolutions of a step: forward, input_gradient or weight_gradient."""

    name: str
    precision: str
    shape: tuple[int, int, int, int]  # of x
    kernel_dim: int
    processors: int

    @cached_property
    def steps(self) -> int:
        """Of the whole sum: over the channels of all taps, or over pixels."""
        samples, channels, height, width = self.shape
        depth = DEPTH[self.precision]
        if self.name == "weight_gradient":
            return math.ceil(samples * height * width / depth)
        return 4 * self.kernel_dim**2 * math.ceil(channels / depth)

    @property
    def most_splits(self) -> int:
        return max(1, self.steps // 4) if self.name == "weight_gradient" else 1

    @cached_property
    def blocks(self) -> list[int]:
        """By configuration, without splits."""
        samples, channels, height, width = self.shape
        tiles = TILES[self.precision]
        if self.name == "weight_gradient":
            taps = 4 * self.kernel_dim**2
            return [math.ceil(channels / m) * math.ceil(channels / n) * taps for m, n in tiles]
        pixels = samples * height * width
        return [math.ceil(pixels / m) * math.ceil(channels / n) for m, n in tiles]

    def time(self, config: int, splits: int, constants: Constants) -> float:
        """In the planner's unit."""
        turns = -(-self.blocks[config] * splits // self.processors)
        steps = -(-self.steps // splits) + constants.overhead
        m, n = TILES[self.precision][config]
        return turns * steps * m * n / constants.rates[config]


@dataclass(frozen=True)
class Launch:
    config: int
    splits: int
    time: float


@cache  # the report is written after every part
def plan(stage: Stage, constants: Constants, config: int = -1) -> Launch:
    """What is launched, with a configuration of tiles or (-1) the one that the planner takes."""
    best: Launch | None = None
    for tried in CONFIGS if config < 0 else (config,):
        for splits in _worth_trying(stage, tried, constants.overhead):
            time = stage.time(tried, splits, constants)
            if best is None or time < best.time:
                best = Launch(tried, splits, time)
                if stage.blocks[tried] * splits >= 4 * stage.processors:
                    break
    assert best is not None
    return best


def share_a_launch(input_config: int, weight_config: int) -> bool:
    return input_config == weight_config or (input_config, weight_config) == (1, 2)


def launched(stage: Stage, constants: Constants) -> Launch:
    """As plan, but the weights' gradient of few channels takes tiles that can share a launch."""
    if stage.name != "weight_gradient" or stage.shape[1] > SHARING_CHANNELS:
        return plan(stage, constants)
    of_x = plan(replace(stage, name="input_gradient"), constants).config
    allowed = [config for config in CONFIGS if share_a_launch(of_x, config)]
    return min((plan(stage, constants, config) for config in allowed), key=lambda one: one.time)


@cache
def _worth_trying(stage: Stage, config: int, overhead: int) -> list[int]:
    """Splits that are faster than all fewer ones; the planner passes over the others."""
    constants, least, found = Constants(overhead=overhead), math.inf, []
    for splits in range(1, stage.most_splits + 1):
        time = stage.time(config, splits, constants)
        if time < least:
            least = time
            found.append(splits)
    return found


def shared_config(
    input_gradient: Stage, weight_gradient: Stage, constants: Constants, cost: float
) -> int | None:
    """The tiles with which both gradients would share a launch, None if each had its own.

    cost: time of a shared launch over that of one for each of them with the same tiles.
    """
    stages = input_gradient, weight_gradient
    apart = sum(plan(stage, constants).time for stage in stages)
    together = {
        config: cost * sum(plan(stage, constants, config).time for stage in stages)
        for config in CONFIGS
    }
    config = min(together, key=lambda config: together[config])
    return config if together[config] <= apart else None
