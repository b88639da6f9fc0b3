"""What the project wants to hold on an H100, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..kernel_report import stage_of
from .records import Parts, geometric_mean, ratios, rows


@dataclass(frozen=True)
class Bar:
    """What is measured, the bar in words, the value if there is one, and whether it holds."""

    what: str
    bar: str
    value: float | None
    holds: Callable[[float], bool]
    finished: bool = True

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        said = [] if self.holds(self.value) else ["**missed**"]
        return ", ".join(said if self.finished else [*said, "not finished"])


def bars(parts: Parts) -> list[Bar]:
    failures = rows(parts, "suite", "failure")
    counts = rows(parts, "suite", "counts")  # none: its process was killed
    wrong = float(len(failures)) if failures or counts else None
    all_tests = any(row["finished"] for row in counts)
    sanitizer = rows(parts, "sanitizer", "sanitizer")
    bits = rows(parts, "bits", "bits")
    main = {"suite": "main", "compiled": ""}
    compiled = ratios(parts, "expert compiled", suite="main")
    single = [
        row["p50_us"]
        for row in rows(parts, "times", "time")
        if row["case"].startswith("1x64x32x32") and row["mode"] == "inference"
        and row["rival"] == "ours graph"
    ]  # fmt: skip
    seconds = sum(entry["seconds"] for entry in parts.values())

    def none(value: float) -> bool:
        return value == 0

    def at_least(bar: float) -> Callable[[float], bool]:
        return lambda value: value >= bar

    def at_most(bar: float) -> Callable[[float], bool]:
        return lambda value: value <= bar

    findings = sum(row["findings"] != 0 for row in sanitizer) if sanitizer else None
    different = sum(row["different"] + (not row["graph_equal"]) for row in bits) if bits else None
    all_tools = all(row["finished"] for row in sanitizer) and _done(parts, "sanitizer")
    return [
        Bar("CUDA tests that fail", "0", wrong, none, all_tests),
        Bar("sanitizer runs with findings", "0", findings, none, all_tools),
        Bar("steps of other bits", "0", different, none, _done(parts, "bits")),
        *(
            Bar(
                f"reference / ours, main, {name}, {mode}",
                f"≥ {bar}",
                _mean(ratios(parts, "reference", precision=name, mode=mode, **main)),
                at_least(bar),
            )
            for name, bar in (("tf32", 3), ("bfloat16", 4))
            for mode in ("training", "inference")
        ),
        Bar("expert compiled / ours, main", "≥ 1.2", _mean(compiled), at_least(1.2)),
        Bar("the same, worst", "≥ 0.95", min(compiled.values(), default=None), at_least(0.95)),
        Bar("A at (64,256,64,64), bfloat16: share of the matrix product's rate", "≥ 0.55",
            _share_of_ceiling(parts, "64x256x64x64", ["forward"], "arithmetic"), at_least(0.55)),
        Bar("passes over images at (32,64,256,256): share of the copy's rate", "≥ 0.85",
            _share_of_ceiling(parts, "32x64x256x256",
                              ["scale", "gate_gradient", "activation_gradient"], "memory"),
            at_least(0.85)),
        Bar("(1,64,32,32), inference, graph, µs", "≤ 15", max(single, default=None), at_most(15)),
        Bar("the whole command, minutes", "≤ 10", seconds / 60, at_most(10)),
    ]  # fmt: skip


def _mean(ratios: dict[str, float]) -> float | None:
    return geometric_mean([*ratios.values()]) if ratios else None


def _done(parts: Parts, part: str) -> bool:
    return bool(parts.get(part, {}).get("status") == "done")


def _share_of_ceiling(parts: Parts, case: str, kernels: Sequence[str], key: str) -> float | None:
    """The least share of its floor's rate that a kernel reaches."""
    found = [
        row["floor_us"] / row["us"]
        for row in rows(parts, "stages", "kernel")
        if row["case"].startswith(case) and row["precision"] == "bfloat16"
        and stage_of(row["kernel"]) in kernels and row.get("limit") == key
    ]  # fmt: skip
    return min(found, default=None)
