"""The one training loop, for every host. It can be killed at any step and started again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from . import checkpoint
from .hosts import Host

_MILESTONES = (0.8, 0.9)  # of the training; each divides the learning rate by five, as in DRAEM


class Training(NamedTuple):
    """What the weights depend on, besides the host and the data."""

    epochs: int
    batch: int  # of all processes together
    learning_rate: float
    seed: int
    loss_weight: float = 0.1  # λ of the block's loss, the paper's choice
    amp: bool = False  # autocast to bfloat16


class Trained(NamedTuple):
    """What a training leaves besides weights."""

    losses: Tensor  # (steps, 2), float64: L_F and the block's loss, 0 without a block
    seconds: float  # of all runs that it took


def ranks() -> tuple[int, int]:
    """This process's rank among those that train together, and their number."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def placement(host: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a host's weights are, and their dtype."""
    weight = next(host.parameters())
    return weight.device, weight.dtype


def train(
    host: Host,
    data: Dataset[Tensor],
    training: Training,
    path: Path,
    *,
    checkpoint_every: int = 200,
    workers: int = 0,
    title: str = "",
) -> Trained:
    """Minimises L_F + λ · L_SSPCAB with Adam, from the checkpoint if there is one.

    All that a step depends on is in the checkpoint or follows from the seed and the number of the
    step. So a run that was killed ends with the weights of one that wasn't, bit for bit (several
    processes: where their sums of gradients are, as on one machine with two).

    Args:
        host: on its device, in its dtype; trained in place.
        data: samples of equal shape and a length of at least ``training.batch``.
        path: the checkpoint, in a folder that exists.
        checkpoint_every: steps; as many may have to be taken again after a kill.
        workers: processes that read data; 0: this one.
        title: of the progress bar.

    Raises:
        FloatingPointError: a loss is not finite; the checkpoint is from before.
    """
    rank, world = ranks()
    device, dtype = placement(host)
    optimizer = torch.optim.Adam(
        [p for p in host.parameters() if p.requires_grad], training.learning_rate
    )
    steps_per_epoch = len(data) // training.batch  # type: ignore[arg-type]
    total = steps_per_epoch * training.epochs

    step, seconds, losses = 0, 0.0, torch.zeros(0, 2, dtype=torch.float64)
    if path.exists():
        state = checkpoint.load(path, device)
        host.load_state_dict(state["host"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds, losses = state["step"], state["seconds"], state["losses"].cpu()
        checkpoint.set_rng_state(state["rng"][rank], device)
    else:
        checkpoint.seed_everything(_mix(training.seed, rank))
    if step == total:
        return Trained(losses, seconds)

    model = nn.parallel.DistributedDataParallel(host) if world > 1 else host
    unsaved: list[Tensor] = []  # losses, left on the device so that no step waits for them
    started = time.monotonic()

    def save() -> None:
        nonlocal losses, seconds, started
        new = torch.stack(unsaved).double()
        rng = [checkpoint.rng_state(device)]
        if world > 1:
            dist.all_reduce(new)
            rng = [{}] * world
            dist.all_gather_object(rng, checkpoint.rng_state(device))
        if not new.isfinite().all():
            raise FloatingPointError(f"losses must be finite; got others before step {step}")
        losses = torch.cat((losses, new.cpu() / world))
        unsaved.clear()
        now = time.monotonic()
        seconds, started = seconds + now - started, now
        if rank == 0:
            state = {
                "host": host.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "seconds": seconds,
                "losses": losses,
                "rng": rng,
            }
            checkpoint.save(path, state)

    host.train()
    with tqdm(total=total, initial=step, desc=title, unit="step", disable=rank > 0) as progress:
        while step < total:
            epoch, first = divmod(step, steps_per_epoch)
            for batch in _batches(data, training, epoch, first, workers):
                passed = sum(step >= milestone * total for milestone in _MILESTONES)
                for group in optimizer.param_groups:
                    group["lr"] = training.learning_rate * 0.2**passed
                with torch.autocast(device.type, torch.bfloat16, enabled=training.amp):
                    task_loss, block_loss = model(batch.to(device, dtype))
                loss = task_loss
                if block_loss is not None:
                    loss = loss + training.loss_weight * block_loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                progress.update()
                pair = (task_loss, task_loss.new_zeros(()) if block_loss is None else block_loss)
                unsaved.append(torch.stack([part.detach().double() for part in pair]))
                if step == total or step % checkpoint_every == 0:
                    save()
    return Trained(losses, seconds)


def _mix(*numbers: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _batches(
    data: Dataset[Tensor], training: Training, epoch: int, first: int, workers: int
) -> Iterator[Tensor]:
    """An epoch's batches ``(B, …)`` from number ``first`` on; this process's share of each."""
    rank, world = ranks()
    length = len(data)  # type: ignore[arg-type]
    order = np.random.default_rng((training.seed, epoch)).permutation(length).tolist()
    starts = range(first * training.batch, length - training.batch + 1, training.batch)
    shares = [order[start + rank : start + training.batch : world] for start in starts]
    # A generator of its own: without one, making the iterator draws from torch's.
    own = torch.Generator()
    return iter(DataLoader(data, batch_sampler=shares, num_workers=workers, generator=own))
