"""What a run leaves behind: tables on the terminal, a CSV file, a plot."""

from __future__ import annotations

import csv
import math
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import torch

from .cases import Case


@dataclass(frozen=True)
class Environment:
    """Where and with what a run was made; columns of every CSV row."""

    device: str
    torch_version: str
    threads: int
    tf32: bool
    commit: str
    dirty: bool

    @classmethod
    def here(cls, device: torch.device, tf32: bool) -> Environment:
        commit = _git("rev-parse", "HEAD") or "unknown"
        return cls(
            torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
            torch.__version__,
            torch.get_num_threads(),
            tf32,
            commit,
            bool(_git("status", "--porcelain")),
        )

    def __str__(self) -> str:
        return (
            f"{self.device} · torch {self.torch_version} · {self.threads} threads · "
            f"TF32 {'on' if self.tf32 else 'off'} · "
            f"commit {self.commit[:12]}{' + changes' if self.dirty else ''}"
        )


@dataclass(frozen=True)
class Row:
    """One rival on one case, in one mode and layout."""

    suite: str
    case: Case
    dtype: str
    layout: str
    mode: str
    rival: str
    rounds: int
    p20_ms: float
    p50_ms: float
    p80_ms: float
    saved_bytes: int | None  # training only
    peak_bytes: int
    error: float  # largest relative error against float64


def percentiles(times: Sequence[float]) -> tuple[float, float, float]:
    """p20, p50 and p80, in the unit of ``times``."""
    fifths = statistics.quantiles(times, n=5, method="inclusive")
    return fifths[0], statistics.median(times), fifths[3]


def measured(rows: Sequence[Row]) -> str:
    """The rows of one case, mode and layout as a table."""
    head = rows[0]
    title = f"{head.case} · {head.dtype} · {head.layout} · {head.mode} · {head.rounds} rounds"
    body = [
        [
            row.rival,
            f"{row.p50_ms:.3f}",
            f"{row.p20_ms:.3f}",
            f"{row.p80_ms:.3f}",
            "" if row.saved_bytes is None else f"{row.saved_bytes / 2**20:.3f}",
            f"{row.peak_bytes / 2**20:.3f}",
            f"{row.error:.1e}",
        ]
        for row in rows
    ]
    columns = ["rival", "median ms", "p20", "p80", "saved MiB", "peak MiB", "error"]
    return f"{title}\n{as_table([columns, *body])}\n"


@dataclass(frozen=True)
class Ratio:
    """One rival's value over another's."""

    over: str
    under: str
    field: str = "p50_ms"

    @property
    def title(self) -> str:
        kind = {"p50_ms": "", "saved_bytes": "saved: ", "peak_bytes": "peak: "}[self.field]
        return f"{kind}{self.over} / {self.under}"

    def of(self, rows: dict[str, Row]) -> float | None:
        """The ratio, or None where a rival did not run or nothing was saved."""
        if self.over not in rows or self.under not in rows:
            return None
        over, under = (getattr(rows[name], self.field) for name in (self.over, self.under))
        return over / under if over and under else None

    def worst(self, values: Sequence[float | None]) -> int:
        """Where the worst for us is: the highest where we are on top, else the lowest."""
        known = [(value, index) for index, value in enumerate(values) if value is not None]
        return (max if self.over == "ours" else min)(known)[1]


BETTER_EXPERT = "better expert"  # the expert in the layout that suits it better
RATIOS = (
    Ratio("ours", "conv only"),
    Ratio("reference", "ours"),
    Ratio("compile", "ours"),
    Ratio("expert", "ours"),
    Ratio(BETTER_EXPERT, "ours"),
    Ratio("ours", "ours float32"),
    Ratio("ours", "reference", "saved_bytes"),
    Ratio("ours", "reference", "peak_bytes"),
)


def summary(rows: Sequence[Row]) -> str:
    """Ratios per case and layout, their geometric mean and the worst, per suite, dtype, mode."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.suite, row.dtype, row.mode), []).append(row)
    return "\n".join(f"{' · '.join(key)}\n{_ratios(group)}\n" for key, group in groups.items())


def _ratios(rows: Sequence[Row]) -> str:
    runs: dict[tuple[Case, str], dict[str, Row]] = {}
    for row in rows:
        runs.setdefault((row.case, row.layout), {})[row.rival] = row
    for (case, _), run in runs.items():
        experts = [row for row in rows if row.case == case and row.rival == "expert"]
        if len(experts) > 1:
            run[BETTER_EXPERT] = min(experts, key=lambda row: row.p50_ms)
    columns = [(ratio, [ratio.of(run) for run in runs.values()]) for ratio in RATIOS]
    columns = [(ratio, values) for ratio, values in columns if any(v is not None for v in values)]
    table = [["", *(ratio.title for ratio, _ in columns)]]
    for index, (case, layout) in enumerate(runs):
        table.append([f"{case} {layout}", *(_number(values[index]) for _, values in columns)])
    known = [[value for value in values if value is not None] for _, values in columns]
    means = (math.exp(statistics.fmean(map(math.log, values))) for values in known)
    table.append(["geometric mean", *map(_number, means)])
    worst = [ratio.worst(values) for ratio, values in columns]
    table.append(["worst", *(_number(columns[i][1][index]) for i, index in enumerate(worst))])
    lines = [as_table(table)]
    for (ratio, _), index in zip(columns, worst, strict=True):
        case, layout = list(runs)[index]
        lines.append(f"  worst {ratio.title}: {case} {layout}")
    return "\n".join(lines)


def write_csv(path: Path, environment: Environment, rows: Sequence[Row]) -> None:
    """One line per row; the case and the environment as columns of their own."""
    records = [asdict(row) | asdict(environment) for row in rows]
    lines = [record.pop("case") | record for record in records]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def load_pyplot() -> ModuleType:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install 'sspcab_cuda[bench]'") from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def write_plot(path: Path, environment: Environment, rows: Sequence[Row]) -> None:
    """Medians with p20 to p80: a panel per suite, dtype, mode and layout; a line per rival."""
    pyplot = load_pyplot()
    panels: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row.suite, row.dtype, row.mode, row.layout), []).append(row)
    columns = min(len(panels), 4)
    figure, axes = pyplot.subplots(
        math.ceil(len(panels) / columns),
        columns,
        figsize=(4.5 * columns, 4 * math.ceil(len(panels) / columns)),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (key, panel) in zip(axes.flat, panels.items(), strict=False):
        for rival in dict.fromkeys(row.rival for row in panel):
            line = [row for row in panel if row.rival == rival]
            below = [row.p50_ms - row.p20_ms for row in line]
            above = [row.p80_ms - row.p50_ms for row in line]
            cases, medians = [str(row.case) for row in line], [row.p50_ms for row in line]
            ax.errorbar(cases, medians, (below, above), marker="o", capsize=2, label=rival)
        ax.set(title=" · ".join(key), ylabel="ms per call", yscale="log")
        ax.tick_params(axis="x", labelrotation=60, labelsize="x-small")
        ax.legend(fontsize="x-small")
    figure.suptitle(str(environment), fontsize="small")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text with the first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]))
    return "\n".join(f"  {line}" for line in lines)


def _git(*arguments: str) -> str:
    """Output of git in this folder; empty where there is no git or no repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else platform.machine()} ({capability})"
