"""The benchmark measures what it says, and times no rival that computes something else."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sspcab_cuda
from benchmarks import report, timing
from benchmarks.__main__ import main
from benchmarks.cases import SUITES, Case
from benchmarks.rivals import (
    Expert,
    Layout,
    Problem,
    Rival,
    WrongResultError,
    grad_mode,
    rivals_of,
    verify,
)
from sspcab_cuda import reference

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Undo what the command line sets for the whole process; one thread is enough here."""
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    threads, precision = torch.get_num_threads(), conv.fp32_precision
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    conv.fp32_precision = precision


@pytest.fixture
def problem(device: torch.device) -> Problem:
    return Problem.make(Case(2, 16, 6, 5), torch.float32, device, "nchw")


def test_main_writes_table_csv_and_plot(
    device: torch.device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, plot = tmp_path / "times.csv", tmp_path / "times.png"
    options = ["--suite", "overhead", "--device", str(device), "--min-time", "0", "--no-tf32"]
    options += ["--threads", "1"]
    pytest.importorskip("matplotlib")
    assert main([*options, "--csv", str(table), "--plot", str(plot)]) == 0
    assert "geometric mean" in capsys.readouterr().out
    assert plot.stat().st_size > 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    runs = {(row["rival"], row["mode"], row["layout"]) for row in rows}
    rivals = {"reference", "expert", "conv only", "ours"}
    assert {rival for rival, _, _ in runs} == rivals
    assert len(rows) == len(runs) == 2 * 2 * len(rivals)
    for row in rows:
        assert 0 < float(row["p20_ms"]) <= float(row["p50_ms"]) <= float(row["p80_ms"])
        assert int(row["peak_bytes"]) > 0
        assert (row["saved_bytes"] != "") == (row["mode"] == "training")
        assert row["threads"] == "1"
        assert row["torch_version"] == torch.__version__


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [Case(2, 16, 6, 5), Case(1, 8, 7, 7, kernel_dim=2, dilation=0)])
def test_every_rival_computes_the_block(
    case: Case, dtype: torch.dtype, layout: Layout, device: torch.device
) -> None:
    for rival, truth in rivals_of(Problem.make(case, dtype, device, layout), False).items():
        verify(rival, truth("inference"), "inference")
        verify(rival, truth("training"), "training")


def _truth(problem: Problem) -> tuple[Tensor, ...]:
    wide = problem.to(torch.float64)
    with grad_mode("training"):
        return Rival("truth", wide, wide.block(reference.SSPCAB)).run("training")


def test_verify_rejects_swapped_corners(problem: Problem) -> None:
    state = dict(problem.state)
    names = ("conv2.weight", "conv3.weight")
    state[names[0]], state[names[1]] = state[names[1]], state[names[0]]
    block = problem.block(Expert)
    block.load_state_dict(state)
    with pytest.raises(WrongResultError, match="swapped: the relative error of out must be"):
        verify(Rival("swapped", problem, block), _truth(problem), "training")


def test_verify_rejects_a_wrong_gradient(problem: Problem) -> None:
    block = problem.block(reference.SSPCAB)

    def detached(x: Tensor) -> tuple[Tensor, Tensor]:
        out = block(x)
        return out, reference.reconstruction_loss(out, x.detach())

    with pytest.raises(WrongResultError, match=r"detached: .* the gradient of x"):
        verify(Rival("detached", problem, block, call=detached), _truth(problem), "training")


def test_verify_rejects_nan_and_other_shapes(problem: Problem) -> None:
    block, truth = problem.block(reference.SSPCAB), _truth(problem)[:2]
    out, loss = truth
    nan = Rival("nan", problem, block, call=lambda x: (out * float("nan"), loss))
    with pytest.raises(WrongResultError, match="got nan"):
        verify(nan, truth, "inference")
    flat = Rival("flat", problem, block, call=lambda x: (out.flatten(), loss))
    with pytest.raises(WrongResultError, match=r"flat: out must be \(2, 16, 6, 5\); got \(960,\)"):
        verify(flat, truth, "inference")


def test_main_stops_at_a_wrong_rival(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wrong(reference.SSPCAB):
        def forward(self, x: Tensor, return_loss: bool = False) -> tuple[Tensor, Tensor]:
            out, loss = super().forward(x, return_loss=True)
            return out, 2 * loss

    monkeypatch.setattr(sspcab_cuda, "SSPCAB", Wrong)
    assert main(["--suite", "overhead", "--device", "cpu", "--min-time", "0"]) == 1
    assert "ours: the relative error of loss" in capsys.readouterr().err


def test_rounds_hold_one_call_of_each_rival() -> None:
    calls: list[str] = []
    names = ("a", "b", "c")
    rivals = {name: partial(calls.append, name) for name in names}
    times = timing.interleave(rivals, timing.cpu_clock, min_time=0.0)
    rounds = [set(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == timing.WARM_UP_ROUNDS + timing.MIN_ROUNDS
    assert all(round_ == set(names) for round_ in rounds)
    assert all(len(times[name].times) == timing.MIN_ROUNDS for name in names)


def test_saved_bytes_counts_each_storage_once_without_parameters(device: torch.device) -> None:
    x = torch.ones(10, 10, device=device, requires_grad=True)
    weight = torch.ones(10, 10, device=device, requires_grad=True)
    assert timing.saved_bytes(lambda: x * weight, [weight]) == x.numel() * 4
    assert timing.saved_bytes(lambda: x[:5] * x[5:], [weight]) == x.numel() * 4


def test_peak_bytes_sees_what_is_dropped_again(device: torch.device) -> None:
    x = torch.ones(1 << 16, device=device)

    def call() -> Tensor:
        twice = x + x
        return (twice * twice).sum()

    assert 2 * x.numel() * 4 <= timing.peak_bytes(call, device) < 2.1 * x.numel() * 4


def test_ratios_take_the_expert_in_its_better_layout() -> None:
    def row(rival: str, layout: str, ms: float) -> report.Row:
        return report.Row(
            suite="main",
            case=SUITES["main"][0],
            dtype="float32",
            layout=layout,
            mode="inference",
            rival=rival,
            rounds=1,
            p20_ms=ms,
            p50_ms=ms,
            p80_ms=ms,
            saved_bytes=None,
            peak_bytes=1,
            error=0.0,
        )

    text = report.summary(
        [
            row("expert", "nchw", 8.0),
            row("ours", "nchw", 2.0),
            row("expert", "channels_last", 3.0),
            row("ours", "channels_last", 1.0),
        ]
    )
    ends = [line.split()[-3:] for line in text.splitlines()]
    assert ["nchw", "4.000", "1.500"] in ends
    assert ["channels_last", "3.000", "3.000"] in ends
    assert ["mean", "3.464", "2.121"] in ends
    assert ["worst", "3.000", "1.500"] in ends
    case = SUITES["main"][0]
    assert f"worst expert / ours: {case} channels_last" in text
    assert f"worst better expert / ours: {case} nchw" in text


def test_random_cases() -> None:
    """Drawn anew in every process, they are the same, and of every kind."""
    cases = SUITES["sweep-random"]
    assert len(set(cases)) > 190
    assert cases[:2] == (Case(1, 81, 12, 84, 3, 2), Case(16, 5, 123, 15, 3, 0))
    assert {case.kernel_dim for case in cases} == {1, 2, 3}
    assert {case.dilation for case in cases} == set(range(5))
    assert min(case.channels for case in cases) == 3
    assert max(case.channels for case in cases) > 1000
