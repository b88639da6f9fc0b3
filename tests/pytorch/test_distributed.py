"""Two processes with half of a batch each train as one with the whole of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import sspcab_cuda

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")

STEPS = 3
MODES = (
    "ddp",
    "ddp_static_graph",
    "ddp_collected",
    "ddp_collected_static_graph",
    "ddp_collected_find_unused_parameters",
    "fsdp_host",
    "fsdp_block_in_host",
    "fsdp_block_in_host_collected",
    "fsdp_layers_in_host",
)
Results = dict[str, Tensor]


class Host(nn.Module):
    """The reconstruction loss is an output, or collected by who calls the host."""

    def __init__(self, collected: bool = False) -> None:
        super().__init__()
        self.collected = collected
        self.encoder = nn.Conv2d(3, 6, 3, padding=1)
        self.block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
        self.decoder = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.collected:
            return self.decoder(self.block(self.encoder(x)))
        out, loss = self.block(self.encoder(x), return_loss=True)
        return self.decoder(out), loss


def host(collected: bool = False) -> Host:
    torch.manual_seed(3)
    return Host(collected).double()


def images() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(4)
    for _ in range(STEPS):
        yield torch.randn(4, 3, 7, 6, generator=generator, dtype=torch.float64)


def train(model: nn.Module, part: slice) -> Results:
    """Parameters and last gradients, by name, after some steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for batch in images():
        x = batch[part]
        with sspcab_cuda.collect_reconstruction_losses() as losses:
            result = model(x)
        out, loss = (result, losses[0]) if isinstance(result, Tensor) else result
        optimizer.zero_grad()
        ((out - x).square().mean() + 0.1 * loss).backward()
        optimizer.step()
    state = dict(model.named_parameters())
    return {
        **{name: whole(p.detach()) for name, p in state.items()},
        **{f"grad of {name}": whole(p.grad) for name, p in state.items()},
    }


def whole(tensor: Any) -> Tensor:
    """Of a tensor or of its shards."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def work(rank: int, folder: str) -> None:
    """What each of the two processes does."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    part = slice(2 * rank, 2 * rank + 2)
    results: dict[str, Any] = {}
    for mode in MODES:
        model = host("collected" in mode)
        if mode.startswith("ddp"):
            wrapped = DistributedDataParallel(
                model, static_graph="static" in mode, find_unused_parameters="unused" in mode
            )
            results[mode] = train(wrapped, part)
            results[f"{mode}: state"] = wrapped.state_dict()
        else:
            if "layers" in mode:  # which the block calls then
                for layer in (module for module in model.modules() if not [*module.children()]):
                    fully_shard(layer, mesh=mesh)
            if "block" in mode:
                fully_shard(model.block, mesh=mesh)
            fully_shard(model, mesh=mesh)
            results[mode] = train(model, part)
    torch.save(results, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("mode", MODES)
def test_as_one_process(results: list[dict[str, Any]], mode: str) -> None:
    expected = train(host(), slice(None))
    assert len(expected) == 2 * 16
    for result in results:
        ours = {name.replace("module.", ""): tensor for name, tensor in result[mode].items()}
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)


def test_keys_of_a_checkpoint(results: list[dict[str, Any]]) -> None:
    """DDP's differ by the prefix alone."""
    state = results[0]["ddp: state"]
    assert set(state) == {f"module.{name}" for name in host().state_dict()}
    model = host()
    model.load_state_dict({name.removeprefix("module."): t for name, t in state.items()})
    torch.testing.assert_close(
        {f"module.{name}": p.detach() for name, p in model.named_parameters()},
        {name: results[0]["ddp"][name] for name in state},
    )
