"""Parametrisations and hooks that recompute parameters: the block runs them and doesn't call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as spectral_norm_hook
from torch.nn.utils import weight_norm as weight_norm_hook

import sspcab_cuda

from ..helpers import published

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")

PARTS = ("conv1", "conv2", "conv3", "conv4", "se.fc1", "se.fc2")
KERNEL_DIM, DILATION = 2, 1


class Symmetric(nn.Module):
    """A parametrisation of the user's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return (weight + weight.flip(0)) / 2


class Halved(prune.BasePruningMethod):
    """A pruning method of the user's own."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        mask = default_mask.clone()
        mask.view(-1)[::2] = 0
        return mask


def prune_twice(module: nn.Module) -> None:
    prune.l1_unstructured(module, "weight", 0.3)
    prune.random_unstructured(module, "weight", 0.3)
    Halved.apply(module, "bias")


RECOMPUTED: dict[str, Callable[[nn.Module], object]] = {
    "weight_norm": weight_norm_hook,
    "spectral_norm": spectral_norm_hook,
    "prune": prune_twice,
    "parametrizations.weight_norm": parametrizations.weight_norm,
    "parametrizations.spectral_norm": parametrizations.spectral_norm,
    "parametrize": lambda module: parametrize.register_parametrization(
        module, "weight", Symmetric()
    ),
}


def changed(
    kind: type[nn.Module], how: str, device: str
) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    block = kind(6, KERNEL_DIM, DILATION, 2).to(device, torch.float64)
    for name in PARTS:
        RECOMPUTED[how](block.get_submodule(name))
    return block, torch.optim.SGD(block.parameters(), lr=0.5)


def steps(
    function: Callable[..., Any], block: nn.Module, optimizer: torch.optim.Optimizer, device: str
) -> Iterator[Tensor]:
    """Outputs, losses and gradients of three steps of training, and the state at the end."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        x = torch.randn(2, 6, 7, 8, generator=generator, dtype=torch.float64).to(device)
        out, loss = function(x, return_loss=True)
        optimizer.zero_grad()
        (out.square().mean() + loss).backward()
        yield from (out.detach(), loss.detach())
        for parameter in block.parameters():
            assert parameter.grad is not None
            yield parameter.grad
        optimizer.step()
    yield from block.state_dict().values()


@pytest.mark.parametrize("how", RECOMPUTED)
def test_recomputed_parameters(how: str, device: str) -> None:
    """Weights follow their parameters, and power iterations go on, as if the parts were called."""
    block, optimizer = changed(sspcab_cuda.SSPCAB, how, device)
    called, its_optimizer = changed(published.SSPCAB, how, device)
    results = [*steps(block, block, optimizer, device)]
    expected = [*steps(called, called, its_optimizer, device)]
    assert len(results) >= 3 * 14 + 12
    torch.testing.assert_close(results, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", ["weight_norm", "prune", "parametrizations.spectral_norm"])
def test_recomputed_under_compile(how: str) -> None:
    torch.compiler.reset()
    block, optimizer = changed(sspcab_cuda.SSPCAB, how, "cpu")
    eager, its_optimizer = changed(sspcab_cuda.SSPCAB, how, "cpu")
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    results = [*steps(compiled, block, optimizer, "cpu")]
    expected = [*steps(eager, eager, its_optimizer, "cpu")]
    torch.testing.assert_close(results, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm", "prune"])
def test_recomputed_in_the_parts(how: str) -> None:
    """MaskedConv2d and SELayer run the hooks themselves: weights follow their parameters."""
    for module, name in (
        (sspcab_cuda.MaskedConv2d(6), "conv3"),
        (sspcab_cuda.SELayer(6, 2), "fc1"),
    ):
        part = module.get_submodule(name)
        RECOMPUTED[how](part)
        x = torch.rand(2, 6, 5, 5)
        source = part.weight_v if how == "weight_norm" else part.weight_orig
        before = module.eval()(x)
        with torch.no_grad():
            source.copy_(source.flip(0))  # type: ignore[operator]
        assert not torch.equal(module(x), before)


def test_spectral_norm_goes_on_once_a_call() -> None:
    """Nothing is recomputed before it is known that everything can be read."""
    block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
    called = published.SSPCAB(6, reduction_ratio=2)
    called.load_state_dict(block.state_dict())
    x = torch.randn(2, 6, 5, 5)
    for one in (block, called):
        torch.manual_seed(4)
        spectral_norm_hook(one.conv1)
        one.se.fc2.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match=r"^sspcab: se\.fc2 has"):
        torch.testing.assert_close(block(x), called(x))
    torch.testing.assert_close(block.conv1.weight_u, called.conv1.weight_u)
