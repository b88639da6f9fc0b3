"""Training, resuming, evaluating and reporting of hosts with and without the block."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

for _name in ("skimage", "sklearn", "matplotlib", "tqdm", "cv2", "scipy"):
    pytest.importorskip(_name)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402

from benchmarks.detection import __main__ as command  # noqa: E402
from benchmarks.detection import checkpoint, evaluate, figures, report, run  # noqa: E402
from benchmarks.detection import train as training  # noqa: E402
from benchmarks.detection.blocks import KINDS, Block, Kind, Slot  # noqa: E402
from benchmarks.detection.data import mini_images, mini_videos  # noqa: E402
from benchmarks.detection.data.samples import (  # noqa: E402
    ImageData,
    ImageSample,
    Region,
    VideoData,
)
from benchmarks.detection.hosts import HOSTS, Host, ImageHost, VideoHost, make_host  # noqa: E402
from benchmarks.detection.hosts.autoencoder import Autoencoder, foreign_content  # noqa: E402
from benchmarks.detection.hosts.base import image_scores, smooth  # noqa: E402
from benchmarks.detection.hosts.future_frame import FutureFrame  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SIZE = 32
SMALL = training.Training(epochs=3, batch=4, learning_rate=1e-3, seed=0)  # 6 steps of 8 samples


@pytest.fixture(autouse=True)
def settings_of_the_process() -> Iterator[None]:
    """Undo what a run sets for the whole process; one thread is enough here."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark = before
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


@pytest.fixture(params=HOSTS)
def name(request: pytest.FixtureRequest) -> str:
    """Each host; DRAEM where anomalib is installed."""
    if request.param == "draem":
        request.getfixturevalue("anomalib")
    return str(request.param)


def samples(name: str) -> Tensor:
    """Eight images or clips."""
    generator = torch.Generator().manual_seed(0)
    if HOSTS[name].takes == "images":
        return torch.rand(8, 3, SIZE, SIZE, generator=generator)
    return torch.rand(8, run.CONTEXT + 1, 3, SIZE, SIZE, generator=generator) * 2 - 1


def data_of(name: str) -> Dataset[Tensor]:
    return cast("Dataset[Tensor]", samples(name))


def make_small(name: str, kind: Kind = "fused", dtype: torch.dtype = torch.float32) -> Host:
    checkpoint.seed_everything(0)
    return make_host(name, Block(kind), 8, None, None).to(dtype)


def weights(host: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in host.state_dict().items()}


def assert_same_weights(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]), key


class Interrupted(Exception):
    """Stands for a kill."""


class Stopping(Dataset[Tensor]):
    """Data that stop the process, one way or another, when a sample is read for the n-th time."""

    def __init__(self, data: Tensor, reads: int, stop: Callable[[], None]) -> None:
        self.data, self.reads, self.stop = data, reads, stop

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        self.reads -= 1
        if self.reads < 0:
            self.stop()
        return self.data[index]


# ---------------------------------------------------------------- hosts


def test_fused_and_reference_give_the_same_training_curve(name: str, tmp_path: Path) -> None:
    curves = {}
    for kind in ("fused", "reference"):
        host = make_small(name, kind, torch.float64)
        path = tmp_path / kind
        curves[kind] = training.train(host, data_of(name), SMALL, path).losses
    assert curves["fused"].shape == (6, 2) and (curves["fused"] > 0).all()
    assert curves["fused"][-1, 0] < curves["fused"][0, 0]
    torch.testing.assert_close(curves["fused"], curves["reference"], rtol=0, atol=1e-8)


def test_only_the_slot_depends_on_the_block(name: str) -> None:
    """The same weights elsewhere, with every block; the same in the slot with fused and eager."""
    of = {kind: weights(make_small(name, kind)) for kind in KINDS}
    shared = of["fused"].keys() & of["none"].keys()
    assert shared and any(key not in shared for key in of["fused"])
    assert_same_weights({k: of["fused"][k] for k in shared}, {k: of["none"][k] for k in shared})
    # anomalib numbers the corners otherwise; what is compared is sorted.
    fused, eager = (sorted(float(v.sum()) for v in of[k].values()) for k in ("fused", "reference"))
    assert fused == eager


