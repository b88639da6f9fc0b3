"""What the run consists of, in order of value, and what a part is given and gives.

A part is a module with ``measure(task)``, which yields rows of plain values: each is written down
at once, so that a part that is cut short keeps what it had.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# Shares of the time that is left; what a part doesn't use goes to those after it. Guessed: no GPU
# has run them yet.
SHARES = {
    "machine": 6,
    "build": 40,
    "suite": 12,
    "compile": 6,
    "times": 18,
    "stages": 3,
    "tiles": 6,
    "sanitizer": 6,
    "bits": 3,
}


class Skip(Exception):
    """The part can't run here; the text says why."""


class Stopped(Exception):
    """The part's time was up before it was through."""


@dataclass(frozen=True)
class Task:
    """What a part is given.

    quick: tiny problems, on the CPU where there is no GPU, to test the logic.
    seconds: until the part is stopped; what matters less should come later.
    results: of the parts before it, as in results.json.
    """

    output: Path
    quick: bool = False
    seconds: float = 600
    results: Mapping[str, Any] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.start)

    def rows(self, part: str) -> Sequence[Row]:
        rows: Sequence[Row] = self.results.get(part, {}).get("rows", [])
        return rows

    def ceilings(self) -> dict[str, float]:
        """Rates of part machine: FLOP/s by precision, bytes/s of the copy."""
        return {r["of"]: r["rate"] for r in self.rows("machine") if r["what"] == "ceiling"}


def measure(part: str, task: Task) -> Iterator[Row]:
    rows: Iterator[Row] = import_module(f"benchmarks.gpu.{part}").measure(task)
    return rows


def limits(parts: Sequence[str], seconds: float) -> float:
    """The limit of the first of these parts, in seconds: its share of what is left."""
    return seconds * SHARES[parts[0]] / sum(SHARES[part] for part in parts)
