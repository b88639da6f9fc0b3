"""Part suite: the CUDA tests, in parallel processes where pytest-xdist is there.

pytest loads this file as a plugin; failures are written down as they come.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .device import cuda_of
from .parts import Row, Skip, Stopped, Task

ROOT = Path(__file__).parents[2]
REPORT = "SSPCAB_TEST_REPORT"  # names the file that the plugin writes
PROCESSES = 8  # each has a context on the GPU, of about half a GB
QUICK = "test_exact_sums"


def measure(task: Task) -> Iterator[Row]:
    cuda_of(task)
    if find_spec("pytest") is None:
        raise Skip("pytest isn't installed")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "benchmarks.gpu.suite",
               "-p", "no:cacheprovider", "--continue-on-collection-errors", "tests"]  # fmt: skip
    if task.quick:
        command += ["-k", QUICK]
    elif find_spec("xdist") is not None:
        command += ["-n", str(min(PROCESSES, os.cpu_count() or 1))]
    file = task.output / "suite.report"
    file.write_text("")
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {REPORT: str(file)}) as process:
        counts: Row = {"what": "counts"}
        position = 0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            text = file.read_text()
            complete = text[position : text.rfind("\n") + 1]
            position += len(complete)
            for row in map(json.loads, complete.splitlines()):
                if row["what"] == "counts":
                    counts = row
                else:
                    yield row
            if process.returncode is not None or task.left() < 3:
                break
        if process.returncode is None:
            process.kill()
    file.unlink()
    yield counts | {"finished": process.returncode in (0, 1)}
    if process.returncode == -9:
        raise Stopped
    if process.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with exit status {process.returncode}")


# The plugin, in the process that pytest starts.

_counts: Counter[str] = Counter()


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        _counts[report.outcome] += 1
        if report.outcome == "failed":
            _write({"what": "failure", "test": report.nodeid, "text": report.longreprtext})
        if sum(_counts.values()) % 50 == 0:
            _write({"what": "counts", **_counts})


def pytest_collectreport(report: Any) -> None:
    if report.outcome == "failed":
        _counts["errors"] += 1
        _write({"what": "failure", "test": report.nodeid, "text": report.longreprtext})


def pytest_sessionfinish() -> None:
    _write({"what": "counts", **_counts})


def _write(row: Row) -> None:
    if REPORT in os.environ and "PYTEST_XDIST_WORKER" not in os.environ:
        with open(os.environ[REPORT], "a") as file:
            file.write(json.dumps(row) + "\n")