def test_without_a_block_there_is_no_loss_of_it(name: str) -> None:
    task_loss, block_loss = make_small(name, "none")(samples(name))
    assert task_loss.isfinite() and block_loss is None


def test_the_loss_of_the_block_is_of_what_went_through_it(name: str) -> None:
    host = make_small(name)
    block = next(m for m in host.modules() if type(m).__name__ == "SSPCAB")
    seen: list[Tensor] = []
    block.register_forward_hook(
        lambda _, inputs, out: seen.extend((inputs[0], out[0] if isinstance(out, tuple) else out))
    )
    _, block_loss = host(samples(name))
    x, out = seen
    torch.testing.assert_close(block_loss, (out - x).square().mean())


def test_maps_and_scores_have_their_shapes(name: str) -> None:
    host = make_small(name).eval()
    with torch.inference_mode():
        if isinstance(host, ImageHost):
            maps = host.anomaly_maps(samples(name))
            assert image_scores(maps).shape == (8,)
        else:
            assert isinstance(host, VideoHost)
            scores, maps = host.frame_errors(samples(name))
            assert scores.shape == (8,) and scores.isfinite().all()
    assert maps.shape == (8, SIZE, SIZE) and maps.isfinite().all() and (maps >= 0).all()


def test_psnr_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by 0.2 of 2 everywhere is 0.1 of 1: a PSNR of 20 dB. Off in one corner: seen there."""
    host = FutureFrame(Block("none"), width=2)
    clips = torch.zeros(2, 5, 3, SIZE, SIZE)
    predicted = torch.full((2, 3, SIZE, SIZE), 0.2)
    predicted[1] = 0
    predicted[1, :, :4, :4] = 0.2
    monkeypatch.setattr(host, "predict", lambda _: (predicted, None))
    scores, maps = host.frame_errors(clips)
    torch.testing.assert_close(scores, torch.tensor([-20.0, -20 - 10 * math.log10(64)]))
    predicted[:] = 0
    assert host.frame_errors(clips)[0].tolist() == [-100, -100]  # no infinity
    assert maps[1].argmax() == 0 and maps[1, 10:, 10:].max() == 0
    torch.testing.assert_close(maps[0], torch.full((SIZE, SIZE), 0.01))


def test_loss_of_future_frames_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ramp predicted as its mirror image has the same gradients: only intensities differ."""
    host = FutureFrame(Block("none"), width=2)
    ramp = torch.linspace(-1, 1, SIZE).expand(1, 3, SIZE, SIZE)
    clips = ramp.expand(5, 1, 3, SIZE, SIZE).transpose(0, 1)
    monkeypatch.setattr(host, "predict", lambda _: (ramp.flip(3), None))
    torch.testing.assert_close(host.losses(clips)[0], (2 * ramp).square().mean())
    monkeypatch.setattr(host, "predict", lambda _: (torch.zeros_like(ramp), None))
    step = 2 / (SIZE - 1)
    torch.testing.assert_close(host.losses(clips)[0], ramp.square().mean() + step)


def test_the_next_frame_is_not_seen() -> None:
    host = FutureFrame(Block("fused"), width=8)
    clips = samples("future-frame")
    before = host.predict(clips)[0]
    clips[:, -1] = 0
    assert torch.equal(host.predict(clips)[0], before)


def test_foreign_content_is_of_another_image() -> None:
    images = torch.zeros(4, 3, SIZE, SIZE)
    images[1, :, :, ::2] = 1
    foreign = foreign_content(images)
    assert foreign.min() >= 0 and foreign.max() <= 1
    spread = foreign.std(dim=(1, 2, 3), correction=0) - foreign.mean((2, 3)).std(1, correction=0)
    assert spread[2] > 0.01 and spread[[0, 1, 3]].abs().max() < 1e-6


