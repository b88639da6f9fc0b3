"""The parts of the command for real GPUs, without one: invented tools, tiny problems."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections import Counter, defaultdict
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
    sanitizer,
    stages,
    suite,
    tiles,
    times,
)
from benchmarks.gpu.parts import Skip, Task
from benchmarks.rivals import Rival
from sspcab_cuda import ops

ROOT = Path(__file__).resolve().parents[2]


def test_compile_seconds(tmp_path: Path) -> None:
    log = tmp_path / ".ninja_log"
    lines = (
        "# ninja log v6",
        "10\t1510\t1\tbuild/csrc/cuda/passes/gate.o\t5",
        "20\t520\t1\tbuild/csrc/cpu/pack.o\t6",
    )
    log.write_text("".join(f"{line}\n" for line in lines))
    assert build.compile_seconds(log) == {"cuda/passes/gate": 1.5, "cpu/pack": 0.5}


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


def test_the_datasheet_s_rate_is_that_of_the_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    assert stages._datasheet("hopper_forward tf32 128x64")["tf32"] == 494e12
    assert stages._datasheet("hopper_gradients bfloat16 128x64")["bfloat16"] == 989e12
    assert stages._datasheet("weight_gradient tf32 128x64")["tf32"] == 311e12


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
