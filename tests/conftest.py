"""Devices at hand, seeds and the settings that every comparison shares."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, settings

import sspcab_cuda
from sspcab_cuda import losses

HAS_CUDA = torch.cuda.is_available() and bool(sspcab_cuda.build_info()["cuda"])
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)] if HAS_CUDA else ["cpu"]

settings.register_profile(
    "sspcab",
    deadline=None,
    max_examples=30,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("sspcab")

# PyTorch lets cuDNN round float32 convolutions to TF32 unless told otherwise. Not by
# cudnn.conv.fp32_precision: torch.export reads allow_tf32, which raises once that was written.
torch.backends.cudnn.allow_tf32 = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="needs a CUDA device and a build with CUDA")
    for item in items:
        if not HAS_CUDA and item.get_closest_marker("cuda"):
            item.add_marker(skip)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def anomalib() -> ModuleType:
    """An extra of its own: it needs torchvision, which needs the newest torch, built for CUDA."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("anomalib.models", reason="needs pip install 'sspcab_cuda[anomalib]'")
        import anomalib
    return anomalib


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_collection_stays_active() -> Iterator[None]:
    yield
    assert losses.active() is None
