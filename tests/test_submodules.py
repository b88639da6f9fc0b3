"""Parametrisations and hooks on sub-modules, which the block reads and doesn't call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as spectral_norm_hook
from torch.nn.utils import weight_norm as weight_norm_hook

import sspcab_cuda

from .tolerances import assert_equal

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")

PARTS = ("conv1", "conv2", "conv3", "conv4", "se.fc1", "se.fc2")
KERNEL_DIM, DILATION = 2, 1


class CalledBlock(sspcab_cuda.SSPCAB):
    """The same parameters, with every sub-module called, as in the authors' code."""

    def forward(self, x: Tensor, return_loss: bool = False) -> Any:
        height, width = x.shape[2:]
        near, far = KERNEL_DIM - 1, KERNEL_DIM + 2 * DILATION + 1
        padded = F.pad(x, (KERNEL_DIM + DILATION,) * 4)
        top, bottom = padded[:, :, : height + near], padded[:, :, far:]
        y = self.conv1(top[..., : width + near]) + self.conv2(bottom[..., : width + near])
        y = (y + self.conv3(top[..., far:]) + self.conv4(bottom[..., far:])).relu()
        gate = self.se.fc2(self.se.fc1(y.mean(dim=(2, 3))).relu()).sigmoid()
        out = y * gate[:, :, None, None]
        return out, (out - x).square().mean()


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
    kind: type[sspcab_cuda.SSPCAB], how: str, device: str
) -> tuple[sspcab_cuda.SSPCAB, torch.optim.Optimizer]:
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
    called, its_optimizer = changed(CalledBlock, how, device)
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


