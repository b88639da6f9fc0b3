"""The command, from end to end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.detection import __main__ as command
from benchmarks.detection import checkpoint, report, run
from benchmarks.detection.blocks import KINDS, Block
from benchmarks.detection.data import mini_images, mini_videos
from benchmarks.detection.hosts.future_frame import FutureFrame

from .training_cases import (
    ROOT,
    images,
    videos,
)

TINY = ["--size", "32", "--width", "8", "--epochs", "2", "--batch", "4", "--device", "cpu"]


@pytest.fixture
def data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_images", lambda *_: images())
    monkeypatch.setattr(run, "load_videos", lambda *_: videos())


def arguments(folder: Path, data: str, *options: str) -> list[str]:
    category = ["--category", "bottle"] if data == "mvtec" else []
    where = ["--root", str(folder / "root"), "--output", str(folder / "output")]
    return ["run", "--data", data, *category, *where, *TINY, *options]


@pytest.mark.usefixtures("data_sets")
@pytest.mark.parametrize(
    ("data", "host", "drawn", "steps"),
    [("mvtec", "autoencoder", "maps.png", 6), ("avenue", "future-frame", "frames.png", 4)],
)
def test_run_from_end_to_end_and_again(
    data: str,
    host: str,
    drawn: str,
    steps: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "output"
    argv = arguments(tmp_path, data, "--host", host, "--block", *KINDS, "--dtype", "float64")
    command.main([*argv, "--seeds", "1"])
    printed = capsys.readouterr().out
    assert f"{data}, the real data · {host} · float64 · 1 seeds" in printed
    assert f"losses of the first {steps} steps" in printed and "published" in printed

    first = report.read_results(output)
    assert [(r.block, r.seed, len(r.losses)) for r in first] == [(kind, 0, steps) for kind in KINDS]
    fused, reference, none = first
    np.testing.assert_allclose(fused.losses, reference.losses, rtol=0, atol=1e-8)
    assert fused.metrics == pytest.approx(reference.metrics)
    assert all(loss > 0 for _, loss in fused.losses) and all(loss == 0 for _, loss in none.losses)
    folder = run.Experiment(fused.category, "fused", 0).folder(output)
    names = {path.name for path in folder.iterdir()}
    assert names == {"checkpoint.pt", "curves.png", "result.json", drawn}
    assert report.Result(**json.loads((folder / "result.json").read_text())) == fused

    # One more seed: what was trained is taken as it is.
    command.main([*argv, "--block", "fused", "--seeds", "2"])
    assert "±" in capsys.readouterr().out
    again, another = report.read_results(output)
    assert again == replace(fused, evaluate_seconds=again.evaluate_seconds)
    assert another.seed == 1 and another.losses != fused.losses

    command.main(["table", str(output)])
    assert "shanghaitech" in capsys.readouterr().out


def test_miniatures_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real files: smaller ones than make-mini writes, in the same layouts."""
    textures, videos = tmp_path / "textures", tmp_path / "videos"
    mini_images.write_mvtec(textures, seed=0, train=4, good=2, defective=1)
    mini_videos.write_avenue(videos, seed=0, train=1, test=1, frames=20)
    images_of = arguments(tmp_path / "1", "mvtec", "--host", "autoencoder", "--seeds", "1")
    command.main([*images_of, "--root", str(textures), "--category", *mini_images.TEXTURES])
    assert capsys.readouterr().out.count("\nmean") == 1
    command.main([*arguments(tmp_path / "2", "avenue", "--seeds", "1"), "--root", str(videos)])
    assert "TBDC: connected components" in capsys.readouterr().out
    (found,) = report.read_results(tmp_path / "2" / "output")
    assert set(found.metrics) == {"micro AUC", "macro AUC", "RBDC", "TBDC"}
    assert all(0 <= value <= 1 for value in found.metrics.values())


def test_make_mini_leaves_the_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(folder: Path, seed: int) -> None:
        assert seed == 7
        for name in run.DATA:
            (folder / name).mkdir(parents=True)

    monkeypatch.setattr(command, "make_mini", make)
    command.main(["make-mini", str(tmp_path), "--seed", "7"])
    assert all((tmp_path / name / run.MINIATURE).exists() for name in run.DATA)


@pytest.mark.usefixtures("data_sets")
def test_a_marker_file_makes_a_miniature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / run.MINIATURE).touch()
    command.main(arguments(tmp_path, "avenue", "--seeds", "1"))
    printed = capsys.readouterr().out
    assert "avenue, a miniature" in printed
    assert all(r.miniature for r in report.read_results(tmp_path / "output"))


