"""One experiment: categories × blocks × seeds, each trained, then each evaluated."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from ..report import Environment
from . import checkpoint, figures, report
from .blocks import Block, Kind
from .data import ImageData, VideoData, load_images, load_videos
from .evaluate import evaluate_images, evaluate_videos
from .hosts import HOSTS, Host, ImageHost, VideoHost, make_host
from .train import Trained, Training, ranks, train

DATA = {"mvtec": "images", "avenue": "videos", "shanghaitech": "videos"}
CONTEXT = 4  # frames that the next one is predicted from
MINIATURE = "MINIATURE"  # a file of this name in a root says that it is no real data set


@dataclass(frozen=True)
class Settings:
    """An experiment. What the weights depend on may not change between runs into one folder."""

    data: str
    root: Path
    categories: tuple[str, ...]  # () for videos
    host: str
    blocks: tuple[Kind, ...]
    seeds: int
    output: Path
    size: int
    width: int
    epochs: int
    batch: int
    learning_rate: float
    loss_weight: float
    kernel_dim: int
    dilation: int
    reduction_ratio: int
    dtype: str
    amp: bool
    device: str
    workers: int
    checkpoint_every: int
    dtd_dir: Path | None
    flow_loss: bool
    flow_weights: Path | None

    # What the weights don't depend on.
    _FREE = ("root", "categories", "blocks", "seeds", "output", "workers", "checkpoint_every")

    def fixed(self) -> dict[str, str]:
        """What the weights depend on, apart from category, block and seed."""
        fixed = {name: str(v) for name, v in asdict(self).items() if name not in self._FREE}
        return fixed | {"processes": str(ranks()[1])}


class Experiment(NamedTuple):
    """One training."""

    category: str  # "" for videos
    block: Kind
    seed: int

    def __str__(self) -> str:
        return " ".join(filter(None, (self.category, self.block, f"seed {self.seed}")))

    def folder(self, output: Path) -> Path:
        return output / self.category / self.block / f"seed-{self.seed}"


class SettingsError(ValueError):
    """Settings that can't be run: the rule, and what was given."""


def check(settings: Settings) -> None:
    """Nothing is written before this is through.

    Raises:
        SettingsError: the first rule that the settings break.
    """

    def rule(holds: bool, text: str, got: object) -> None:
        if not holds:
            raise SettingsError(f"{text}; got {got}")

    s, spec = settings, HOSTS[settings.host]
    for name in ("seeds", "width", "epochs", "batch", "kernel_dim", "reduction_ratio"):
        rule(getattr(s, name) >= 1, f"{name} must be at least 1", getattr(s, name))
    rule(s.dilation >= 0, "dilation must be at least 0", s.dilation)
    rule(s.workers >= 0, "workers must be at least 0", s.workers)
    rule(s.checkpoint_every >= 1, "checkpoint_every must be at least 1", s.checkpoint_every)
    rule(
        0 < s.learning_rate < math.inf,
        "learning_rate must be positive and finite",
        s.learning_rate,
    )
    rule(0 <= s.loss_weight < math.inf, "loss_weight must be 0 or more, and finite", s.loss_weight)
    rule(
        DATA[s.data] == spec.takes,
        f"{s.data} is {DATA[s.data]}, and {s.host} takes {spec.takes}: use one of "
        + ", ".join(name for name, other in HOSTS.items() if other.takes == DATA[s.data]),
        s.host,
    )
    images = DATA[s.data] == "images"
    rule(
        bool(s.categories) == images,
        f"{s.data} needs a category" if images else f"{s.data} has no categories",
        ", ".join(s.categories) or "none",
    )
    rule(
        s.size >= spec.multiple and s.size % spec.multiple == 0,
        f"size must be a multiple of {spec.multiple} for {s.host}",
        s.size,
    )
    rule(not (s.amp and s.dtype == "float64"), "amp is for float32", s.dtype)
    processes = ranks()[1]
    rule(
        s.batch % processes == 0,
        f"batch is of all processes together and must be a multiple of their number, {processes}",
        s.batch,
    )
    rule(_available(s.device), "device must be cpu or a CUDA device that PyTorch sees", s.device)
    if s.dtd_dir is not None:
        from torchvision.datasets.folder import IMG_EXTENSIONS

        rule(s.host == "draem", "dtd_dir is for draem", s.host)
        found = any(path.suffix in IMG_EXTENSIONS for path in s.dtd_dir.rglob("*"))
        rule(found, "dtd_dir must be a folder with images", s.dtd_dir)
    rule(not s.flow_loss or s.host == "future-frame", "flow_loss is for future-frame", s.host)
    rule(
        s.flow_loss == (s.flow_weights is not None),
        "flow_loss and flow_weights go together: the loss needs torchvision's file of RAFT (small)",
        f"flow_loss {s.flow_loss}, flow_weights {s.flow_weights}",
    )
    if s.flow_weights is not None:
        from .hosts.future_frame import FLOW_SIZE, load_flow

        rule(s.size >= FLOW_SIZE, f"RAFT needs a size of at least {FLOW_SIZE}", s.size)
        try:
            load_flow(s.flow_weights)
        except ValueError as error:
            raise SettingsError(str(error)) from error
    _check_output(settings)


def _available(device: str) -> bool:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # the latter from a build without CUDA
        return False
    return device.startswith(("cpu", "cuda"))


