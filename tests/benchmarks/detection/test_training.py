"""Training, and going on after it was stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.detection import checkpoint
from benchmarks.detection import train as training

from .training_cases import (
    ROOT,
    SMALL,
    Interrupted,
    Stopping,
    assert_same_weights,
    data_of,
    make_small,
    samples,
    weights,
)


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
from tests.benchmarks.detection.training_cases import SMALL, Stopping, make_small, samples

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
