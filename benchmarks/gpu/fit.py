"""The constants of csrc/cuda/convolution/plan.cpp, fitted to measured times of its tiles."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from .parts import Row
from .planner import CONFIGS, Constants, Stage, plan, shared_config
from .records import geometric_mean

GRADIENTS = ("input_gradient", "weight_gradient")
TOLERATED = 1.05  # a choice may be this much slower than the best
RATES = [x / 20 for x in range(10, 25)]  # of the smaller tiles; the large ones' is 1
OVERHEADS = (0, 1, 2, 4, 6, 8, 12, 16, 24, 32)
COSTS = [x / 20 for x in range(10, 31)]  # of a shared launch


@dataclass(frozen=True)
class Measured:
    """One convolution: µs and splits of each configuration, and which one was chosen.

    Where sums are split, adding up their parts counts too, beyond what a launch takes for nothing.
    """

    case: str
    stage: Stage
    us: Mapping[int, float]
    splits: Mapping[int, int]
    chosen: int

    @property
    def best(self) -> int:
        return min(self.us, key=lambda config: self.us[config])

    def loss(self, config: int) -> float:
        """Time of a configuration over that of the best."""
        return self.us[config] / self.us[self.best]


@dataclass(frozen=True)
class Shared:
    """Both gradients of a problem: each alone, and µs of one launch for both, by configuration."""

    input: Measured
    weights: Measured
    us: Mapping[int, float]
    chosen: int | None  # None: each has a launch of its own

    @property
    def apart(self) -> float:
        """µs with the tiles that were chosen for each."""
        return sum(one.us[one.chosen] for one in (self.input, self.weights))

    def loss(self, config: int | None) -> float:
        """Time of sharing with these tiles, or (None) of not sharing, over the least of all."""
        apart = sum(min(one.us.values()) for one in (self.input, self.weights))
        least = min(apart, *self.us.values())
        return (self.apart if config is None else self.us[config]) / least


def measured(rows: Sequence[Row], processors: int) -> tuple[list[Measured], list[Shared]]:
    """What part tiles gave, where all configurations were measured."""
    floor = min((row["sums_us"] for row in rows if row["sums_us"]), default=0)
    found: dict[tuple[str, str], dict[str, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row["case"], row["precision"]][row["stage"]][row["config"]] = row

    def us_of(configs: Mapping[int, Row]) -> dict[int, float]:
        return {c: row["us"] + max(0, row["sums_us"] - floor) for c, row in configs.items()}

    alone: list[Measured] = []
    shared = []
    for (case, precision), stages in found.items():
        complete = {name: rows for name, rows in stages.items() if {*rows} == {*CONFIGS}}
        both = complete.pop("gradients", None)
        of_problem = {}
        for name, configs in complete.items():
            row = configs[0]
            stage = Stage(
                name, precision, tuple(row["shape"]), row["kernel_dim"], processors, row["hopper"]
            )
            splits = {config: row["splits"] for config, row in configs.items()}
            of_problem[name] = Measured(case, stage, us_of(configs), splits, row["chosen"])
        alone += of_problem.values()
        if both and {*GRADIENTS} <= {*of_problem}:
            of_x, of_weights = (of_problem[name] for name in GRADIENTS)
            shared.append(Shared(of_x, of_weights, us_of(both), both[0]["chosen"]))
    return alone, shared


@dataclass(frozen=True)
class Fit:
    """Constants, and what choices lose on average: those that were made, and those by them."""

    constants: Constants
    made: float
    fitted: float
    error: float  # of the times that they model, on average


def fit(problems: Sequence[Measured]) -> Fit:
    """The constants whose choices lose least; of those alike to a hundredth, which is noise, the
    ones that model the times best: where nothing is split, the overhead is in no choice."""

    def loss(constants: Constants) -> float:
        return fmean(one.loss(plan(one.stage, constants).config) for one in problems)

    losses = {
        constants: loss(constants)
        for medium, small, overhead in itertools.product(RATES, RATES, OVERHEADS)
        if small <= medium
        for constants in [Constants((1.0, medium, small), overhead)]
    }
    least = min(losses.values())
    alike = [constants for constants in losses if losses[constants] <= least + 0.01]
    best = min(alike, key=lambda constants: error_of(constants, problems))
    made = fmean(one.loss(one.chosen) for one in problems)
    return Fit(best, made, losses[best], error_of(best, problems))


def error_of(constants: Constants, problems: Sequence[Measured]) -> float:
    """Mean factor, less 1, between measured times and modelled ones, whose unit each arithmetic and
    stage has of its own."""
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in problems:
        for config, us in one.us.items():
            modelled = one.stage.time(config, one.splits[config], constants)
            ratios[one.stage.precision, one.stage.name].append(math.log(us / modelled))
    errors = [abs(x - median(group)) for group in ratios.values() for x in group]
    return math.expm1(fmean(errors))


@dataclass(frozen=True)
class SharingFit:
    """When both gradients should share a launch, and what choices lose on average."""

    ratio: float  # of a shared launch to one for each with the same tiles: the geometric mean
    cost: float  # that the planner should reckon with
    made: float
    never: float
    fitted: float


def fit_sharing(problems: Sequence[Shared]) -> SharingFit:
    """The cost of sharing, in planner.shared_config, whose choices lose least; of several, the one
    nearest to 1, with which launches are shared where both have the same tiles, as now."""
    ratios = [
        us / (one.input.us[config] + one.weights.us[config])
        for one in problems
        for config, us in one.us.items()
    ]

    def loss(cost: float) -> float:
        return fmean(
            one.loss(shared_config(one.input.stage, one.weights.stage, cost)) for one in problems
        )

    losses = {cost: loss(cost) for cost in COSTS}
    cost = min(COSTS, key=lambda cost: (round(losses[cost], 2), abs(cost - 1)))
    return SharingFit(
        geometric_mean(ratios),
        cost,
        fmean(one.loss(one.chosen) for one in problems),
        fmean(one.loss(None) for one in problems),
        losses[cost],
    )
