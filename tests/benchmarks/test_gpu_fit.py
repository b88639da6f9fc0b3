"""The planner restated in Python, and its constants fitted to times of tiles."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

import sspcab_cuda
from benchmarks.gpu import fit, planner, tiles
from benchmarks.gpu.parts import Row
from benchmarks.gpu.planner import CONFIGS, CONSTANTS, Constants, Stage

from ..helpers.cases import HAS_HOPPER

HAS_PLAN = bool(sspcab_cuda.build_info()["cuda"])
ONE_GROUP = 2**60  # bytes of a cache that has room for all samples
STAGES = ("forward", "input_gradient", "weight_gradient")
SHAPES = [
    *itertools.product((1, 3, 32), (16, 64, 96, 512), (5, 28, 64), (16, 33)),
    (64, 256, 64, 64), (32, 64, 256, 256), (8, 1024, 16, 16), (1, 32, 256, 256), (2, 8, 1, 1),
]  # fmt: skip


def stage_of(name: str, **options: Any) -> Stage:
    usual = {"precision": "bfloat16", "kernel_dim": 1, "processors": 132}
    return Stage(name, **{**usual, **options})


@pytest.mark.skipif(not HAS_PLAN, reason="this build has no CUDA part")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("precision", planner.TILES)
def test_the_planner_is_the_compiled_one(precision: str, capability: int) -> None:
    """Path, tiles, splits and units of every stage, chosen and forced. On 9.0 a build without
    kernels for it launches those of 8.0."""
    hopper = capability == 90 and HAS_HOPPER
    dtype = "float32" if precision == "tf32" else precision
    splits = set()
    for shape, kernel_dim, processors in itertools.product(SHAPES, (1, 3), (84, 132)):
        for config in (-1, *CONFIGS):
            compiled = sspcab_cuda._extension._C.cuda_plan(
                shape, dtype, kernel_dim, allow_tf32=precision == "tf32", config=config,
                capability=capability, processors=processors, cache_bytes=ONE_GROUP,
            )  # fmt: skip
            for name in STAGES:
                stage = Stage(name, precision, shape, kernel_dim, processors, hopper)
                launch = (
                    planner.launched(stage, stage.constants)
                    if config < 0
                    else planner.plan(stage, stage.constants, config)
                )
                splits.add(launch.splits)
                units = blocks = stage.units[launch.config] * launch.splits
                if stage.path == "sm90":  # a persistent grid, of whole clusters
                    cluster = 1 if name == "weight_gradient" else launch.splits
                    blocks = min(units, processors) // cluster * cluster
                assert (
                    compiled[name]
                    | {
                        "path": stage.path,
                        "config": launch.config,
                        "splits": launch.splits,
                        "units": units,
                        "blocks": blocks,
                        "tile": stage.tiles[launch.config],
                    }
                    == compiled[name]
                ), (shape, kernel_dim, processors, config)
    assert len(splits) >= 20


@pytest.mark.skipif(not HAS_PLAN, reason="this build has no CUDA part")
@pytest.mark.parametrize("capability", [80, 90])
def test_sharing_at_no_cost_is_what_the_planner_does(capability: int) -> None:
    """But for a tie: the planner doesn't share where other tiles would be just as fast."""
    for shape in SHAPES:
        compiled = sspcab_cuda._extension._C.cuda_plan(
            shape, "bfloat16", capability=capability, processors=132, cache_bytes=ONE_GROUP
        )
        hopper = capability == 90 and HAS_HOPPER
        stages = {name: stage_of(name, shape=shape, hopper=hopper) for name in STAGES}
        of_x, of_weights = (stages[name] for name in fit.GRADIENTS)
        chosen = tiles._choices(stages)
        assert all(chosen[name] == compiled[name]["config"] for name in STAGES)
        if shape[1] <= planner.SHARING_CHANNELS:
            assert "gradients" in compiled["backward_launches"]
        elif chosen["gradients"] is None:
            assert planner.shared_config(of_x, of_weights, cost=1.0001) is None, shape
        else:
            assert "gradients" in compiled["backward_launches"]
            config = planner.shared_config(of_x, of_weights, cost=1)
            assert config == chosen["gradients"] == chosen["input_gradient"], shape


# A GPU that the planner's model describes


