"""Runs the parts, each in a process of its own, and keeps what they gave.

A part may crash, hang or leave the GPU unusable for its process: the next one is not concerned.
This file and what it imports need neither torch nor the compiled extension.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .parts import SHARES, Row, Skip, Stopped, Task, limits, measure

SKIPPED, STOPPED = 3, 4  # exit status of a part's process
GRACE = 5.0  # seconds for what a part leaves behind


class Results:
    """results.json in a folder: machine-readable, written after every part."""

    def __init__(self, output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self.file = output / "results.json"
        self.parts: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def write(self, part: str, entry: dict[str, Any]) -> None:
        self.parts[part] = entry
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.parts, indent=1))
        new.replace(self.file)


def run_parts(
    parts: Sequence[str],
    output: Path,
    seconds: float,
    quick: bool,
    after: Callable[[Results], None],
    clock: Callable[[], float] = time.monotonic,
) -> Results:
    """Runs parts one after another.

    Args:
        seconds: for all of them; each gets its share of what is left.
        after: called with the results after every part.
    """
    results, start = Results(output), clock()
    for part in SHARES:  # of a run that was killed
        if rows_file(output, part).exists():
            _finish(results, part, "stopped", "the run was cut short", 0)
    for index, part in enumerate(parts):
        limit = max(1.0, limits(parts[index:], seconds - (clock() - start)))
        print(f"[{part}] at most {limit:.0f} s", flush=True)
        began = clock()
        status, reason = "stopped", "the run was cut short"
        try:
            status, reason = run_part(part, output, limit, quick)
        finally:
            took = round(clock() - began, 1)
            _finish(results, part, status, reason, took)
            print(f"[{part}] {status}{': ' + reason if reason else ''}, {took} s", flush=True)
            after(results)
    return results


def _finish(results: Results, part: str, status: str, reason: str, seconds: float) -> None:
    rows = take_rows(results.file.parent, part)
    entry = {"status": status, "reason": reason, "seconds": seconds, "rows": rows}
    results.write(part, entry)


def run_part(part: str, output: Path, limit: float, quick: bool) -> tuple[str, str]:
    """Status (done, skipped, failed, stopped) and reason of one part in its process."""
    command = command_of(part, output, limit, quick)
    with output.joinpath("run.log").open("ab") as log:
        log.write(f"\n== {part}\n".encode())
        log.flush()
        began = log.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(limit + GRACE)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and all that it has started
            process.wait()
    if code == 0:
        return "done", ""
    if code in (None, STOPPED):
        return "stopped", f"its time was up, after {limit:.0f} s"
    with output.joinpath("run.log").open("rb") as log:
        log.seek(began)
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if code == SKIPPED:
        return "skipped", last
    return "failed", f"exit status {code}: {last}"


def command_of(part: str, output: Path, limit: float, quick: bool) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--output", str(output)]
    return [*command, "--seconds", f"{limit:.1f}", *(["--quick"] if quick else [])]


def take_rows(output: Path, part: str) -> list[Row]:
    """The rows that a part has written so far; the last line may have been cut short."""
    file = rows_file(output, part)
    rows = []
    for line in file.read_text().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    file.unlink(missing_ok=True)
    return rows


def child(part: str, output: Path, seconds: float, quick: bool) -> int:
    """The process of a part: writes each row as soon as it is there. Returns the exit status."""
    task = Task(output, quick, seconds, Results(output).parts)
    try:
        with rows_file(output, part).open("w") as file:
            for row in measure(part, task):
                file.write(json.dumps(row) + "\n")
                file.flush()
                if task.left() < 0:
                    return STOPPED
    except Skip as reason:
        print(reason)
        return SKIPPED
    except Stopped:
        return STOPPED
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def rows_file(output: Path, part: str) -> Path:
    return output / f"{part}.rows"