class LowRank(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x


class Adapted(nn.Module):
    """Wraps a layer, as adapters and quantisers do."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


class Standardised(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight / weight.std(), bias)


class OtherGate(sspcab_cuda.SELayer):
    def forward(self, x: Tensor) -> Tensor:
        return x


class InputPruning(Halved):
    def __call__(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0] / 2,)


def hook(*_: Any) -> None:
    raise AssertionError("a hook that can't have the sub-module's inputs was run")


# What is done to a sub-module (a result takes its place), and what the message says of it.
Change = Callable[[Any], object]
ANYWHERE: list[tuple[Change, str]] = [
    (lambda m: m.register_forward_pre_hook(hook) and None,
     "have no hooks but those of weight_norm, spectral_norm and prune; got the forward pre-hook "
     "tests.test_submodules.hook. Please put it on the whole {owner}"),
    (lambda m: m.register_forward_pre_hook(hook, with_kwargs=True) and None,
     "got the forward pre-hook tests.test_submodules.hook"),
    (lambda m: m.register_forward_hook(hook) and None,
     "got the forward hook tests.test_submodules.hook"),
    (lambda m: m.register_full_backward_hook(hook) and None,
     "got the backward hook tests.test_submodules.hook"),
    (lambda m: m.register_full_backward_pre_hook(hook) and None,
     "got the backward pre-hook tests.test_submodules.hook"),
    (lambda m: m.register_forward_pre_hook(InputPruning()) and None,
     "got the forward pre-hook tests.test_submodules.InputPruning"),
    (lambda m: setattr(m, "forward", hook),
     "compute what {kind} does; got tests.test_submodules.hook. Please merge what that adds into "
     "weight and bias, or put it there by torch.nn.utils.parametrize"),
    (lambda m: nn.Identity(), "compute what {kind} does; got torch.nn.modules.linear.Identity"),
    (lambda m: torch.compile(m, backend="eager"),
     "compute what {kind} does; got torch._dynamo.eval_frame.OptimizedModule"),
]  # fmt: skip
CONVOLUTIONS: list[tuple[Change, str]] = [
    (lambda m: weight_norm_hook(m) and m.register_forward_hook(hook) and None, "forward hook"),
    (lambda m: parametrizations.weight_norm(m) and m.register_forward_hook(hook) and None,
     "got the forward hook tests.test_submodules.hook"),
    (lambda m: LowRank(6, 6, 1), "compute what Conv2d does; got "
     "tests.test_submodules.LowRank.forward"),
    (lambda m: Standardised(6, 6, 1), "compute what Conv2d does; got "
     "tests.test_submodules.Standardised._conv_forward"),
    (lambda m: nn.Conv2d(6, 6, 1, bias=False), "have a bias, of zeros if need be; got None"),
    (lambda m: nn.Conv2d(6, 6, 1, stride=2), "have stride, padding and dilation "
     "((1, 1), (0, 0), (1, 1)); got ((2, 2), (0, 0), (1, 1))"),
    (lambda m: nn.Conv2d(6, 6, 1, padding=1, dilation=2), "got ((1, 1), (1, 1), (2, 2))"),
]  # fmt: skip
LAYERS: list[tuple[Change, str]] = [
    (lambda m: Adapted(m), "compute what Linear does; got tests.test_submodules.Adapted"),
    (lambda m: nn.Linear(3, 6, bias=False), "have a bias, of zeros if need be; got None"),
]  # fmt: skip
GATES: list[tuple[Change, str]] = [
    (lambda m: OtherGate(6, 2), "compute what SELayer does; got "
     "tests.test_submodules.OtherGate.forward"),
]  # fmt: skip

MODULES: dict[str, Callable[[], nn.Module]] = {
    "SSPCAB": lambda: sspcab_cuda.SSPCAB(6, reduction_ratio=2),
    "MaskedConv2d": lambda: sspcab_cuda.MaskedConv2d(6),
    "SELayer": lambda: sspcab_cuda.SELayer(6, 2),
}
REFUSED = [
    (owner, name, kind, change, text)
    for owner, name, kind, changes in (
        ("SSPCAB", "conv1", "Conv2d", ANYWHERE + CONVOLUTIONS),
        ("SSPCAB", "conv4", "Conv2d", ANYWHERE[:1]),
        ("SSPCAB", "se", "SELayer", ANYWHERE + GATES),
        ("SSPCAB", "se.fc1", "Linear", ANYWHERE[:1]),
        ("SSPCAB", "se.fc2", "Linear", ANYWHERE + LAYERS),
        ("MaskedConv2d", "conv3", "Conv2d", ANYWHERE[:1] + CONVOLUTIONS[-1:]),
        ("SELayer", "fc2", "Linear", ANYWHERE[:1] + LAYERS),
    )
    for change, text in changes
]


@pytest.mark.parametrize(
    ("owner", "name", "kind", "change", "text"),
    REFUSED,
    ids=[f"{owner}-{name}-{text[-40:]}" for owner, name, *_, text in REFUSED],
)
def test_refused(owner: str, name: str, kind: str, change: Change, text: str) -> None:
    """By name, before any parameter is recomputed."""
    module = MODULES[owner]()
    spectral_norm_hook(module.get_submodule("fc1" if owner == "SELayer" else "conv2"))
    parent, _, attribute = name.rpartition(".")
    new = change(module.get_submodule(name))
    if new is not None:
        setattr(module.get_submodule(parent), attribute, new)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    expected = f"sspcab: {owner} reads the parameters of {name} and doesn't call it, so it must "
    with pytest.raises(RuntimeError, match="^" + re.escape(expected)) as caught:
        module(torch.randn(2, 6, 5, 5))
    assert text.format(owner=owner, kind=kind) in str(caught.value)
    for key, value in module.state_dict().items():
        assert_equal(value, state[key])


def test_nothing_in_place_of_a_sub_module() -> None:
    block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
    block.conv2 = None  # type: ignore[assignment]
    with pytest.raises(
        RuntimeError, match=r"of conv2 .* must compute what Conv2d does; got builti"
    ):
        block(torch.zeros(1, 6, 3, 3))


@pytest.mark.skipif(
    torch.__version__ < "2.14",
    reason="older graphs may miss later hooks: 2.10 does, with torch._dynamo's default setting",
)
def test_a_hook_that_comes_after_compilation() -> None:
    torch.compiler.reset()
    block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 6, 5, 5)
    expected = compiled(x)
    handle = block.conv1.register_forward_hook(hook)
    with pytest.raises(Exception, match="got the forward hook"):
        compiled(x)
    handle.remove()
    assert_equal(compiled(x).detach(), expected.detach())


def test_hooks_of_the_whole_block() -> None:
    block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
    x = torch.randn(2, 6, 5, 5)
    expected = 3 * block(2 * x)
    block.register_forward_pre_hook(lambda _, inputs: (2 * inputs[0],))
    block.register_forward_hook(lambda _, __, out: 3 * out)
    assert_equal(block(x).detach(), expected.detach())
