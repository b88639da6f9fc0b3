"""The command for real GPUs, without one: limits, resumption, missing tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import (
    parts,
    report,
    runner,
)
from benchmarks.gpu.parts import Row, Skip, Stopped, Task

ROOT = Path(__file__).resolve().parents[2]


def test_limits_share_what_is_left() -> None:
    names = [*parts.SHARES]
    assert sum(parts.SHARES.values()) == 100
    assert parts.limits(names, 100) == parts.SHARES[names[0]]
    assert parts.limits(names[-1:], 7) == 7


# The processes of parts


def script(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """In the place of a part's process; `rows` is its file."""

    def command(part: str, output: Path, limit: float, quick: bool) -> list[str]:
        rows = str(runner.rows_file(output, part))
        return [sys.executable, "-c", f"rows = open({rows!r}, 'a')\n{textwrap.dedent(code)}"]

    monkeypatch.setattr(runner, "command_of", command)


def ran(output: Path, part: str = "bits", seconds: float = 60) -> dict[str, Any]:
    results = runner.run_parts([part], output, seconds, True, lambda results: None)
    assert json.loads((output / "results.json").read_text()) == results.parts
    entry: dict[str, Any] = results.parts[part]
    return entry


def test_a_part_that_crashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script(monkeypatch, """
        import os, signal
        print('{"a": 1}', file=rows, flush=True)
        print("about to crash", flush=True)
        os.kill(os.getpid(), signal.SIGABRT)
    """)  # fmt: skip
    entry = ran(tmp_path)
    assert (entry["status"], entry["reason"]) == ("failed", "exit status -6: about to crash")
    assert entry["rows"] == [{"a": 1}]


def test_a_part_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is killed with all that it has started, and keeps its complete rows."""
    monkeypatch.setattr(runner, "GRACE", 0.0)
    script(monkeypatch, f"""
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-c",
                          "import time; time.sleep(4); open({str(tmp_path / 'late')!r}, 'w')"])
        print('{{"a": 1}}', file=rows)
        print('{{"a": ', end="", file=rows, flush=True)
        time.sleep(60)
    """)  # fmt: skip
    start = time.monotonic()
    entry = ran(tmp_path, seconds=2)
    assert entry["status"] == "stopped" and entry["rows"] == [{"a": 1}]
    assert time.monotonic() - start < 4
    time.sleep(4)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        (3, "skipped", "no such tool"),
        (4, "stopped", "its time was up, after 60 s"),
        (0, "done", ""),
    ],
)
def test_how_a_part_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, status: str, reason: str
) -> None:
    script(monkeypatch, f"print('no such tool', flush=True); raise SystemExit({code})")
    entry = ran(tmp_path)
    assert (entry["status"], entry["reason"]) == (status, reason)


def test_a_later_run_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other parts keep their results; what a killed run had written of a part is replaced."""
    script(monkeypatch, """print('{"a": 1}', file=rows)""")
    first = ran(tmp_path, "machine")
    second = ran(tmp_path, "bits")
    assert second["rows"] == [{"a": 1}]
    assert runner.Results(tmp_path).parts == {"machine": first, "bits": second}


def test_a_run_that_was_cut_short_keeps_its_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runner.rows_file(tmp_path, "times").write_text('{"a": 3}\n{"a"')
    script(monkeypatch, "")
    ran(tmp_path, "machine")
    entry = runner.Results(tmp_path).parts["times"]
    assert (entry["status"], entry["rows"]) == ("stopped", [{"a": 3}])


def test_a_run_that_is_terminated(tmp_path: Path) -> None:
    """Its part ends with it, and what was measured is in results.json."""
    runner.Results(tmp_path).write("machine", {"status": "done", "rows": [{"a": 1}]})
    part = f"""
        import os, sys, time
        print('{{"pid": %d}}' % os.getpid(), file=open({str(tmp_path / "bits.rows")!r}, "w"))
        time.sleep(60)
    """
    command = f"""
        import sys
        from benchmarks.gpu import report, runner
        from benchmarks.gpu.__main__ import main
        report.write = lambda parts, output: None
        runner.command_of = lambda *_: [sys.executable, "-c", {textwrap.dedent(part)!r}]
        main(["--only", "bits", "--output", {str(tmp_path)!r}])
    """
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(command)], cwd=ROOT)
    rows = tmp_path / "bits.rows"
    while not (rows.exists() and rows.read_text().endswith("\n")):
        assert run.poll() is None
        time.sleep(0.1)
    run.terminate()
    assert run.wait(30) != 0
    results = runner.Results(tmp_path).parts
    assert results["machine"]["rows"] == [{"a": 1}]
    assert (results["bits"]["status"], results["bits"]["reason"]) == (
        "stopped", "the run was cut short"
    )  # fmt: skip
    with pytest.raises(ProcessLookupError):
        os.kill(results["bits"]["rows"][0]["pid"], 0)


@pytest.mark.parametrize(
    ("error", "code"), [(Skip("no GPU"), 3), (Stopped(), 4), (ValueError("wrong"), 1), (None, 0)]
)
def test_the_process_of_a_part(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: Exception | None,
    code: int,
) -> None:
    def measure(part: str, task: Task) -> Iterator[Row]:
        yield {"part": part}
        if error is not None:
            raise error

    monkeypatch.setattr(runner, "measure", measure)
    assert runner.child("bits", tmp_path, 60, quick=True) == code
    assert runner.take_rows(tmp_path, "bits") == [{"part": "bits"}]
    said = "".join(capsys.readouterr())
    assert str(error) in said if str(error or "") else True


def test_a_part_stops_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "measure", lambda part, task: iter([{"a": 1}, {"a": 2}]))
    assert runner.child("bits", tmp_path, -1, quick=True) == runner.STOPPED
    assert runner.take_rows(tmp_path, "bits") == [{"a": 1}]


def test_the_command(tmp_path: Path) -> None:
    """Every part on the CPU, in two runs: rivals are compiled and timed, the rest says why not."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    cache = tmp_path / "cache"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "TORCHINDUCTOR_CACHE_DIR": str(cache)}

    def run(*names: str) -> str:
        command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--output", str(tmp_path),
                   "--only", *names]  # fmt: skip
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def graphs() -> set[Path]:
        return {file for kind in ("fxgraph", "aotautograd") for file in (cache / kind).rglob("*")}

    names = [*parts.SHARES]
    later = names.index("times")
    run(*names[:later])
    compiled = graphs()
    assert compiled
    said = run(*names[later:])
    assert graphs() == compiled  # all that part times needs
    results = runner.Results(tmp_path).parts
    assert {name: entry["status"] for name, entry in results.items()} == {
        name: "done" if name in ("machine", "compile", "times") else "skipped" for name in names
    }
    assert results["build"]["reason"] == "torch sees no GPU"
    (row,) = report.rows(results, "compile", "compiled")
    assert row["seconds"] > 0
    times = report.rows(results, "times", "time")
    assert {row["rival"] for row in times} == {
        "reference", "expert", "expert compiled", "conv only", "ours"
    }  # fmt: skip
    assert {row["precision"] for row in times} == {"tf32", "bfloat16", "autocast"}
    assert all(0 < row["p20_us"] <= row["p50_us"] <= row["p80_us"] for row in times)
    assert all(0 < row["error"] < 0.1 for row in times)
    assert (tmp_path / "report.md").read_text() in said + "\n"
