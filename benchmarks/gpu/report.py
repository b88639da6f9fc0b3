"""report.md and plots of a folder of results, from results.json alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..report import load_pyplot
from .fit import TOLERATED, fit, measured
from .parts import Row

Parts = dict[str, Any]


def write(parts: Parts, output: Path) -> None:
    """report.md, and plots where matplotlib is there."""
    (output / "report.md").write_text(markdown(parts))
    try:
        pyplot = load_pyplot()
    except ImportError:
        return
    for name, draw in (("times", _draw_times), ("roofline", _draw_roofline)):
        figure = draw(pyplot, parts)
        if figure is not None:
            figure.savefig(output / f"{name}.png", dpi=120)
            pyplot.close(figure)


def markdown(parts: Parts) -> str:
    sections = (_heading, _parts, _bars, _speed_ups, _stages, _tiles, _sharing, _failures)
    return "\n\n".join(text for section in sections if (text := section(parts))) + "\n"


def rows(parts: Parts, part: str, what: str) -> list[Row]:
    return [row for row in parts.get(part, {}).get("rows", []) if row["what"] == what]


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def table(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _heading(parts: Parts) -> str:
    machine = next(iter(rows(parts, "machine", "machine")), None)
    if machine is None:
        return "# A GPU"
    ceilings = [
        f"{row['of']} {row['rate'] / 1e12:.3g} T{row['unit']}"
        for row in rows(parts, "machine", "ceiling")
    ]
    launches = [f"{row['how']} {row['us']:.2f} µs" for row in rows(parts, "machine", "launch")]
    facts = f"torch {machine['torch']}, CUDA {machine['cuda']}"
    smi = next((row["text"] for row in rows(parts, "machine", "nvidia-smi")), "")
    return (
        f"# {machine['gpu']}\n\n{facts}. Driver, clocks, power limit and temperature as found: "
        f"{smi}.\n\nMeasured here: {', '.join(ceilings)}; a launch: {', '.join(launches) or '-'}."
    )


def _parts(parts: Parts) -> str:
    body = [
        [name, entry["status"], f"{entry['seconds']:.0f} s", len(entry["rows"]), entry["reason"]]
        for name, entry in parts.items()
    ]
    return table(["part", "status", "time", "rows", ""], body)


# The bars.


def _ratios(parts: Parts, over: str, **where: object) -> dict[str, float]:
    """A rival's time over ours, by problem, in the same run."""
    groups: dict[tuple[object, ...], dict[str, float]] = defaultdict(dict)
    for row in rows(parts, "times", "time"):
        if all(row[key] == value for key, value in where.items()):
            keys = ("suite", "case", "precision", "layout", "mode", "compiled")
            groups[tuple(row[key] for key in keys)][row["rival"]] = row["p50_us"]
    return {
        " ".join(map(str, key[1:5])): group[over] / group["ours"]
        for key, group in groups.items()
        if over in group and "ours" in group
    }


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
        and row["kernel"].split()[0] in kernels and row.get("limit") == key
    ]  # fmt: skip
    return min(found, default=None)


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
    compiled = _ratios(parts, "expert compiled", suite="main")
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
                _mean(_ratios(parts, "reference", precision=name, mode=mode, **main)),
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


def _bars(parts: Parts) -> str:
    body = [
        [bar.what, bar.bar, "" if bar.value is None else f"{bar.value:.3g}", bar.verdict]
        for bar in bars(parts)
    ]
    return "## Bars\n\n" + table(["measure", "bar", "measured", ""], body)


# Tables.


def _speed_ups(parts: Parts) -> str:
    body = []
    times = rows(parts, "times", "time")
    for rival in dict.fromkeys(row["rival"] for row in times):
        for precision in dict.fromkeys(row["precision"] for row in times):
            for mode in ("inference", "training"):
                found = _ratios(parts, rival, precision=precision, mode=mode)
                if rival != "ours" and found:
                    worst = min(found, key=lambda key: found[key])
                    body.append([rival, precision, mode, len(found),
                                 f"{geometric_mean([*found.values()]):.2f}",
                                 f"{found[worst]:.2f}", worst])  # fmt: skip
    if not body:
        return ""
    head = ["rival", "precision", "mode", "problems", "its time / ours", "worst", "at"]
    return "## Speed-ups\n\nGeometric means over problems.\n\n" + table(head, body)


def _stages(parts: Parts) -> str:
    body = [
        [row["case"], row["precision"], row["kernel"], f"{row['us']:.1f}", row.get("limit", ""),
         f"{row['floor_us'] / row['us']:.2f}" if "floor_us" in row else "",
         f"{row['modelled_us'] / row['us']:.2f}" if row.get("modelled_us") else ""]
        for row in rows(parts, "stages", "kernel")
    ]  # fmt: skip
    if not body:
        return ""
    head = ["problem", "precision", "kernel", "µs", "limit", "floor / measured",
            "modelled / measured"]  # fmt: skip
    return (
        "## Stages of a training step\n\nThe L2 cache is emptied before each step; a kernel finds "
        "in it what those before it have left.\n\n" + table(head, body)
    )


