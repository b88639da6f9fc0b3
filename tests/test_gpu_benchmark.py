"""The command for real GPUs, without one: limits, resumption, missing tools."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import one_step
from benchmarks.gpu import (
    bits,
    build,
    contest,
    fit,
    parts,
    report,
    runner,
    sanitizer,
    stages,
    suite,
    tiles,
    times,
)
from benchmarks.gpu.parts import Row, Skip, Stopped, Task
from benchmarks.rivals import Rival
from sspcab_cuda import ops

ROOT = Path(__file__).resolve().parents[1]


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


# Parts


def test_compile_seconds(tmp_path: Path) -> None:
    log = tmp_path / ".ninja_log"
    log.write_text("# ninja log v6\n10\t1510\t1\ta/gate.o\t5\n20\t520\t1\ta/pack.o\t6\n")
    assert build.compile_seconds(log) == {"gate": 1.5, "pack": 0.5}


def test_the_plugin_of_the_tests(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text(
        "def test_good(): pass\ndef test_bad():\n    assert 1 == 2, 'so it is'\n"
    )
    (tmp_path / "test_broken.py").write_text("import no_such_module\n")
    file = tmp_path / "report"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu.suite",
               "--continue-on-collection-errors", str(tmp_path)]  # fmt: skip
    environment = os.environ | {suite.REPORT: str(file), "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows[-1] == {"what": "counts", "errors": 1, "passed": 1, "failed": 1}
    failures = {row["test"]: row["text"] for row in rows if row["what"] == "failure"}
    assert [*failures] == ["test_broken.py", "test_two.py::test_bad"]
    assert "so it is" in failures["test_two.py::test_bad"]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Puts a shell script of a name on PATH, and lets parts think that there is a GPU."""
    for module in (sanitizer, stages):
        monkeypatch.setattr(module, "cuda_of", lambda task: torch.device("cuda"))
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, code: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return put