def _check_output(settings: Settings) -> None:
    """A folder in which a run has begun is only gone on with by the same run."""
    path = settings.output / "settings.json"
    if not path.exists():
        return
    before, now = json.loads(path.read_text()), settings.fixed()
    differing = [name for name in now if before.get(name) != now[name]]
    if differing:
        raise SettingsError(
            f"{settings.output} holds a run with other settings, which must be the same to go on "
            "with it (or choose another output); got "
            + ", ".join(f"{name} {now[name]} after {before.get(name)}" for name in differing)
        )


def load(settings: Settings) -> dict[str, ImageData | VideoData]:
    """The data of each category, or of ``""`` for videos; files are read later.

    Raises:
        DataError: the folder is not as its publisher distributes it.
        SettingsError: less data for training than one batch.
    """
    data: dict[str, ImageData | VideoData] = {}
    for category in settings.categories:
        data[category] = load_images(settings.data, settings.root, category, settings.size)
    if not settings.categories:
        data[""] = load_videos(settings.data, settings.root, settings.size, CONTEXT)
    for name, part in data.items():
        if len(part.train) < settings.batch:  # type: ignore[arg-type]
            raise SettingsError(
                f"batch must not exceed the training data of {name or settings.data}, "
                f"{len(part.train)}; got {settings.batch}"  # type: ignore[arg-type]
            )
    return data


def run(settings: Settings) -> list[report.Result]:
    """Trains whatever is not trained yet, then evaluates all of it and writes what was found.

    Under ``torchrun`` all processes train and the first one evaluates; the others return nothing.

    Raises:
        SettingsError, DataError: before anything is written.
    """
    check(settings)
    data = load(settings)
    rank, _ = ranks()
    experiments = [
        Experiment(category, block, seed)
        for category in data
        for seed in range(settings.seeds)
        for block in settings.blocks
    ]
    if rank == 0:
        for experiment in experiments:
            experiment.folder(settings.output).mkdir(parents=True, exist_ok=True)
        report.write_json(settings.output / "settings.json", settings.fixed())
    for experiment in experiments:
        _trained(settings, experiment, data[experiment.category])
    if dist.is_initialized():
        dist.destroy_process_group()  # so that nobody waits for the evaluation until a time-out
    if rank > 0:
        return []
    results = [_evaluated(settings, e, data[e.category]) for e in experiments]
    report.write_results(settings.output, results)
    return results


def _trained(
    settings: Settings, experiment: Experiment, data: ImageData | VideoData
) -> tuple[Host, Trained]:
    """A host trained to the end; at once if its checkpoint says that it is."""
    host = _host(settings, experiment)
    training = Training(
        settings.epochs,
        settings.batch,
        settings.learning_rate,
        experiment.seed,
        settings.loss_weight,
        settings.amp,
    )
    trained = train(
        host,
        data.train,
        training,
        experiment.folder(settings.output) / "checkpoint.pt",
        checkpoint_every=settings.checkpoint_every,
        workers=settings.workers,
        title=f"train {experiment}",
    )
    return host, trained


def _evaluated(
    settings: Settings, experiment: Experiment, data: ImageData | VideoData
) -> report.Result:
    host, trained = _trained(settings, experiment, data)
    device = _device(settings)
    title = f"evaluate {experiment}"
    started = time.monotonic()
    if isinstance(data, ImageData):
        assert isinstance(host, ImageHost)
        found = evaluate_images(host, data.test, settings.batch, amp=settings.amp, title=title)
    else:
        assert isinstance(host, VideoHost)
        found = evaluate_videos(host, data, CONTEXT, settings.batch, amp=settings.amp, title=title)
    seconds = time.monotonic() - started
    losses = trained.losses.tolist()
    folder = experiment.folder(settings.output)
    result = report.Result(
        data=settings.data,
        miniature=(settings.root / MINIATURE).exists(),
        host=settings.host,
        category=experiment.category,
        block=experiment.block,
        seed=experiment.seed,
        dtype=settings.dtype,
        metrics=found.metrics,
        regions_from=found.regions_from,
        losses=losses,
        train_seconds=trained.seconds,
        evaluate_seconds=seconds,
        environment=str(Environment.here(device, torch.backends.cudnn.allow_tf32)),
    )
    report.write_json(folder / "result.json", asdict(result))
    figures.draw(folder, f"{settings.data}, {settings.host}: {experiment}", found, losses)
    return result


def _host(settings: Settings, experiment: Experiment) -> Host:
    """With the weights that the seed gives."""
    checkpoint.seed_everything(experiment.seed)
    block = Block(
        experiment.block, settings.kernel_dim, settings.dilation, settings.reduction_ratio
    )
    host = make_host(settings.host, block, settings.width, settings.dtd_dir, settings.flow_weights)
    return host.to(_device(settings), getattr(torch, settings.dtype))


def _device(settings: Settings) -> torch.device:
    local = os.environ.get("LOCAL_RANK")
    return torch.device(
        f"cuda:{local}" if settings.device == "cuda" and local is not None else settings.device
    )


def make_deterministic() -> None:
    """Settings of the process that make results repeatable, where PyTorch can."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextlib.contextmanager
def processes(device: str) -> Iterator[None]:
    """The processes that ``torchrun`` started, brought together; nothing without it."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
