"""``python -m benchmarks``: verify every rival, then time it. See README.md in this folder."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from . import report
from .cases import SUITES, Case, dtypes_of
from .rivals import (
    Layout,
    Mode,
    Problem,
    Rival,
    WrongResultError,
    allow_tf32,
    grad_mode,
    rivals_of,
    verify,
)
from .timing import Clock, clock_for, interleave, peak_bytes, saved_bytes

DTYPES = ("float32", "float64", "bfloat16", "float16")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time the SSPCAB block against its rivals, interleaved in one run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--suite", nargs="+", choices=[*SUITES, "all"], default=["main"], help="what to time"
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="instead of the suite's own")
    parser.add_argument("--layout", choices=["both", *get_args(Layout)], default="both")
    parser.add_argument("--mode", choices=["both", *get_args(Mode)], default="both")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="with torch.compile of the reference; unset: in suite main alone",
    )
    parser.add_argument(
        "--tf32",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="allow TF32 in float32 convolutions on CUDA, as PyTorch does",
    )
    parser.add_argument("--threads", type=int, help="of the CPU; unset: PyTorch's choice")
    parser.add_argument(
        "--min-time", type=float, default=1.0, metavar="S", help="seconds per rival, on average"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every measurement here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a figure here")
    return parser.parse_args(argv)


def measure(
    suite: str,
    problem: Problem,
    modes: Sequence[Mode],
    clock: Clock,
    compiled: bool,
    min_time: float,
) -> Iterator[list[report.Row]]:
    """Verify and time all rivals on a problem; a list of rows for each mode."""
    rivals = rivals_of(problem, compiled)
    device = problem.x.device
    for mode in modes:
        errors = {rival.name: verify(rival, truth(mode), mode) for rival, truth in rivals.items()}
        calls = {rival.name: partial(rival.run, mode) for rival in rivals}
        with grad_mode(mode):
            saved = {rival.name: _saved_bytes(rival, mode) for rival in rivals}
            peaks = {name: peak_bytes(call, device) for name, call in calls.items()}
            measurements = interleave(calls, clock, min_time)
        rows = []
        for name, measurement in measurements.items():
            p20, p50, p80 = report.percentiles(measurement.times)
            rows.append(
                report.Row(
                    suite=suite,
                    case=problem.case,
                    dtype=str(problem.x.dtype).removeprefix("torch."),
                    layout=problem.layout,
                    mode=mode,
                    rival=name,
                    rounds=len(measurement.times),
                    p20_ms=1e3 * p20,
                    p50_ms=1e3 * p50,
                    p80_ms=1e3 * p80,
                    saved_bytes=saved[name],
                    peak_bytes=peaks[name],
                    error=errors[name],
                )
            )
        yield rows


def _saved_bytes(rival: Rival, mode: Mode) -> int | None:
    if mode == "inference":
        return None
    return saved_bytes(partial(rival.forward, mode), rival.parameters)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    device = torch.device(args.device)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler reports each of its starts
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    allow_tf32(args.tf32)
    layouts = get_args(Layout) if args.layout == "both" else (args.layout,)
    modes = get_args(Mode) if args.mode == "both" else (args.mode,)
    suites = list(SUITES) if "all" in args.suite else args.suite
    clock = clock_for(device)
    environment = report.Environment.here(device, args.tf32)
    print(environment, end="\n\n")
    rows: list[report.Row] = []
    for suite, dtype, case, layout in _plan(suites, args.dtype, layouts):
        problem = Problem.make(case, getattr(torch, dtype), device, layout)
        compiled = suite == "main" if args.compile is None else args.compile
        try:
            for measured in measure(suite, problem, modes, clock, compiled, args.min_time):
                print(report.measured(measured), flush=True)
                rows += measured
        except WrongResultError as error:
            print(f"{case} {dtype} {layout}: {error}", file=sys.stderr)
            return 1
        if args.csv:  # after every case, so that a run that is broken off leaves its rows
            report.write_csv(args.csv, environment, rows)
    print(report.summary(rows))
    if args.plot:
        report.write_plot(args.plot, environment, rows)
    return 0


def _plan(
    suites: Sequence[str], dtype: str | None, layouts: Sequence[Layout]
) -> Iterator[tuple[str, str, Case, Layout]]:
    for suite in suites:
        for name in (dtype,) if dtype else dtypes_of(suite):
            for case in SUITES[suite]:
                for layout in layouts:
                    yield suite, name, case, layout


if __name__ == "__main__":
    sys.exit(main())