@pytest.mark.usefixtures("data_sets")
@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("avenue", ["--seeds", "0"], "seeds must be at least 1; got 0"),
        ("avenue", ["--epochs", "0"], "epochs must be at least 1; got 0"),
        ("avenue", ["--width", "-1"], "width must be at least 1; got -1"),
        ("avenue", ["--batch", "0"], "batch must be at least 1; got 0"),
        ("avenue", ["--batch", "9"], "batch must not exceed the training data of avenue, 8; got 9"),
        ("avenue", ["--kernel-dim", "0"], "kernel_dim must be at least 1; got 0"),
        ("avenue", ["--dilation", "-1"], "dilation must be at least 0; got -1"),
        ("avenue", ["--reduction-ratio", "0"], "reduction_ratio must be at least 1; got 0"),
        ("avenue", ["--workers", "-1"], "workers must be at least 0; got -1"),
        ("avenue", ["--checkpoint-every", "0"], "checkpoint_every must be at least 1; got 0"),
        (
            "avenue",
            ["--learning-rate", "inf"],
            "learning_rate must be positive and finite; got inf",
        ),
        ("avenue", ["--loss-weight", "-1"], "loss_weight must be 0 or more, and finite; got -1.0"),
        (
            "avenue",
            ["--host", "draem"],
            "avenue is videos, and draem takes images: use one of future-frame; got draem",
        ),
        ("avenue", ["--category", "bottle"], "avenue has no categories; got bottle"),
        ("mvtec", ["--size", "40"], "size must be a multiple of 16 for draem; got 40"),
        ("avenue", ["--amp", "--dtype", "float64"], "amp is for float32; got float64"),
        (
            "avenue",
            ["--device", "tpu"],
            "device must be cpu or a CUDA device that PyTorch sees; got tpu",
        ),
        (
            "avenue",
            ["--device", "cuda:99"],
            "device must be cpu or a CUDA device that PyTorch sees; got cuda:99",
        ),
        ("avenue", ["--dtd-dir", "."], "dtd_dir is for draem; got future-frame"),
        ("mvtec", ["--dtd-dir", "nowhere"], "dtd_dir must be a folder with images; got nowhere"),
        (
            "mvtec",
            ["--flow-loss"],
            "flow_loss is for future-frame; got draem",
        ),
        (
            "avenue",
            ["--flow-loss"],
            "flow_loss and flow_weights go together: the loss needs torchvision's file of RAFT "
            "(small); got flow_loss True, flow_weights None",
        ),
        (
            "avenue",
            ["--flow-loss", "--flow-weights", "nowhere.pth"],
            "RAFT needs a size of at least 128; got 32",
        ),
        (
            "avenue",
            ["--flow-loss", "--flow-weights", "nowhere.pth", "--size", "128"],
            "flow weights must be torchvision's file of RAFT (small), https://download.pytorch.org",
        ),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    data: str, options: list[str], message: str, tmp_path: Path
) -> None:
    if "--dtd-dir" in options or "--flow-loss" in options:
        pytest.importorskip("torchvision")
    with pytest.raises(SystemExit) as error:
        command.main(arguments(tmp_path, data, *options))
    assert f"benchmarks.detection: {message}" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_images_need_a_category(tmp_path: Path) -> None:
    argv = [a for a in arguments(tmp_path, "mvtec") if a not in ("--category", "bottle")]
    with pytest.raises(SystemExit, match=r"detection: mvtec needs a category; got none$"):
        command.main(argv)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("data_sets")
def test_other_settings_don_t_go_on_with_a_run(tmp_path: Path) -> None:
    argv = arguments(tmp_path, "avenue", "--seeds", "1")
    command.main(argv)
    contents = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(SystemExit, match=r"holds a run with other settings.* got batch 2 after 4$"):
        command.main([*argv, "--batch", "2", "--workers", "1", "--seeds", "2"])
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == contents


def test_missing_data_are_an_error_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^benchmarks\.detection: .*root"):
        command.main(arguments(tmp_path, "avenue"))
    assert list(tmp_path.iterdir()) == []


def test_defaults_are_the_paper_s_and_the_host_s() -> None:
    args = command.parse(["run", "--data", "mvtec", "--root", "x", "--category", "bottle", "cable"])
    settings = command.settings_of(args)
    assert (settings.host, settings.size, settings.epochs) == ("draem", 256, 700)
    assert settings.blocks == ("fused",) and settings.categories == ("bottle", "cable")
    assert (settings.loss_weight, settings.seeds) == (0.1, 3)
    assert (settings.kernel_dim, settings.dilation, settings.reduction_ratio) == (1, 1, 8)
    assert settings.output == Path("detection-output/mvtec-draem")
    fixed, other = settings.fixed(), replace(settings, seeds=9, workers=3, blocks=("none",)).fixed()
    assert fixed == other != replace(settings, dilation=2).fixed()


def test_optical_flow_is_a_loss_of_the_prediction_alone(tmp_path: Path) -> None:
    optical_flow = pytest.importorskip("torchvision.models.optical_flow")
    torch.save(optical_flow.raft_small().state_dict(), tmp_path / "raft.pth")
    clips = torch.rand(1, 5, 3, 128, 128) * 2 - 1
    checkpoint.seed_everything(0)
    host = FutureFrame(Block("none"), width=2, flow_weights=tmp_path / "raft.pth")
    checkpoint.seed_everything(0)
    without = FutureFrame(Block("none"), width=2)
    with_flow, plain = host.losses(clips)[0], without.losses(clips)[0]
    assert with_flow > plain
    with_flow.backward()
    assert host.flow is not None and all(p.grad is None for p in host.flow.parameters())
    assert host.head.weight.grad is not None


TORCHRUN = """
import sys
from benchmarks.detection import __main__ as command, run
from tests.benchmarks.detection.training_cases import videos
run.load_videos = lambda *_: videos()
command.main(sys.argv[1:])
"""


@pytest.mark.usefixtures("data_sets")
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """Each takes half of a batch; the first one alone writes and evaluates."""
    options = ("--seeds", "1", "--dtype", "float64")
    command.main(arguments(tmp_path / "one", "avenue", *options))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    together = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TORCHRUN, *arguments(tmp_path / "two", "avenue", *options)],
            cwd=ROOT,
            env=os.environ | together | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    printed, errors = zip(*(process.communicate() for process in processes), strict=True)
    assert [process.returncode for process in processes] == [0, 0], errors
    assert "avenue, the real data" in printed[0] and "avenue" not in printed[1]
    one, two = (
        checkpoint.load(
            tmp_path / count / "output" / "fused" / "seed-0" / "checkpoint.pt", torch.device("cpu")
        )
        for count in ("one", "two")
    )
    assert len(two["rng"]) == 2
    torch.testing.assert_close(two["losses"], one["losses"])
    torch.testing.assert_close(two["host"], one["host"], rtol=1e-6, atol=1e-9)