def rows_of(true: Constants, sharing: float = 1.0) -> list[Row]:
    """What part tiles would measure there; adding up the sums of a launch takes 3 µs."""
    cases = [
        (8, 1024, 16, 16), (8, 128, 64, 64), (4, 64, 128, 128), (1, 512, 32, 32),
        (1, 32, 256, 256), (32, 512, 28, 28), (64, 256, 64, 64), (1, 64, 32, 32), (1, 512, 28, 28),
    ]  # fmt: skip
    rows: list[Row] = []
    for shape, precision in itertools.product(cases, ("bfloat16", "float32")):
        stages = {name: stage_of(name, shape=shape, precision=precision) for name in STAGES}
        launches = {name: planner.plan(stage, stage.constants) for name, stage in stages.items()}
        both = [launches[name].config for name in fit.GRADIENTS]
        for config in CONFIGS:
            forced = {
                name: planner.plan(stage, stage.constants, config) for name, stage in stages.items()
            }
            us = {
                name: 1e-6 * stage.time(config, forced[name].splits, true)
                for name, stage in stages.items()
            }
            us["gradients"] = sharing * sum(us[name] for name in fit.GRADIENTS)
            for name, value in us.items():
                chosen = launches[name].config if name in launches else None
                if name == "gradients" and both[0] == both[1]:
                    chosen = both[0]
                rows.append({
                    "what": "tile", "case": str(shape), "precision": precision, "shape": [*shape],
                    "kernel_dim": 1, "stage": name, "config": config, "us": value,
                    "splits": forced[name].splits if name == "weight_gradient" else 1,
                    "hopper": False,
                    "sums_us": 3.0 if name in ("weight_gradient", "gradients") else 0,
                    "chosen": chosen,
                })  # fmt: skip
    return rows


def test_choices_that_lose() -> None:
    rows = rows_of(Constants((1.0, 1.2, 1.2), 4))
    alone, shared = fit.measured(rows, 132)
    assert len(alone) == 9 * 2 * 3 and len(shared) == 9 * 2
    assert len(fit.measured(rows[:-1], 132)[1]) == 17  # of one, not all was measured
    one = alone[0]
    assert one.loss(one.best) == 1 and one.loss(one.chosen) > 1
    assert one.us == {row["config"]: row["us"] for row in rows if row["stage"] == "forward"
                      and row["case"] == one.case and row["precision"] == "bfloat16"}  # fmt: skip


def test_adding_up_splits_counts_with_the_gradient() -> None:
    rows = rows_of(CONSTANTS["sm80"])
    rows[2]["sums_us"] = 10.0  # weight_gradient, tiles 0
    alone, shared = fit.measured(rows, 132)
    assert rows[2]["stage"] == "weight_gradient"
    assert alone[2].us[0] == rows[2]["us"] + 7 and shared[0].us[0] == rows[3]["us"]
    assert shared[0].apart == sum(one.us[one.chosen] for one in alone[1:3])


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("true", [Constants((1.0, 1.1, 1.1), 12), Constants((1.0, 0.7, 0.5), 1)])
def test_the_fit_finds_what_explains_the_times(name: str, true: Constants) -> None:
    alone, _ = fit.measured(rows_of(true), 132)
    found = fit.fit([one for one in alone if one.stage.name == name])
    assert found.constants == true
    assert found.error == pytest.approx(0, abs=1e-9) and found.fitted < 1.01
    made = [one.loss(one.chosen) for one in alone if one.stage.name == name]
    assert found.made == pytest.approx(sum(made) / len(made))


def test_choices_matter_more_than_times() -> None:
    """Of a GPU where wrong tiles take half as long again, whatever their size."""
    true = Constants((1.0, 1.2, 1.2), 4)
    alone, _ = fit.measured(rows_of(true), 132)
    problems = [
        replace(one, us={config: 1.0 + 0.5 * (config != one.best) for config in CONFIGS})
        for one in alone
    ]
    found = fit.fit(problems)
    assert found.fitted < 1.02 < found.made and found.error > 0.1


def test_the_fit_is_of_the_path_that_was_launched() -> None:
    """Where rows are of Hopper's kernels, exact float32 isn't, nor is TF32 of the sub-kernels."""
    rows = [row | {"hopper": True} for row in rows_of(CONSTANTS["sm80"])]
    alone, _ = fit.measured(rows, 132)
    paths = {one.stage.precision: one.stage.path for one in alone if one.stage.shape[1] >= 64}
    assert paths == {"bfloat16": "sm90", "float32": "sm80"}
    assert all(one.stage.path == "sm80" for one in alone if one.stage.shape[1] < 64)
    tf32 = {name: stage_of(name, precision="tf32", shape=(8, 1024, 16, 16), hopper=True)
            for name in STAGES}  # fmt: skip
    assert [stage.path for stage in tf32.values()] == ["sm90", "sm90", "sm80"]
    assert tiles._choices(tf32)["gradients"] is None


@pytest.mark.parametrize(("sharing", "share"), [(0.8, True), (1.4, False)])
def test_the_cost_of_sharing(sharing: float, share: bool) -> None:
    _, shared = fit.measured(rows_of(CONSTANTS["sm80"], sharing), 132)
    found = fit.fit_sharing(shared)
    assert found.ratio == pytest.approx(sharing)
    assert found.fitted == pytest.approx(1, abs=0.01) and found.made > 1.01
    assert (found.cost < 1) == share and (found.never > 1.1) == share
