"""Activations as modules: where the published layer has them, fused while they are untouched."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sspcab_cuda
from sspcab_cuda.reference import Variant

from ..helpers import published, upstream
from ..helpers.tolerances import assert_equal
from .test_submodules import doubled, operators_of, results_of

CALLS = pytest.mark.filterwarnings("ignore:sspcab. .* calls its sub-modules")
VARIANTS: dict[Variant, type[nn.Module]] = {
    "paper": nn.ReLU,
    "anomalib": nn.Identity,
    "tensorflow": nn.ReLU,
}


def pair(*arguments: Any) -> tuple[Any, Any]:
    """Ours and the published structure, with the same weights."""
    torch.manual_seed(2)
    ours, theirs = sspcab_cuda.SSPCAB(*arguments), published.SSPCAB(*arguments)
    theirs.load_state_dict(ours.state_dict())
    return ours.double(), theirs.double()


def image() -> Tensor:
    return torch.randn(2, 6, 7, 8, dtype=torch.float64)


def test_the_attributes_of_the_published_layer() -> None:
    ours, theirs = sspcab_cuda.SSPCAB(16, 3, 2, 4), upstream.SSPCAB(16, 3, 2, 4)
    assert (ours.pad, ours.border_input) == (theirs.pad, theirs.border_input) == (5, 8)
    assert ours.se.reduction_ratio == theirs.se.reduction_ratio == 4
    names = [(name, type(module).__name__) for name, module in theirs.named_modules()]
    assert [(name, type(module).__name__) for name, module in ours.named_modules()] == names
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with pytest.raises(AttributeError):
        ours.pad = 3  # type: ignore[misc]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_each_variant_has(variant: Variant) -> None:
    block: Any = sspcab_cuda.SSPCAB(6, 2, 1, 2, variant)
    assert type(block.relu) is VARIANTS[variant]
    calls: list[None] = []
    block.relu.register_forward_hook(lambda *_: calls.append(None))
    with pytest.warns(UserWarning, match="relu has the forward hook"):
        block(image().float())
    assert len(calls) == (4 if variant == "tensorflow" else 1)


def test_in_place_is_fused_too() -> None:
    block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
    x = torch.randn(2, 6, 5, 5)
    expected = block(x)
    block.relu, block.se.relu = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
    assert operators_of(block, x) == ["sspcab_inference"]
    assert_equal(block(x).detach(), expected.detach())


@CALLS
@pytest.mark.parametrize("hooked", ["relu", "conv2", "se.relu", "se.fc1", "se.sigmoid"])
def test_in_place_in_training(hooked: str) -> None:
    results = []
    for block in pair(6, 2, 1, 2):
        block.relu, block.se.relu = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        block.get_submodule(hooked).register_forward_hook(lambda *_: None)
        torch.manual_seed(3)
        results.append(results_of(block, image()))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


def positive(module: nn.Module, grad_inputs: Any, grad_outputs: Any) -> tuple[Tensor]:
    return (grad_inputs[0].relu(),)


@CALLS
def test_guided_backpropagation() -> None:
    """Of all ReLUs that a model has: gradients that are negative don't pass."""
    results = []
    for block in pair(6, 2, 1, 2):
        for module in block.modules():
            if isinstance(module, nn.ReLU):
                module.register_full_backward_hook(positive)
        torch.manual_seed(3)
        results.append(results_of(block, image()))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)
    plain = results_of(pair(6, 2, 1, 2)[0], image())
    assert not torch.allclose(results[0][2], plain[2])


@CALLS
def test_every_relu_of_a_model_is_swapped() -> None:
    results = []
    for block in pair(6, 2, 1, 2):
        for owner in list(block.modules()):
            for name, child in owner.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(owner, name, nn.SiLU())
        torch.manual_seed(3)
        results.append(results_of(block, image()))
        assert "ReLU" not in repr(block)
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@CALLS
def test_captured_and_copied() -> None:
    """Compiled, exported, scripted, copied and pickled, with another activation and a hook."""
    torch.compiler.reset()
    block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
    block.relu = nn.GELU()
    x = torch.randn(2, 6, 5, 5)
    expected = block(x)
    block.se.sigmoid.register_forward_hook(doubled)
    hooked = block(x)
    assert not torch.equal(expected, hooked)
    for other in (
        torch.compile(block, fullgraph=True, backend="aot_eager"),
        torch.export.export(block, (x,)).module(),
        copy.deepcopy(block),
        pickle.loads(pickle.dumps(block)),
    ):
        torch.testing.assert_close(other(x), hooked)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("variant", VARIANTS)
@CALLS
def test_scripted(variant: Variant) -> None:
    block: Any = sspcab_cuda.SSPCAB(6, 2, 1, 2, variant)
    block.relu, block.se.sigmoid = nn.Tanh(), nn.Hardsigmoid()
    x = torch.randn(2, 6, 7, 8)
    torch.testing.assert_close(torch.jit.script(block)(x), block(x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_pickled_before_activations_were_modules(variant: Variant) -> None:
    block = sspcab_cuda.SSPCAB(6, 2, 1, 2, variant).eval()
    x = torch.randn(2, 6, 7, 8)
    expected = block(x)
    old = copy.deepcopy(block)
    del old.relu, old.se.relu, old.se.sigmoid, old.se.reduction_ratio
    loaded = pickle.loads(pickle.dumps(old))
    assert {n for n, _ in loaded.named_modules()} == {n for n, _ in block.named_modules()}
    assert type(loaded.relu) is VARIANTS[variant]
    assert not any(module.training for module in loaded.modules())
    assert_equal(loaded(x).detach(), expected.detach())
    part = sspcab_cuda.MaskedConv2d(6)
    expected = part(x)
    del part.relu
    assert_equal(pickle.loads(pickle.dumps(part))(x).detach(), expected.detach())


def test_nothing_in_place_of_an_activation() -> None:
    block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
    block.se.relu = None  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match=r"^sspcab: se\.relu must be a module; got None$"):
        block(torch.zeros(1, 6, 3, 3))