def test_smooth_keeps_constants_and_image_scores_find_the_spot() -> None:
    maps = torch.full((2, 48, 48), 3.0)
    torch.testing.assert_close(smooth(maps), maps)
    maps[1, 20:25, 20:25] += 1  # the window: 5×5
    torch.testing.assert_close(image_scores(maps), torch.tensor([3.0, 4.0]))


@pytest.mark.parametrize("kind", KINDS)
def test_slot_takes_the_shape_of_the_block(kind: Kind) -> None:
    slot = Slot(8, Block(kind, kernel_dim=2, dilation=3, reduction_ratio=4))
    out, loss = slot(torch.rand(2, 8, 16, 16))
    assert out.shape == (2, 8, 16, 16) and (loss is None) == (kind == "none")
    if kind != "none":
        shapes = {name: parameter.shape for name, parameter in slot.layer.named_parameters()}
        assert shapes["conv1.weight"] == (8, 8, 2, 2) and shapes["se.fc1.weight"] == (2, 8)
        assert slot.layer.dilation == 3


# ---------------------------------------------------------------- training and resuming


@pytest.mark.parametrize("reads", (0, 5, 12, 23))
def test_a_training_that_stopped_goes_on_as_if_it_had_not(
    name: str, reads: int, tmp_path: Path
) -> None:
    """A checkpoint after step 3, in the middle of an epoch; stopped before and after."""

    def stop() -> None:
        raise Interrupted

    host = make_small(name)
    whole = training.train(host, data_of(name), SMALL, tmp_path / "whole")
    path = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        training.train(
            make_small(name), Stopping(samples(name), reads, stop), SMALL, path, checkpoint_every=3
        )
    again = make_small(name)
    checkpoint.seed_everything(99)  # nothing may depend on what this process did before
    resumed = training.train(again, data_of(name), SMALL, path, checkpoint_every=3)
    assert_same_weights(weights(again), weights(host))
    assert torch.equal(resumed.losses, whole.losses)


KILLED = """
import os, signal, sys
from pathlib import Path
from benchmarks.detection import checkpoint
from benchmarks.detection import train as training
from tests.test_detection_run import SMALL, Stopping, make_small, samples

how, count, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
data = samples("autoencoder")
if how == "reading":
    data = Stopping(data, count, kill)
else:  # when a new checkpoint is written but has not its name yet
    checkpoint.os.replace = kill
training.train(make_small("autoencoder"), data, SMALL, path, checkpoint_every=3)
"""


def test_kill_and_restart_end_with_the_same_weights(tmp_path: Path) -> None:
    """kill -9 in the middle of an epoch, then while a checkpoint is written."""
    host = make_small("autoencoder")
    training.train(host, data_of("autoencoder"), SMALL, tmp_path / "whole")
    path = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for how, count, step in (("reading", 13, 3), ("saving", 0, 3)):
        argv = [sys.executable, "-c", KILLED, how, str(count), str(path)]
        process = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert checkpoint.load(path, torch.device("cpu"))["step"] == step
    assert path.with_name("killed.unfinished").exists()
    again = make_small("autoencoder")
    training.train(again, data_of("autoencoder"), SMALL, path, checkpoint_every=3)
    assert_same_weights(weights(again), weights(host))


def test_a_finished_training_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    host = make_small("autoencoder")
    first = training.train(host, data_of("autoencoder"), SMALL, path)
    written = path.read_bytes()

    def stop() -> None:
        raise Interrupted

    again = make_small("autoencoder")
    second = training.train(again, Stopping(samples("autoencoder"), 0, stop), SMALL, path)
    assert path.read_bytes() == written
    assert torch.equal(second.losses, first.losses) and second.seconds == first.seconds > 0
    assert_same_weights(weights(again), weights(host))


def test_a_failed_save_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    checkpoint.save(path, {"step": 1})

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path, torch.device("cpu")) == {"step": 1}


def test_rng_states_round_trip(tmp_path: Path) -> None:
    cpu = torch.device("cpu")

    def draw() -> tuple[float, ...]:
        drawn = torch.rand(3).tolist(), np.random.standard_normal(3).tolist()
        return (*drawn[0], *drawn[1], random.random(), random.gauss(0, 1))

    draw()
    checkpoint.save(tmp_path / "rng", checkpoint.rng_state(cpu))
    expected = draw()
    draw()
    checkpoint.set_rng_state(checkpoint.load(tmp_path / "rng", cpu), cpu)
    assert draw() == expected


