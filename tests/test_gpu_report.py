"""What the command for real GPUs makes of its results: choices of tiles, the fit, bars, tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sspcab_cuda
from benchmarks.gpu import fit, report, runner
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.parts import Row

HAS_PLAN = bool(sspcab_cuda.build_info()["cuda"])


# Choices of tiles


def tile_rows(us: dict[int, float], case: str = "one", **options: Any) -> list[Row]:
    row = {"what": "tile", "case": case, "precision": "bfloat16", "shape": [8, 128, 64, 64],
           "kernel_dim": 1, "stage": "forward"}  # fmt: skip
    return [row | options | {"config": config, "us": value} for config, value in us.items()]


def test_choices_that_lose() -> None:
    rows = tile_rows({-1: 12.0, 0: 12.0, 1: 10.0, 2: 15.0}) + tile_rows({-1: 5.0, 0: 5.0}, "two")
    (one,) = fit.measured(rows)  # of the other, not all were measured
    assert one.best == 1 and one.loss == 1.2


@pytest.mark.skipif(not HAS_PLAN, reason="this build has no CUDA part")
@pytest.mark.parametrize("precision", fit.TILES)
def test_the_model_is_the_planner_s(precision: str) -> None:
    dtype = "float32" if precision == "tf32" else precision
    for shape in ((8, 128, 64, 64), (1, 64, 32, 32), (64, 256, 64, 64), (3, 96, 17, 23)):
        for kernel_dim in (1, 3):
            for processors in (108, 132):
                plan = sspcab_cuda._extension._C.plan(
                    shape, dtype, kernel_dim, allow_tf32=precision == "tf32", processors=processors
                )
                one = fit.Measured("", precision, "forward", shape, kernel_dim, {})
                chosen = fit.choice(one, processors, fit.Constants())
                assert plan["forward"]["config"] == chosen, (shape, kernel_dim, processors)
                assert plan["forward"]["tile"] == fit.TILES[precision][chosen]


def test_the_fit_finds_what_explains_the_times() -> None:
    """Times of a GPU that likes small tiles: all choices are right then."""
    true = fit.Constants((1.0, 1.2, 1.2), 0)
    problems = []
    for n, c, h in ((1, 64, 32), (8, 128, 64), (2, 256, 24), (4, 64, 128), (1, 512, 28)):
        shape = (n, c, h, h)
        one = fit.Measured("", "bfloat16", "forward", shape, 1, {})
        best = fit.choice(one, 132, true)
        us = {config: 1.0 + 0.5 * (config != best) for config in range(3)}
        chosen = fit.choice(one, 132, fit.Constants())
        problems.append(fit.Measured("", "bfloat16", "forward", shape, 1, us | {-1: us[chosen]}))
    before = sum(one.loss for one in problems) / len(problems)
    constants, loss = fit.fit(problems, 132)
    assert before > 1.05 and loss == 1.0
    assert all(fit.choice(one, 132, constants) == one.best for one in problems)


# Tables


def recorded() -> report.Parts:
    """Invented figures, in the form in which a run leaves them."""

    def part(rows: list[Row], status: str = "done") -> dict[str, Any]:
        return {"status": status, "reason": "", "seconds": 30.0, "rows": rows}

    def times(case: str, precision: str, compiled: str, **us: float) -> list[Row]:
        return [
            {"what": "time", "suite": "main", "case": case, "elements": 1000, "mode": mode,
             "precision": precision, "layout": "channels_last", "compiled": compiled,
             "rival": rival.replace("_", " "), "p20_us": value, "p50_us": value, "p80_us": value,
             "error": 1e-3, "peak_bytes": 1}
            for rival, value in us.items() for mode in ("inference", "training")
        ]  # fmt: skip

    machine: list[Row] = [
        {"what": "machine", "gpu": "NVIDIA H100", "torch": "2.11", "cuda": "13.0",
         "processors": 132},
        {"what": "ceiling", "of": "copy", "rate": 2e12, "unit": "byte/s"},
        {"what": "ceiling", "of": "bfloat16", "rate": 8e14, "unit": "FLOP/s"},
    ]  # fmt: skip
    kernel: Row = {"what": "kernel", "case": "64x256x64x64 k'=1 d=1", "precision": "bfloat16",
                   "kernel": "forward bfloat16 128x128", "us": 100.0, "flops": 4e10, "bytes": 2e8,
                   "limit": "arithmetic", "floor_us": 50.0, "modelled_us": 80.0}  # fmt: skip
    return {
        "machine": part(machine),
        "suite": part([
            {"what": "failure", "test": "tests/test_a.py::test_b", "text": "1 is not 2"},
            {"what": "counts", "passed": 9, "failed": 1, "finished": True},
        ]),
        "times": part(
            times("a", "tf32", "", reference=40.0, ours=10.0)
            + times("b", "tf32", "", reference=90.0, ours=10.0)
            + times("a", "bfloat16", "expert", expert_compiled=9.0, ours=10.0)
        ),
        "stages": part([kernel]),
        "tiles": part(tile_rows({-1: 12.0, 0: 12.0, 1: 10.0, 2: 15.0}) + [
            {"what": "sharing", "case": "one", "precision": "tf32", "wanted": wanted, "us": us,
             "shared": wanted == "both"}
            for wanted, us in (("both", 20.0), ("x", 12.0), ("sub-kernels", 11.0))
        ]),
        "bits": part([{"what": "bits", "different": 0, "graph_equal": True}]),
    }  # fmt: skip


def test_bars() -> None:
    found: dict[str, Any] = {
        bar.what: (bar.value, bar.value is not None and bar.holds(bar.value))
        for bar in report.bars(recorded())
    }
    assert found["CUDA tests that fail"] == (1.0, False)
    assert found["steps of other bits"] == (0, True)
    assert found["sanitizer runs with findings"] == (None, False)
    assert found["reference / ours, main, tf32, training"] == (pytest.approx(6.0), True)
    assert found["reference / ours, main, bfloat16, training"] == (None, False)
    assert found["the same, worst"] == (pytest.approx(0.9), False)
    share = "A at (64,256,64,64), bfloat16: share of the matrix product's rate"
    assert found[share] == (0.5, False)
    assert found["the whole command, minutes"] == (3.0, True)


def test_what_was_not_finished() -> None:
    """The suite was stopped, or its process killed; a tool of the sanitizer hung."""
    parts = recorded()
    suite = parts["suite"]["rows"]

    def verdict(what: str) -> tuple[float | None, str]:
        (bar,) = (bar for bar in report.bars(parts) if bar.what == what)
        return bar.value, bar.verdict

    tests, tools = "CUDA tests that fail", "sanitizer runs with findings"
    assert verdict(tests) == (1, "**missed**")
    suite[-1]["finished"] = False
    assert verdict(tests) == (1, "**missed**, not finished")
    del suite[-1]
    assert verdict(tests) == (1, "**missed**, not finished")
    suite[:] = [{"what": "counts", "passed": 9, "finished": False}]
    assert verdict(tests) == (0, "not finished")
    suite.clear()
    assert verdict(tests) == (None, "not measured")
    tool = {"what": "sanitizer", "tool": "memcheck", "findings": 0, "finished": True, "text": ""}
    parts["sanitizer"] = {"status": "done", "reason": "", "seconds": 1, "rows": [tool]}
    assert verdict(tools) == (0, "")
    parts["sanitizer"]["rows"].append(tool | {"findings": None, "finished": False})
    assert verdict(tools) == (1, "**missed**, not finished")
    parts["bits"]["status"] = "stopped"
    assert verdict("steps of other bits") == (0, "not finished")


def test_the_report(tmp_path: Path) -> None:
    results = runner.Results(tmp_path)
    for name, entry in recorded().items():
        results.write(name, entry)
    assert main(["--report", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    for line in (
        "# NVIDIA H100",
        "| CUDA tests that fail | 0 | 1 | **missed** |",
        "| reference / ours, main, tf32, training | ≥ 3 | 6 |  |",
        "| sanitizer runs with findings | 0 |  | not measured |",
        "| reference | tf32 | training | 2 | 6.00 | 4.00 | a tf32 channels_last training |",
        "| one | bfloat16 | forward | 1 | 1.20 |",
        "| one | tf32 | yes | 20.0 | 23.0 |",
        "### tests/test_a.py::test_b",
    ):
        assert line in text
    assert "1 of 1 choices are over 5 % slower than the best" in text
    for name in ("times.png", "roofline.png"):
        assert (tmp_path / name).stat().st_size > 5000
