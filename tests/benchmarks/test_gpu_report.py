"""What the command for real GPUs makes of its results: bars and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import bars, report, runner
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.parts import Row

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
        "tiles": part([
            {"what": "tile", "case": "one", "precision": "bfloat16", "shape": [8, 128, 64, 64],
             "kernel_dim": 1, "stage": stage, "config": config, "splits": 3, "chosen": 0,
             "hopper": False, "us": us, "sums_us": 0}
            for stage, figures in {
                "forward": (12, 10, 15), "input_gradient": (10, 14, 15),
                "weight_gradient": (11, 15, 16), "gradients": (24, 26, 28),
            }.items()
            for config, us in enumerate(figures)
        ]),
        "bits": part([{"what": "bits", "different": 0, "graph_equal": True}]),
    }  # fmt: skip


def test_bars() -> None:
    found: dict[str, Any] = {
        bar.what: (bar.value, bar.value is not None and bar.holds(bar.value))
        for bar in bars.bars(recorded())
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


def test_a_bar_holds_for_the_kernel_of_any_architecture() -> None:
    parts = recorded()
    (kernel,) = parts["stages"]["rows"]
    kernel |= {"kernel": "hopper_forward bfloat16 128x256", "floor_us": 60.0}
    assert 0.6 in [bar.value for bar in bars.bars(parts)]


def test_constants_are_fitted_for_each_path() -> None:
    parts = recorded()
    tiles = parts["tiles"]["rows"]
    parts["tiles"]["rows"] += [
        row | {"case": "two", "precision": "tf32", "hopper": True} for row in tiles
    ]
    text = report.markdown(parts)
    for path, stage in (("sm80", "forward"), ("sm80", "weight_gradient"), ("sm90", "forward")):
        assert f"| {path} | {stage} |" in text
    assert "| sm90 | weight_gradient |" not in text


def test_what_was_not_finished() -> None:
    """The suite was stopped, or its process killed; a tool of the sanitizer hung."""
    parts = recorded()
    suite = parts["suite"]["rows"]

    def verdict(what: str) -> tuple[float | None, str]:
        (bar,) = (bar for bar in bars.bars(parts) if bar.what == what)
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
        "| one | bfloat16 | forward | 0 | 1 | 1.20 |",
        "| one | bfloat16 | 0 | 0 | 24.0 | 21.0 | 1.14 |",
        "| path | stage | rate | overhead_steps |",
        "| sm80 | all |",
        "### tests/test_a.py::test_b",
    ):
        assert line in text
    assert "1 of 3 choices are over 5 % slower than the best" in text
    for name in ("times.png", "roofline.png"):
        assert (tmp_path / name).stat().st_size > 5000