def _tiles(parts: Parts) -> str:
    problems = measured(rows(parts, "tiles", "tile"))
    if not problems:
        return ""
    slow = sorted((one for one in problems if one.loss > TOLERATED), key=lambda one: -one.loss)
    text = f"## Tiles\n\n{len(slow)} of {len(problems)} choices are over 5 % slower than the best."
    if slow:
        body = [[one.case, one.precision, one.stage, one.best, f"{one.loss:.2f}"] for one in slow]
        head = ["problem", "precision", "stage", "best", "chosen / best"]
        text += "\n\n" + table(head, body)
    processors = next((row.get("processors") for row in rows(parts, "machine", "machine")), None)
    if processors:
        constants, loss = fit(problems, processors)
        text += (
            f"\n\nConstants that would have chosen best: kRate {constants.rates}, kOverheadSteps "
            f"{constants.overhead}; choices would then be {loss:.3f} times the best on average."
        )
    return text


def _sharing(parts: Parts) -> str:
    groups: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in rows(parts, "tiles", "sharing"):
        groups[row["case"], row["precision"]][row["wanted"]] = row
    body = []
    for key, group in groups.items():
        if len(group) == 3:
            apart = group["x"]["us"] + group["sub-kernels"]["us"]
            shared = "yes" if group["both"]["shared"] else "no"
            body.append([*key, shared, f"{group['both']['us']:.1f}", f"{apart:.1f}"])
    if not body:
        return ""
    head = ["problem", "precision", "share a launch", "together, µs", "each alone, sum, µs"]
    return "## Gradients of x and of the sub-kernels\n\n" + table(head, body)


def _failures(parts: Parts) -> str:
    texts = [
        f"### {row['test']}\n\n```\n{row['text']}\n```" for row in rows(parts, "suite", "failure")
    ]
    texts += [f"- {row['case']} {row['precision']} {row['layout']}: {row['text']}"
              for row in rows(parts, "times", "wrong")]  # fmt: skip
    texts += [f"### {row['tool']}\n\n```\n{row['text']}\n```"
              for row in rows(parts, "sanitizer", "sanitizer") if row["findings"] != 0]  # fmt: skip
    return "## Failures\n\n" + "\n\n".join(texts) if texts else ""


# Plots.


def _draw_times(pyplot: Any, parts: Parts) -> Any:
    """Median time against elements of the image, channels_last, a line for each rival."""
    times = [r for r in rows(parts, "times", "time") if r["layout"] == "channels_last"]
    panels = list(dict.fromkeys((row["precision"], row["mode"]) for row in times))
    if not panels:
        return None
    figure, axes = pyplot.subplots(-(-len(panels) // 2), 2, squeeze=False, figsize=(12, 9))
    for axis, (precision, mode) in zip(axes.flat, panels, strict=False):
        lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in times:
            if (row["precision"], row["mode"]) == (precision, mode):
                lines[row["rival"]].append((row["elements"], row["p50_us"]))
        for rival, points in lines.items():
            axis.loglog(*zip(*sorted(points), strict=True), marker=".", label=rival)
        axis.set(title=f"{precision}, {mode}", xlabel="elements of x", ylabel="µs")
    axes.flat[0].legend(fontsize="small")
    figure.tight_layout()
    return figure


def _draw_roofline(pyplot: Any, parts: Parts) -> Any:
    """FLOP/s of each stage against its FLOP per byte, under the ceilings."""
    kernels = [row for row in rows(parts, "stages", "kernel") if row.get("flops")]
    ceilings = {row["of"]: row["rate"] for row in rows(parts, "machine", "ceiling")}
    if not kernels or "copy" not in ceilings:
        return None
    figure, axis = pyplot.subplots(figsize=(9, 6))
    intensities = [2.0**power for power in range(14)]
    for precision in dict.fromkeys(row["precision"] for row in kernels):
        roof = [min(ceilings[precision], i * ceilings["copy"]) / 1e12 for i in intensities]
        (line,) = axis.loglog(intensities, roof, label=f"{precision}, ceiling")
        mine = [row for row in kernels if row["precision"] == precision]
        axis.loglog(
            [row["flops"] / row["bytes"] for row in mine],
            [row["flops"] / row["us"] / 1e6 for row in mine],
            linestyle="", marker="o", color=line.get_color(), label=f"{precision}, stages",
        )  # fmt: skip
    axis.set(xlabel="FLOP per byte", ylabel="TFLOP/s")
    axis.legend()
    figure.tight_layout()
    return figure
