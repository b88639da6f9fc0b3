"""What results.json says: the rows of parts, and times as ratios."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from .parts import Row

Parts = dict[str, Any]


def rows(parts: Parts, part: str, what: str) -> list[Row]:
    return [row for row in parts.get(part, {}).get("rows", []) if row["what"] == what]


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def ratios(parts: Parts, over: str, **where: object) -> dict[str, float]:
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
