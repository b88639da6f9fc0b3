"""csrc/cuda/convolution/plan.cpp, restated, so that other constants can be tried out.

It takes the tiles and the splits of the sum for which turns · (steps + overhead) · m · n / rate is
least: turns of all processors, steps of a block's part of the sum, elements of its tile. A test
compares it with the compiled one. Of one group of samples.
"""

from __future__ import annotations

import itertools
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
ELEMENT_BYTES = {"bfloat16": 2, "float16": 2, "tf32": 4, "float32": 4, "float64": 8}
DEPTH_BYTES = {"sm80": 64, "sm90": 128}  # of a step
HOPPER_TILES = ((128, 256), (128, 128), (128, 64))
HOPPER_STRIPE = 64  # narrower results can't be split between the two blocks of a cluster
HOPPER_LEAST_CHANNELS = 64
CONFIGS = range(3)
MOST_TURNS = 8  # of a processor, for the sake of more splits
SHARING_CHANNELS = 128  # up to here the weights' gradient takes tiles that can share a launch


@dataclass(frozen=True)
class Constants:
    """rate and overhead_steps of a path's traits."""

    rates: tuple[float, ...]
    overhead: int


# As they stand in plan.cpp.
CONSTANTS = {"sm80": Constants((1.0, 0.85, 0.65), 4), "sm90": Constants((1.0, 0.8, 0.57), 3)}


@dataclass(frozen=True)
class Stage:
    """One of the convolutions of a step: forward, input_gradient or weight_gradient."""

    name: str
    precision: str
    shape: tuple[int, int, int, int]  # of x
    kernel_dim: int
    processors: int
    hopper: bool = False  # the GPU has 9.0's instructions, and the build the kernels with them

    @property
    def path(self) -> str:
        """Whose instructions its kernel has. Sub-kernels that reach too far for Hopper's, and
        images with too many pixels, aren't measured."""
        deep = self.name != "weight_gradient"  # TF32 is multiplied by Hopper's only so
        multiplies = ELEMENT_BYTES[self.precision] == 2 or (self.precision == "tf32" and deep)
        channels = self.shape[1]
        hopper = self.hopper and multiplies and channels >= HOPPER_LEAST_CHANNELS
        return "sm90" if hopper else "sm80"

    @property
    def constants(self) -> Constants:
        return CONSTANTS[self.path]

    @property
    def tiles(self) -> tuple[tuple[int, int], ...]:
        return HOPPER_TILES if self.path == "sm90" else TILES[self.precision]

    @cached_property
    def steps(self) -> int:
        """Of the whole sum: over the channels of all taps, or over pixels."""
        samples, channels, height, width = self.shape
        depth = DEPTH_BYTES[self.path] // ELEMENT_BYTES[self.precision]
        if self.name == "weight_gradient":
            return math.ceil(samples * height * width / depth)
        return 4 * self.kernel_dim**2 * math.ceil(channels / depth)

    def most_splits(self, config: int) -> int:
        if self.name == "weight_gradient":
            return max(1, self.steps // 4)
        return 2 if self.path == "sm90" and self.tiles[config][1] > HOPPER_STRIPE else 1

    @cached_property
    def units(self) -> list[int]:
        """Of work, by configuration, without splits; a block has one, or on Hopper several."""
        samples, channels, height, width = self.shape
        if self.name == "weight_gradient":
            taps = 4 * self.kernel_dim**2
            return [math.ceil(channels / m) * math.ceil(channels / n) * taps for m, n in self.tiles]
        pixels = samples * height * width
        return [math.ceil(pixels / m) * math.ceil(channels / n) for m, n in self.tiles]

    def time(self, config: int, splits: int, constants: Constants) -> float:
        """In the planner's unit."""
        turns = -(-self.units[config] * splits // self.processors)
        steps = -(-self.steps // splits) + constants.overhead
        m, n = self.tiles[config]
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
        for splits in _worth_trying(stage, tried):
            time = stage.time(tried, splits, constants)
            if best is None or time < best.time:
                best = Launch(tried, splits, time)
    assert best is not None
    return best


def share_a_launch(path: str, input_config: int, weight_config: int) -> bool:
    medium_and_small = (input_config, weight_config) == (1, 2)
    return input_config == weight_config or (path == "sm80" and medium_and_small)


def launched(stage: Stage, constants: Constants) -> Launch:
    """As plan, but the weights' gradient of few channels takes tiles that can share a launch."""
    input_gradient = replace(stage, name="input_gradient")
    shares = stage.shape[1] <= SHARING_CHANNELS and input_gradient.path == stage.path
    if stage.name != "weight_gradient" or not shares:
        return plan(stage, constants)
    of_x = plan(input_gradient, constants).config
    allowed = [config for config in CONFIGS if share_a_launch(stage.path, of_x, config)]
    return min((plan(stage, constants, config) for config in allowed), key=lambda one: one.time)


def _worth_trying(stage: Stage, config: int) -> list[int]:
    """As many splits as each number of turns has room for, or fewer that leave a block as few
    steps."""
    units, most, found = stage.units[config], stage.most_splits(config), []
    for turns in itertools.count(math.ceil(units / stage.processors)):
        room = min(max(turns * stage.processors // units, 1), most)
        found.append(math.ceil(stage.steps / math.ceil(stage.steps / room)))
        if room == most or turns >= MOST_TURNS:
            break
    return found


def shared_config(input_gradient: Stage, weight_gradient: Stage, cost: float) -> int | None:
    """The tiles with which both gradients would share a launch, None if each had its own.

    cost: time of a shared launch over that of one for each of them with the same tiles.
    """
    stages = input_gradient, weight_gradient
    apart = sum(plan(stage, stage.constants).time for stage in stages)
    together = {
        config: cost * sum(plan(stage, stage.constants, config).time for stage in stages)
        for config in CONFIGS
    }
    config = min(together, key=lambda config: together[config])
    return config if together[config] <= apart else None
