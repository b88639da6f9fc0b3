"""Tables of what was measured, alone and beside what was published."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .blocks import KINDS, Kind
from .published import FIGURES

CURVE_STEPS = 50  # over which the training curves of two blocks are compared


@dataclass(frozen=True)
class Result:
    """What one training gave."""

    data: str
    miniature: bool
    host: str
    category: str  # "" for videos
    block: Kind
    seed: int
    dtype: str
    metrics: dict[str, float]  # 0..1
    regions_from: str
    losses: list[list[float]]  # per step: L_F and the block's loss
    train_seconds: float
    evaluate_seconds: float
    environment: str


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(content) + "\n")
    os.replace(unfinished, path)


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """``results.json`` of a run."""
    write_json(folder / "results.json", [asdict(result) for result in results])


def read_results(folder: Path) -> list[Result]:
    """What :func:`write_results` wrote."""
    return [Result(**entry) for entry in json.loads((folder / "results.json").read_text())]


def summary(results: Sequence[Result]) -> str:
    """Everything that is printed after a run."""
    parts = [
        table(results),
        comparison_of_blocks(results),
        "published (Ristea et al., CVPR 2022) and measured, without → with the block:\n"
        + comparison_with_published(results),
    ]
    return "\n\n".join(filter(None, parts))


def mean_and_deviation(values: Sequence[float], scale: float = 100) -> str:
    """``87.3 ± 0.4``: the mean and the deviation of a sample; of one value the value alone."""
    mean = f"{scale * statistics.mean(values):.1f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {scale * statistics.stdev(values):.1f}"


def over_seeds(results: Sequence[Result], metric: str) -> list[float]:
    """One value a seed: the mean over its categories."""
    seeds = sorted({result.seed for result in results})
    return [
        statistics.mean(result.metrics[metric] for result in results if result.seed == seed)
        for seed in seeds
    ]


def table(results: Sequence[Result]) -> str:
    """Metrics in percent, mean ± standard deviation over seeds, and seconds, a row per block.

    With several categories their mean comes last.
    """
    head = results[0]
    categories: list[str | None] = list(dict.fromkeys(result.category for result in results))
    if len(categories) > 1:
        categories.append(None)  # all of them
    names = list(head.metrics)
    rows = [["", "block", *names, "train s", "evaluate s"]]
    for category in categories:
        for block in KINDS:
            chosen = [
                result for result in _of(results, block) if category in (None, result.category)
            ]
            if not chosen:
                continue
            label = "mean" if category is None else category or head.data
            seconds = (
                statistics.mean(result.train_seconds for result in chosen),
                statistics.mean(result.evaluate_seconds for result in chosen),
            )
            values = [mean_and_deviation(over_seeds(chosen, name)) for name in names]
            rows.append([label, block, *values, *(f"{value:.1f}" for value in seconds)])
    seeds = len({result.seed for result in results})
    lines = [
        f"{head.data}, {_where(head.miniature)} · {head.host} · {head.dtype} · {seeds} seeds",
        head.environment,
        *_aligned(rows),
    ]
    if head.regions_from:
        lines.append(f"true regions of RBDC and TBDC: {head.regions_from}")
    return "\n".join(lines)


def comparison_of_blocks(results: Sequence[Result]) -> str:
    """How the fused block and the reference differ: curves, metrics, time. "" without both.

    Only trainings that exist with both blocks count.
    """
    pairs = [
        (fused, other)
        for fused in _of(results, "fused")
        for other in _of(results, "reference")
        if (fused.category, fused.seed) == (other.category, other.seed)
    ]
    if not pairs:
        return ""
    curves = max(
        abs(ours - theirs)
        for fused, other in pairs
        for pair in zip(fused.losses[:CURVE_STEPS], other.losses[:CURVE_STEPS], strict=True)
        for ours, theirs in zip(*pair, strict=True)
    )
    steps = min(CURVE_STEPS, *(len(fused.losses) for fused, _ in pairs))
    metrics = max(
        abs(fused.metrics[name] - other.metrics[name])
        for fused, other in pairs
        for name in fused.metrics
    )
    train = sum(other.train_seconds for _, other in pairs) / sum(
        fused.train_seconds for fused, _ in pairs
    )
    whole = sum(other.train_seconds + other.evaluate_seconds for _, other in pairs) / sum(
        fused.train_seconds + fused.evaluate_seconds for fused, _ in pairs
    )
    return (
        f"fused and reference: losses of the first {steps} steps differ by at most {curves:.1e}, "
        f"metrics by at most {100 * metrics:.2f} points; the reference takes {train:.2f} times as "
        f"long to train, {whole:.2f} times with evaluation"
    )


def comparison_with_published(results: Sequence[Result]) -> str:
    """Every published figure beside what was measured with that host, in percent.

    "With the block" is the fused one where it was run, else the reference.
    """
    rows = [["data", "host", "metric", "published", "measured", "run on"]]
    for figure in FIGURES:
        published = f"{figure.without or '?'} → {figure.with_block}"
        row = [figure.data, figure.host, figure.metric, published]
        chosen = [r for r in results if (r.data, r.host) == (figure.data, figure.host)]
        if not chosen:
            rows.append([*row, "", "not run"])
        for miniature in sorted({result.miniature for result in chosen}):
            there = [result for result in chosen if result.miniature == miniature]
            measured = " → ".join(
                mean_and_deviation(over_seeds(part, figure.metric)) if part else "?"
                for part in (_of(there, "none"), _of(there, "fused") or _of(there, "reference"))
            )
            rows.append([*row, measured, _where(miniature)])
    return "\n".join(_aligned(rows))


def _of(results: Sequence[Result], block: Kind) -> list[Result]:
    return [result for result in results if result.block == block]


def _where(miniature: bool) -> str:
    return "a miniature" if miniature else "the real data"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
