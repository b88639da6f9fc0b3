"""report.md and plots of a folder of results, from results.json alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..report import load_pyplot
from .bars import bars
from .fit import TOLERATED, Measured, Shared, fit, fit_sharing, measured
from .planner import plan
from .records import Parts, geometric_mean, ratios, rows


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
    sections = (_heading, _parts, _bars, _speed_ups, _stages, _tiles, _failures)
    return "\n\n".join(text for section in sections if (text := section(parts))) + "\n"


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
                found = ratios(parts, rival, precision=precision, mode=mode)
                if rival != "ours" and found:
                    worst = min(found, key=lambda key: found[key])
                    body.append([rival, precision, mode, len(found),
                                 f"{geometric_mean([*found.values()]):.2f}",
                                 f"{found[worst]:.2f}", worst])  # fmt: skip
    if not body:
        return ""
    head = ["rival", "precision", "mode", "problems", "its time / ours", "worst", "at"]
    return (
        "## Speed-ups\n\nGeometric means over problems. All rivals but ours had "
        "`torch.backends.cudnn.benchmark` on, from their first call; ours doesn't call cuDNN.\n\n"
        + table(head, body)
    )


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
    processors = next((row.get("processors") for row in rows(parts, "machine", "machine")), None)
    if not processors:
        return ""
    problems, shared = measured(rows(parts, "tiles", "tile"), processors)
    if not problems:
        return ""
    slow = [one for one in problems if one.loss(one.chosen) > TOLERATED]
    text = f"## Tiles\n\n{len(slow)} of {len(problems)} choices are over 5 % slower than the best."
    if slow:
        body = [
            [one.case, one.stage.precision, one.stage.name, one.chosen, one.best,
             f"{one.loss(one.chosen):.2f}"]
            for one in sorted(slow, key=lambda one: -one.loss(one.chosen))
        ]  # fmt: skip
        head = ["problem", "precision", "stage", "chosen", "best", "chosen / best"]
        text += "\n\n" + table(head, body)
    sections = [text, _constants(problems), _sharing(shared)]
    return "\n\n".join(section for section in sections if section)


def _constants(problems: Sequence[Measured]) -> str:
    body, splits = [], []
    groups: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for one in problems:
        groups[one.stage.path, one.stage.name].append(one)
    for one in problems:
        groups[one.stage.path, "all"].append(one)
    for (path, name), of_stage in groups.items():
        found = fit(of_stage)
        rates = ", ".join(map(str, found.constants.rates))
        body.append([path, name, rates, found.constants.overhead,
                     f"{found.made:.3f}", f"{found.fitted:.3f}", f"{found.error:.0%}"])  # fmt: skip
        if name == "weight_gradient":
            for one in of_stage:
                launch = plan(one.stage, found.constants)
                now = one.chosen, one.splits[one.chosen]
                if now != (launch.config, launch.splits):
                    splits.append([one.case, one.stage.precision, *now, launch.config,
                                   launch.splits])  # fmt: skip
    head = ["path", "stage", "rate", "overhead_steps", "made / best", "fitted / best", "error"]
    text = (
        "### Constants of the planner\n\nThose whose choices would lose least, and what choices "
        "lose on average: those that were made, those by these constants. *error*: of the times "
        "that they model.\n\n" + table(head, body)
    )
    if splits:
        head = ["problem", "precision", "tiles", "splits", "tiles, fitted", "splits, fitted"]
        text += "\n\nGradients of sub-kernels that would be launched otherwise:\n\n"
        text += table(head, splits)
    return text


def _sharing(shared: Sequence[Shared]) -> str:
    if not shared:
        return ""
    body = []
    for one in shared:
        best = min(one.us, key=lambda config: one.us[config])
        body.append([one.input.case, one.input.stage.precision,
                     "no" if one.chosen is None else one.chosen, best, f"{one.us[best]:.1f}",
                     f"{one.apart:.1f}", f"{one.loss(one.chosen):.2f}"])  # fmt: skip
    found = fit_sharing(shared)
    head = ["problem", "precision", "share tiles", "best tiles", "together, µs", "apart, µs",
            "chosen / best"]  # fmt: skip
    return (
        "### Gradients of x and of the sub-kernels\n\nTogether with the best tiles for that, and "
        "each alone with those chosen for it. A shared launch takes "
        f"{found.ratio:.2f} times what both take alone with the same tiles. Choices are "
        f"{found.made:.3f} times the best on average; without sharing they'd be "
        f"{found.never:.3f}, and {found.fitted:.3f} if launches were shared where "
        f"{found.cost:.2f} times the modelled times of both with the same tiles is at most those "
        "apart (1 is as now).\n\n" + table(head, body)
    )


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
