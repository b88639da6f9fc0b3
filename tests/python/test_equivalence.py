"""What is converted computes the same, or isn't converted."""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

import sspcab_cuda
from sspcab_cuda import reference
from sspcab_cuda.convert import from_upstream

from ..helpers import upstream


class Residual(upstream.SSPCAB):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Reflecting(upstream.SSPCAB):
    """Pads by reflection."""

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (self.pad,) * 4, mode="reflect")
        total = reference.masked_conv2d(
            padded,
            [c.weight for c in (self.conv1, self.conv2, self.conv3, self.conv4)],
            [
                c.bias
                for c in (self.conv1, self.conv2, self.conv3, self.conv4)
                if c.bias is not None
            ],
            self.pad - self.conv1.kernel_size[0],
        )
        result: Tensor = self.se(total[..., self.pad : -self.pad, self.pad : -self.pad])
        return result


class TwiceAsMuch(upstream.SSPCAB):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class WithLoss(upstream.SSPCAB):
    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)
        return out, (out - x).square().mean()


class TwiceInTraining(upstream.SSPCAB):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + self.training)


class Smaller(upstream.SSPCAB):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., 1:]


class Leaky(upstream.SSPCAB):
    """A module that computes otherwise isn't there to be seen."""

    def __init__(self, *arguments: int) -> None:
        super().__init__(*arguments)
        del self.relu

    def relu(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return nn.functional.leaky_relu(x)


class Failing(upstream.SSPCAB):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("x")


OTHERS = [
    (Residual, "its results are up to "),
    (Reflecting, "its results are up to "),
    (TwiceAsMuch, "its results are up to "),
    (WithLoss, "it returns a tuple, in evaluation mode"),
    (TwiceInTraining, "in training mode"),
    (Smaller, "it returns torch.float32 of (2, 16, 9, 7), not torch.float32 of (2, 16, 9, 8)"),
    (Leaky, "its results are up to "),
    (Failing, "it can't be tried: KeyError: 'x'"),
]


@pytest.mark.parametrize(("kind", "message"), OTHERS, ids=[k.__name__ for k, _ in OTHERS])
def test_what_computes_something_else(
    kind: type[upstream.SSPCAB], message: str, device: str
) -> None:
    """Names and structure are right. Nothing is changed, in a model neither."""
    block = kind(16, 2, 1, 4).to(device)
    model = nn.Sequential(upstream.SSPCAB(16), block)
    before = list(model)
    named = (
        f"a tests.python.test_equivalence.{kind.__name__}, must compute what the block that takes"
    )
    calls: list[tuple[str, Callable[[], object]]] = [
        ("block", lambda: from_upstream(block)),
        ("1", lambda: sspcab_cuda.replace(model, [kind])),
    ]
    for where, call in calls:
        with pytest.raises(ValueError, match=f"^sspcab: {where}, {named}") as caught:
            call()
        assert message in str(caught.value)
    assert list(model) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("kind", [upstream.SSPCAB, Residual, Leaky])
def test_the_trial_in_other_dtypes(
    kind: type[upstream.SSPCAB], dtype: torch.dtype, device: str
) -> None:
    block = kind(24, 1, 2, 4).to(device, dtype)
    with contextlib.nullcontext() if kind is upstream.SSPCAB else pytest.raises(ValueError):
        assert from_upstream(block).conv1 is block.conv1


def test_the_trial_leaves_everything_as_it_was() -> None:
    """Buffers, modes, what a block counts, random numbers, hooks."""

    class Counting(upstream.SSPCAB):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            torch.rand(3)
            return super().forward(x)

    block = Counting(16)
    block.se.eval()
    for name in ("conv1", "se.fc2"):
        nn.utils.parametrizations.spectral_norm(block.get_submodule(name))
    block.register_forward_hook(lambda *_: pytest.fail("the block was called"))
    state = {name: value.clone() for name, value in block.state_dict().items()}
    modes = [module.training for module in block.modules()]
    random = torch.get_rng_state()
    new = from_upstream(block)
    assert block.calls == 0 and [module.training for module in block.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in new.parameters())
    for name, value in new.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan"), 1e30])
def test_whatever_the_parameters_are(value: float) -> None:
    """A block that a checkpoint is still to be loaded into."""
    for kind in (upstream.SSPCAB, TwiceAsMuch):
        block = kind(16)
        for parameter in block.parameters():
            nn.init.constant_(parameter, value)
        with contextlib.nullcontext() if kind is upstream.SSPCAB else pytest.raises(ValueError):
            assert from_upstream(block).conv1 is block.conv1


@pytest.mark.parametrize("without_values", [lambda: torch.device("meta"), FakeTensorMode])
def test_parameters_without_values(without_values: Callable[[], Any]) -> None:
    with without_values():
        block, other, spectral = upstream.SSPCAB(16), TwiceAsMuch(16), upstream.SSPCAB(16)
        nn.utils.parametrizations.spectral_norm(spectral.conv1)
        for right in (block, spectral):
            assert from_upstream(right).conv1 is right.conv1
        with pytest.raises(ValueError, match="its results are up to"):
            from_upstream(other)
    assert from_upstream(block).conv1.weight is block.conv1.weight


def test_a_power_iteration_is_one_however_often_a_weight_is_read() -> None:
    block = upstream.SSPCAB(16, 3)  # reads it 9 times
    nn.utils.parametrizations.spectral_norm(block.conv1)
    assert from_upstream(block).conv1 is block.conv1


def test_nobody_notices_the_trial() -> None:
    """Hooks of every module, contexts that collect losses or count operations."""
    block = upstream.SSPCAB(16)
    called: list[nn.Module] = []
    handles = [
        register(lambda module, *_: called.append(module))
        for register in (register_module_forward_pre_hook, register_module_forward_hook)
    ]
    try:
        with (
            sspcab_cuda.collect_reconstruction_losses() as losses,
            FlopCounterMode(display=False) as counter,
        ):
            from_upstream(block)
    finally:
        for handle in handles:
            handle.remove()
    assert called == [] and len(losses) == 0 and counter.get_total_flops() == 0


def test_hooks_are_not_copied() -> None:
    """They may hold the host, and what can't be copied."""
    block, lock = upstream.SSPCAB(16), threading.Lock()
    block.register_forward_hook(lambda *_, lock=lock: None)
    block.register_forward_pre_hook(functools.partial(print, lock))
    block.register_state_dict_post_hook(functools.partial(print, lock))
    assert from_upstream(block).conv1 is block.conv1


def test_copies_give_their_memory_back_at_once() -> None:
    block = upstream.SSPCAB(16)
    gc.collect()
    gc.disable()
    try:
        before = sum(type(thing) is nn.Conv2d for thing in gc.get_objects())
        from_upstream(block)
        assert sum(type(thing) is nn.Conv2d for thing in gc.get_objects()) == before
    finally:
        gc.enable()


def test_a_dtype_that_is_not_ours() -> None:
    block = upstream.SSPCAB(16).to(torch.float8_e4m3fn)
    with pytest.raises(ValueError, match=r"^sspcab: block, .* it can't be tried: "):
        from_upstream(block)