def test_the_sanitizer(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(tmp_path, quick=True)
    with pytest.raises(Skip, match="compute-sanitizer isn't on PATH"):
        next(sanitizer.measure(task))
    tool("compute-sanitizer", "echo '========= ERROR SUMMARY: 2 errors'")
    rows = [*sanitizer.measure(task)]
    assert {row["tool"] for row in rows} == {*sanitizer.TOOLS} and len(rows) == 4
    assert all(row["findings"] == 2 and "SUMMARY" in row["text"] for row in rows)
    tool("compute-sanitizer", "echo '== RACECHECK SUMMARY: 0 hazards displayed'")
    assert all(row["findings"] == 0 and "text" not in row for row in sanitizer.measure(task))
    tool("compute-sanitizer", 'shift 6; exec "$@"')
    monkeypatch.setattr(sanitizer, "sys", SimpleNamespace(executable="/bin/echo"))
    row, *_ = sanitizer.measure(task)
    assert "-m benchmarks.gpu.sanitizer --quick" in row["text"]
    tool("compute-sanitizer", "exit 5")
    assert all(row["findings"] is None for row in sanitizer.measure(task))
    # One hangs, and so does what it has started; the others are not concerned.
    done = "echo 'step of one'; echo '== ERROR SUMMARY: 0 errors'"
    tool("compute-sanitizer", f'[ "$2" = initcheck ] && /bin/sleep 20\n{done}')
    rows = [*sanitizer.measure(Task(tmp_path, quick=True, seconds=sanitizer.SPARED + 1))]
    assert [row["finished"] for row in rows] == [True, True, True, False]
    assert rows[-1]["tool"] == "initcheck" and rows[-1]["text"] == "not finished after 1 s\n"
    tool("compute-sanitizer", "echo '========= Error: Device not supported. Please'; exit 1")
    with pytest.raises(Skip, match=r"^Error: Device not supported"):
        [*sanitizer.measure(task)]


def test_nsight_compute(tool: Any, tmp_path: Path) -> None:
    task = Task(tmp_path, quick=True)
    assert [*stages._counters(task)] == [{"what": "ncu", "skipped": "ncu isn't on PATH"}]
    tool("ncu", "echo '==ERROR== no permission'; exit 1")
    assert [*stages._counters(task)] == [{"what": "ncu", "skipped": "==ERROR== no permission"}]
    head = '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
    line = '"0","scale_kernel","dram__bytes_read.sum","Mbyte","3.5"'
    tool("ncu", f"echo '==PROF== 1'; echo '{head}'; echo '{line}'")
    assert [*stages._counters(task)] == [
        {"what": "counter", "shape": [1, 16, 8, 8], "kernel": "scale_kernel",
         "metric": "dram__bytes_read.sum", "unit": "Mbyte", "value": "3.5"}
    ]  # fmt: skip


def test_a_problem_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others are measured all the same."""

    def rivals_of(problem: Any, precision: Any, compiled: str) -> Any:
        raise MemoryError(f"no room for {precision.name}")

    monkeypatch.setattr(times, "rivals_of", rivals_of)
    rows = [*times.measure(Task(tmp_path, quick=True))]
    assert len(rows) == 7 and {row["what"] for row in rows} == {"wrong"}
    assert rows[0]["text"] == "MemoryError: no room for tf32"


def test_only_rivals_try_out_cudnn_s_algorithms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the first call to the last."""
    group = times.Group("quick", times.QUICK, ("bfloat16",))
    monkeypatch.setattr(times, "QUICK_GROUPS", (group,))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen = set()

    def run(rival: Rival, mode: Any) -> tuple[torch.Tensor, ...]:
        seen.add((rival.name, torch.backends.cudnn.benchmark))
        return original(rival, mode)

    original = Rival.run
    monkeypatch.setattr(Rival, "run", run)
    assert [*times.measure(Task(tmp_path, quick=True))]
    assert seen == {("truth", False), ("ours", False), ("reference", True), ("expert", True),
                    ("conv only", True)}  # fmt: skip


@pytest.mark.cuda
def test_every_tile_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the steps run; the profiler's figures are invented, a kernel for each call."""
    names: list[str] = []

    def sspcab(*arguments: Any) -> Any:
        names.append(f"forward {arguments[-1]}")
        return ops.sspcab(*arguments)

    def sspcab_backward(*arguments: Any) -> Any:
        *_, needs, _, config = arguments
        stages = {(True, False): "input_gradient", (False, True): "weight_gradient"}
        names.append(f"{stages.get((needs[0], needs[1]), 'gradients')} {config}")
        names.extend([f"parameter_gradients {config}"] if needs[1] else [])
        return ops.sspcab_backward(*arguments)

    def profiled(step: Any, repeats: int) -> dict[str, float]:
        names.clear()
        step()
        seconds: dict[str, float] = defaultdict(float)
        for name in names:
            seconds[name] += 1e-6 * int(name[-1]) + 1e-6
        return seconds

    operators = SimpleNamespace(sspcab=sspcab, sspcab_backward=sspcab_backward)
    monkeypatch.setattr(one_step, "ops", operators)
    monkeypatch.setattr(tiles, "profiled", profiled)
    rows = [*tiles.measure(Task(tmp_path, quick=True))]
    stages = ("forward", "input_gradient", "weight_gradient", "gradients")
    assert Counter((row["stage"], row["config"]) for row in rows) == {
        (stage, config): 3 for stage in stages for config in range(3)
    }
    assert all(row["us"] == pytest.approx(row["config"] + 1) for row in rows)
    for row in rows:
        sums = row["us"] if row["stage"] in ("weight_gradient", "gradients") else 0
        assert row["sums_us"] == sums
    alone, shared = fit.measured(rows, 108)
    assert len(alone) == 9 and len(shared) == 3


@pytest.mark.cuda
def test_the_steps_of_the_sanitizer(capsys: pytest.CaptureFixture[str]) -> None:
    sanitizer.take_steps(quick=False)
    assert capsys.readouterr().out.count("step of ") == len(sanitizer.STEPS)


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:.*freeAsync", "ignore:.*AccumulateGrad")
def test_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = set()

    def forced(block: Any, x: torch.Tensor, tf32: bool, config: int) -> Any:
        layout = "channels_last" if x.stride(1) == 1 else "nchw"
        taken.add(("tf32" if tf32 else str(x.dtype).removeprefix("torch."), layout, config))
        return one_step.forced(block, x, tf32, config)

    monkeypatch.setattr(bits, "forced", forced)
    rows = [*bits.measure(Task(tmp_path, quick=True))]
    assert len(rows) == len(taken) == 5 * 2 * 4
    assert {(row["precision"], row["layout"], row["config"]) for row in rows} == taken
    assert all(row["different"] == 0 and row["graph_equal"] for row in rows)


@pytest.mark.cuda
def test_a_replay_warms_up_on_the_stream_of_its_capture() -> None:
    streams = []

    def run(mode: str) -> tuple[torch.Tensor, ...]:
        streams.append(torch.cuda.current_stream())
        return (torch.ones(1, device="cuda"),)

    rival: Any = SimpleNamespace(name="ours", run=run)
    replay = contest.Replay(rival, "inference")
    assert len(streams) == 3 and len(set(streams)) == 1
    assert replay.run("inference")[0].item() == 1


@pytest.mark.cuda
def test_kernels_are_profiled_with_an_empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the profiler, which may see no kernels."""
    order: list[str] = []
    monkeypatch.setattr(stages, "flush_of", lambda device: lambda: order.append("flush"))
    with pytest.raises(Skip, match="sees no kernels"):
        stages.profiled(lambda: order.append("step"), 2)
    assert order == ["step", "flush", "step", "flush", "step"]
