"""Data sets and settings that the tests here share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.detection.data import (
    frames,
    mini_videos,
)
from benchmarks.detection.hosts import HOSTS

from .data_cases import SEED, Written, write_avenue, write_mvtec, write_shanghaitech


@pytest.fixture(autouse=True)
def settings_of_the_process(one_thread: None) -> Iterator[None]:
    """Undo what a run sets for the whole process."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    cudnn.deterministic, cudnn.benchmark = before
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


@pytest.fixture(params=HOSTS)
def name(request: pytest.FixtureRequest) -> str:
    """Each host; DRAEM where anomalib is installed."""
    if request.param == "draem":
        request.getfixturevalue("anomalib")
    return str(request.param)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp("data")
    drawn: list[mini_videos.Rendered] = []
    render = mini_videos.render

    def recorded(*args: object) -> mini_videos.Rendered:
        drawn.append(render(*args))  # type: ignore[arg-type]
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini_videos, "render", recorded)
        write_mvtec(root / "mvtec", SEED)
        write_avenue(root / "avenue", SEED)
        count = len(drawn)
        write_shanghaitech(root / "shanghaitech", SEED)
    return Written(root, drawn[:count], drawn[count:])


@pytest.fixture
def root(written: Written, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(written.root, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_kept", frames._Kept(0))