def test_losses_that_are_not_finite_end_the_training(tmp_path: Path) -> None:
    data = samples("autoencoder")
    path = tmp_path / "checkpoint"
    bad = data.clone()
    bad[3] = torch.nan

    class LaterNan(Stopping):
        """Finite in the first epoch."""

        def __getitem__(self, index: int) -> Tensor:
            self.reads -= 1
            return (self.data if self.reads >= 0 else bad)[index]

    with pytest.raises(FloatingPointError, match=r"losses must be finite; got .* before step 4"):
        training.train(
            make_small("autoencoder"),
            LaterNan(data, 8, lambda: None),
            SMALL,
            path,
            checkpoint_every=2,
        )
    state = checkpoint.load(path, torch.device("cpu"))
    assert state["step"] == 2 and all(value.isfinite().all() for value in state["host"].values())


def test_each_epoch_has_an_order_of_its_own_that_a_restart_keeps() -> None:
    data = cast("Dataset[Tensor]", torch.arange(11.0)[:, None])
    settings = SMALL._replace(batch=3)

    def order(epoch: int, first: int = 0, seed: int = 0) -> list[int]:
        batches = training._batches(data, settings._replace(seed=seed), epoch, first, 0)
        return torch.cat(list(batches)).flatten().int().tolist()

    assert len(order(0)) == 9 and len(set(order(0))) == 9  # whole batches only
    assert order(0)[3:] == order(0, first=1) and order(0) == order(0)
    assert order(0) != order(1) and order(0) != order(0, seed=1)


def test_learning_rate_falls_at_80_and_90_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step

    def spy(self: torch.optim.Adam) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    settings = SMALL._replace(epochs=5)
    training.train(make_small("autoencoder"), data_of("autoencoder"), settings, tmp_path / "c")
    assert rates == pytest.approx([1e-3] * 8 + [2e-4] + [4e-5])


def test_loss_weight_enters_the_total(tmp_path: Path) -> None:
    """λ = 0 trains the host alone: the gate of the block, seen by L_F too, moves otherwise."""
    ends = []
    for weight in (0.0, 0.1):
        host = make_small("autoencoder")
        settings = SMALL._replace(loss_weight=weight)
        training.train(host, data_of("autoencoder"), settings, tmp_path / str(weight))
        ends.append(weights(host))
    assert not torch.equal(ends[0]["slot.layer.conv1.weight"], ends[1]["slot.layer.conv1.weight"])


def test_amp_trains_in_bfloat16(tmp_path: Path) -> None:
    host = make_small("future-frame")
    seen: list[torch.dtype] = []
    host.slot.register_forward_hook(lambda _, __, out: seen.append(out[0].dtype))  # type: ignore
    settings = SMALL._replace(amp=True, epochs=1)
    trained = training.train(host, data_of("future-frame"), settings, tmp_path / "c")
    assert seen == [torch.bfloat16] * 2 and trained.losses.isfinite().all()
    assert next(host.parameters()).dtype == torch.float32


# ---------------------------------------------------------------- evaluation, tables, figures


class Clip:
    """A video of the given frames ``(n, 3, S, S)``; frames 8 to 12 are abnormal."""

    regions_from = "annotations"

    def __init__(self, name: str, frames: Tensor) -> None:
        self.name, self.frames = name, frames
        self.labels = np.zeros(len(frames), bool)
        self.labels[8:12] = True
        box = (0, 0, 8, 8)
        self.regions = [Region(track=0, frame=frame, box=box) for frame in (2, *range(8, 12))]

    def __len__(self) -> int:
        return len(self.frames)

    def clip(self, first: int, length: int) -> Tensor:
        return self.frames[first : first + length]


