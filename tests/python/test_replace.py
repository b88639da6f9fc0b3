"""replace: every block of a model, in place, or nothing at all."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sspcab_cuda
from sspcab_cuda import reference

from ..helpers import upstream

CHANNELS = 16


class Host(nn.Module):
    """Blocks at several depths, in several containers, and one in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = upstream.SSPCAB(CHANNELS)
        self.encoder = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.Sequential(OrderedDict(block=upstream.SSPCAB(CHANNELS))),
        )
        self.more = nn.ModuleDict({"again": self.first, "last": upstream.SSPCAB(CHANNELS)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        for block in (self.first, *self.more.values()):
            x = x + block(x)
        return x


NAMES = ["first", "encoder.1.block", "more.again", "more.last"]


def image() -> Tensor:
    return torch.randn(2, CHANNELS, 7, 8, dtype=torch.float64)


def modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(model.named_modules(remove_duplicate=False))


def test_every_block() -> None:
    model, x = Host().double(), image()
    expected, parameters, before = model(x), list(model.parameters()), dict(modules(model))
    replaced = sspcab_cuda.replace(model)
    assert list(replaced) == NAMES
    for name, old in replaced.items():
        assert old is before[name]
        assert type(model.get_submodule(name)) is sspcab_cuda.SSPCAB
    assert model.first is model.more["again"]
    assert model.first is not model.more["last"]
    assert not any(isinstance(m, upstream.SSPCAB) for m in model.modules())
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_a_second_call_finds_nothing() -> None:
    model = Host()
    sspcab_cuda.replace(model)
    before = modules(model)
    assert sspcab_cuda.replace(model) == {}
    assert modules(model) == before


def test_back_again() -> None:
    model = Host()
    before = modules(model)
    for name, old in sspcab_cuda.replace(model).items():
        model.set_submodule(name, old)
    assert modules(model) == before


def test_blocks_of_both_kinds(anomalib: ModuleType) -> None:
    layers = anomalib.models.components.layers
    model = nn.Sequential(upstream.SSPCAB(CHANNELS), layers.SSPCAB(CHANNELS, 2)).double()
    x = image()
    expected = model(x)
    assert list(sspcab_cuda.replace(model)) == ["0", "1"]
    assert [block.variant for block in model] == ["paper", "anomalib"]
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    losses = []
    for seed in range(steps):
        x = torch.randn(
            (2, CHANNELS, 7, 8),
            generator=torch.Generator().manual_seed(seed),
            dtype=torch.float64,
        )
        loss = (model(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_optimizer_stays() -> None:
    """Adam's state goes by parameter, and in a checkpoint by position."""
    model = Host().double()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    train(model, optimizer, 2)
    other = copy.deepcopy(model)
    sspcab_cuda.replace(other)
    resumed = torch.optim.Adam(other.parameters())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    third = copy.deepcopy((model, optimizer))

    expected = train(model, optimizer, 3)
    assert train(other, resumed, 3) == pytest.approx(expected, rel=1e-9)
    model, optimizer = third
    sspcab_cuda.replace(model)
    assert train(model, optimizer, 3) == pytest.approx(expected, rel=1e-9)


class Log(list[Any]):
    def hook(self, name: str) -> Callable[..., None]:
        def called(module: nn.Module, *arguments: Any) -> None:
            self.append((name, type(module), len(arguments)))

        return called


def test_hooks() -> None:
    model, log = Host().double(), Log()
    block = model.first
    handles = [
        block.register_forward_pre_hook(log.hook("pre"), with_kwargs=True),
        block.register_forward_hook(log.hook("post"), with_kwargs=True, always_call=True),
        block.register_full_backward_pre_hook(log.hook("backward pre")),
        block.register_full_backward_hook(log.hook("backward")),
    ]
    sspcab_cuda.replace(model)
    model.first(image().requires_grad_()).sum().backward()
    assert log == [
        ("pre", sspcab_cuda.SSPCAB, 2),  # positional and keyword arguments
        ("post", sspcab_cuda.SSPCAB, 3),
        ("backward pre", sspcab_cuda.SSPCAB, 1),
        ("backward", sspcab_cuda.SSPCAB, 2),
    ]

    log.clear()
    with pytest.raises(RuntimeError):
        model.first(torch.zeros(1))
    assert [name for name, *_ in log] == ["pre", "post"]  # for always_call

    for handle in handles:
        handle.remove()
    log.clear()
    model.first(image().requires_grad_()).sum().backward()
    assert log == []


def test_what_a_hook_returns() -> None:
    model, x = Host().double(), image()
    model.first.register_forward_pre_hook(lambda _, arguments: (2 * arguments[0],))
    model.first.register_forward_hook(lambda _, __, out: out + 1)
    expected = model(x)
    sspcab_cuda.replace(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


UNFIT: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "structure": (
        lambda block: setattr(block, "conv2", nn.Conv2d(CHANNELS, CHANNELS, 1, stride=2)),
        "more.last.conv2 must be Conv2d(16, 16, kernel_size=(1, 1), stride=(1, 1)); got "
        "Conv2d(16, 16, kernel_size=(1, 1), stride=(2, 2))",
    ),
    "inner hook": (
        lambda block: block.conv3.register_forward_hook(lambda *_: None),  # type: ignore[union-attr]
        "more.last.conv3 must have no such hooks and "
        "no forward of its own to be converted; got forward_hooks",
    ),
    "state_dict hook": (
        lambda block: block.register_load_state_dict_pre_hook(lambda *_: None),
        "more.last must have no such hooks and no "
        "forward of its own to be converted; got load_state_dict_pre_hooks",
    ),
    "compiled in place": (
        lambda block: block.compile(),
        "more.last is compiled; replace first, then compile",
    ),
}


@pytest.mark.parametrize(("change", "message"), UNFIT.values(), ids=UNFIT)
def test_all_or_nothing(change: Callable[[nn.Module], object], message: str) -> None:
    model = Host().double()
    change(model.more["last"])
    before = modules(model)
    with pytest.raises(ValueError, match=f"^sspcab: {re.escape(message)}$"):
        sspcab_cuda.replace(model)
    assert modules(model) == before


def test_a_compiled_block() -> None:
    model = nn.Sequential()
    model.add_module("block", torch.compile(upstream.SSPCAB(CHANNELS)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^sspcab: block\._orig_mod is compiled; replace first"):
        sspcab_cuda.replace(model)


def test_a_block_by_itself(anomalib: ModuleType) -> None:
    for block, converter in (
        (upstream.SSPCAB(CHANNELS), "from_upstream"),
        (anomalib.models.components.layers.SSPCAB(CHANNELS), "from_anomalib"),
    ):
        message = rf"this model is a block: use sspcab_cuda\.convert\.{converter}$"
        with pytest.raises(ValueError, match=message):
            sspcab_cuda.replace(block)
    with pytest.raises(TypeError, match=r"^sspcab: model must be a torch.nn.Module; got list$"):
        sspcab_cuda.replace([])  # type: ignore[arg-type]


class Renamed(upstream.SSPCAB):
    """A copy of theirs, for all one knows."""


def test_others_are_left_alone() -> None:
    stranger = type("SSPCAB", (nn.Linear,), {})
    parts = [Renamed(CHANNELS), sspcab_cuda.SSPCAB(CHANNELS), nn.Conv2d(1, 1, 1)]
    model = nn.Sequential(*parts)
    assert sspcab_cuda.replace(model) == {}
    assert list(model) == parts
    others = nn.Sequential(upstream.SSPCAB(CHANNELS), stranger(2, 2), reference.SSPCAB(CHANNELS))
    with pytest.warns(UserWarning) as caught:
        assert list(sspcab_cuda.replace(others)) == ["0"]
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2
    assert messages[0].startswith("sspcab: 1 must have conv1, conv2, ")
    assert messages[1] == (
        "sspcab: 2 must have conv1, conv2, conv3, conv4, se.fc1, se.fc2, pad, border_input; got "
        "SSPCAB without pad, border_input. It is left as it is, and isn't accelerated"
    )


def test_classes_by_another_name() -> None:
    x = torch.randn(2, CHANNELS, 7, 8)
    model = nn.Sequential(Renamed(CHANNELS), nn.Sequential(upstream.SSPCAB(CHANNELS)))
    expected = model(x)
    assert list(sspcab_cuda.replace(model, classes=[Renamed])) == ["0", "1.0"]
    torch.testing.assert_close(model(x), expected)
    with pytest.raises(ValueError, match=r"^sspcab: 0 must have .* got Linear without"):
        sspcab_cuda.replace(nn.Sequential(nn.Linear(2, 2)), [nn.Linear])
    for wrong in ([int], ["Renamed"], Renamed, "Renamed"):
        with pytest.raises(TypeError, match=r"^sspcab: classes must be classes of torch.nn.Module"):
            sspcab_cuda.replace(model, wrong)  # type: ignore[arg-type]


def test_classes_from_a_generator() -> None:
    model = nn.Sequential(nn.ReLU(), Renamed(CHANNELS))
    kinds = (kind for kind in [Renamed])
    assert list(sspcab_cuda.replace(model, kinds)) == ["1"]  # type: ignore[arg-type]


def test_a_wrapped_model() -> None:
    model = nn.DataParallel(Host())
    assert list(sspcab_cuda.replace(model)) == [f"module.{name}" for name in NAMES]