class Oracle(FutureFrame):
    """Foresees black frames."""

    def __init__(self) -> None:
        super().__init__(Block("none"), width=1)

    def predict(self, clips: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(clips[:, -1]), None


def videos() -> VideoData:
    """Abnormal frames have a bright corner; all have a little noise."""
    generator = torch.Generator().manual_seed(0)
    clips = []
    for name in ("01", "02"):
        frames = 0.01 * torch.rand(16, 3, SIZE, SIZE, generator=generator)
        frames[8:12, :, :8, :8] = 1
        clips.append(Clip(name, frames))
    train = [clips[0].clip(first % 4, run.CONTEXT + 1) for first in range(8)]
    return VideoData(train, clips)  # type: ignore[arg-type]


def images() -> ImageData:
    """Grey noise; every other test image has a white corner."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 + 0.1 * torch.rand(20, 3, SIZE, SIZE, generator=generator)
    test = []
    for index, image in enumerate(noise[12:]):
        mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        mask[:8, :8] = index % 2 == 1
        path = f"test/{'cut' if index % 2 else 'good'}/{index:03}.png"
        test.append(ImageSample(torch.where(mask, 1.0, image), mask, index % 2 == 1, path))
    return ImageData(noise[:12], test)  # type: ignore[arg-type]


def test_a_host_that_foresees_all_but_the_abnormal_is_perfect() -> None:
    found = evaluate.evaluate_videos(Oracle(), videos(), run.CONTEXT, batch=5)
    assert found.metrics["micro AUC"] == found.metrics["macro AUC"] == 1
    assert found.metrics["RBDC"] == found.metrics["TBDC"] == 1  # the region in frame 2 is left out
    assert found.regions_from == "annotations"
    first = found.series[0]
    assert first.name == "01" and len(first.scores) == 12  # of 16 frames
    assert first.labels.nonzero()[0].tolist() == [4, 5, 6, 7]
    assert first.scores.min() == 0 and first.scores.max() == 1


def test_videos_without_regions_have_no_rbdc() -> None:
    data = videos()
    for video in data.test:
        video.regions.clear()
    found = evaluate.evaluate_videos(Oracle(), data, run.CONTEXT, batch=16)
    assert set(found.metrics) == {"micro AUC", "macro AUC"} and found.regions_from == ""


class GreyExpected(Autoencoder):
    """Restores every image as grey."""

    def restore(self, x: Tensor) -> tuple[Tensor, None]:
        return torch.full_like(x, 0.55), None


def test_a_host_that_restores_all_but_the_defects_is_perfect() -> None:
    found = evaluate.evaluate_images(GreyExpected(Block("none"), 8), images().test, batch=3)
    assert found.metrics["image AUROC"] == found.metrics["image AP"] == 1
    assert found.metrics["pixel AUROC"] > 0.98 and found.metrics["AUPRO"] > 0.9
    assert found.series[0].labels.tolist() == [False, True] * 4
    assert [example.kind for example in found.examples] == ["good", "cut"]
    assert found.examples[1].mask.sum() == 64 and found.examples[1].image[0, 0].tolist() == [1] * 3


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 1, 0, 1], [(1, 3), (4, 5)]),
        ([1, 1], [(0, 2)]),
        ([0, 0], []),
    ],
)
def test_intervals(labels: list[int], expected: list[tuple[int, int]]) -> None:
    assert figures.intervals(np.array(labels, bool)) == expected


def test_shaded_intervals_are_in_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shaded: list[tuple[float, float]] = []

    def spy(self: Axes, first: float, last: float, **_: Any) -> None:
        shaded.append((first, last))

    monkeypatch.setattr(Axes, "axvspan", spy)
    found = evaluate.evaluate_videos(Oracle(), videos(), run.CONTEXT, batch=16)
    figures.draw(tmp_path, "title", found, [[1.0, 0.0], [0.5, 0.0]])
    assert shaded == [(3.5, 7.5)] * 2
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "frames.png"}


def result(block: Kind, seed: int, auroc: float, **changes: object) -> report.Result:
    fields = {
        "data": "mvtec",
        "miniature": False,
        "host": "draem",
        "category": "bottle",
        "block": block,
        "seed": seed,
        "dtype": "float32",
        "metrics": {"image AUROC": auroc, "pixel AUROC": 0.5, "pixel AP": 0.25},
        "regions_from": "",
        "losses": [[1.0, 0.5], [0.5, 0.25]],
        "train_seconds": 10.0,
        "evaluate_seconds": 2.0,
        "environment": "a machine",
    }
    return report.Result(**fields | changes)  # type: ignore[arg-type]


def test_table_has_mean_and_deviation_over_seeds() -> None:
    """Mean of 0.90, 0.92, 0.94 and their deviation, 0.02; categories are averaged before."""
    several = [
        result("none", seed, auroc + shift, category=category)
        for seed, auroc in enumerate((0.90, 0.92, 0.94))
        for category, shift in (("bottle", 0.02), ("cable", -0.02))
    ]
    lines = report.table(several).splitlines()
    assert "the real data" in lines[0] and "3 seeds" in lines[0] and lines[1] == "a machine"
    assert [line.split()[:4] for line in lines[3:]] == [
        ["bottle", "none", "94.0", "±"],
        ["cable", "none", "90.0", "±"],
        ["mean", "none", "92.0", "±"],
    ]
    assert "92.0 ± 2.0" in lines[-1] and "25.0 ± 0.0" in lines[-1] and "10.0" in lines[-1]
    assert "±" not in report.table([several[0]])


def test_table_says_where_regions_are_from() -> None:
    text = report.table([result("none", 0, 0.5, regions_from="connected components")])
    assert text.splitlines()[-1].endswith("TBDC: connected components")


def test_comparison_of_blocks() -> None:
    fused = result("fused", 0, 0.90)
    other = result(
        "reference", 0, 0.91, losses=[[1.0, 0.5], [0.5, 0.25 + 1e-9]], train_seconds=16.0
    )
    unpaired = result("reference", 1, 0.1)
    text = report.comparison_of_blocks([fused, other, unpaired])
    assert "first 2 steps differ by at most 1.0e-09" in text and "at most 1.00 points" in text
    assert "1.60 times as long to train, 1.50 times with evaluation" in text
    assert report.comparison_of_blocks([fused, unpaired]) == ""


def test_comparison_with_published_says_what_was_run_on_what() -> None:
    results = [
        result("none", 0, 0.90),
        result("fused", 0, 0.91),
        result("reference", 0, 0.2),
        result("fused", 0, 0.3, miniature=True),
    ]
    lines = report.comparison_with_published(results).splitlines()
    detection = [line for line in lines if "draem" in line and "image AUROC" in line]
    assert len(detection) == 2
    assert "? → 98.9" in detection[0] and "90.0 → 91.0" in detection[0]
    assert detection[0].endswith("the real data")
    assert "? → 30.0" in detection[1] and detection[1].endswith("a miniature")
    avenue = [line for line in lines if line.startswith("avenue")]
    assert "85.1 → 87.3" in avenue[0] and all(line.endswith("not run") for line in avenue)


# ---------------------------------------------------------------- the command

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
    root = tmp_path / "root"
    mini_images.write_mvtec(root, seed=0, train=4, good=2, defective=1)
    mini_videos.write_avenue(root, seed=0, train=1, test=1, frames=20)
    images_of = arguments(tmp_path / "1", "mvtec", "--host", "autoencoder", "--seeds", "1")
    command.main([*images_of, "--root", str(root), "--category", *mini_images.TEXTURES])
    assert capsys.readouterr().out.count("\nmean") == 1
    command.main([*arguments(tmp_path / "2", "avenue", "--seeds", "1"), "--root", str(root)])
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
from tests.test_detection_run import videos
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
    assert "avenue, the real data" in printed[0] and printed[1] == ""
    one, two = (
        checkpoint.load(
            tmp_path / count / "output" / "fused" / "seed-0" / "checkpoint.pt", torch.device("cpu")
        )
        for count in ("one", "two")
    )
    assert len(two["rng"]) == 2
    torch.testing.assert_close(two["losses"], one["losses"])
    torch.testing.assert_close(two["host"], one["host"], rtol=1e-6, atol=1e-9)
