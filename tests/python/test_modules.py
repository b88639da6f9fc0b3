"""The modules: parameters as in the reference, copies, dtypes, descriptions."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import sspcab_cuda
from sspcab_cuda import checks, reference

from ..helpers import upstream
from ..helpers.tolerances import assert_equal


class HasIndex(int):
    """An integer of somebody's own."""


PAIRS = [
    (sspcab_cuda.SSPCAB, reference.SSPCAB, (16,)),
    (sspcab_cuda.SSPCAB, reference.SSPCAB, (12, 3, 2, 5)),
    (sspcab_cuda.SSPCAB, reference.SSPCAB, (4, 2)),  # C < r
    (sspcab_cuda.MaskedConv2d, reference.MaskedConv2d, (5,)),
    (sspcab_cuda.MaskedConv2d, reference.MaskedConv2d, (5, 2, 0)),
    (sspcab_cuda.SELayer, reference.SELayer, (16,)),
    (sspcab_cuda.SELayer, reference.SELayer, (4, 8)),
]
IDS = [f"{ours.__name__}{arguments}" for ours, _, arguments in PAIRS]

# Linear says so itself where there are no hidden units, in the authors' code too.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")


def build(module: type[nn.Module], arguments: tuple[int, ...], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return module(*arguments)


def image(arguments: tuple[int, ...], device: str = "cpu") -> Tensor:
    return torch.randn(2, arguments[0], 9, 10, device=device)


@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS, ids=IDS)
def test_initialisation_and_results(
    ours: type[nn.Module], theirs: type[nn.Module], arguments: tuple[int, ...], device: str
) -> None:
    module, expected = build(ours, arguments).to(device), build(theirs, arguments).to(device)
    state, expected_state = module.state_dict(), expected.state_dict()
    assert list(state) == list(expected_state)
    for name in state:
        assert_equal(state[name], expected_state[name])
    x = image(arguments, device)
    torch.testing.assert_close(module(x), expected(x))


@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS, ids=IDS)
def test_checkpoints_load_both_ways(
    ours: type[nn.Module], theirs: type[nn.Module], arguments: tuple[int, ...]
) -> None:
    for source, target in ((ours, theirs), (theirs, ours)):
        module, other = build(source, arguments, seed=1), build(target, arguments, seed=2)
        stream = io.BytesIO()
        torch.save(module.state_dict(), stream)
        stream.seek(0)
        other.load_state_dict(torch.load(stream), strict=True)
        x = image(arguments)
        torch.testing.assert_close(other(x), module(x))


@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS, ids=IDS)
def test_safetensors(
    ours: type[nn.Module], theirs: type[nn.Module], arguments: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    for source, target in ((ours, ours), (ours, theirs), (theirs, ours)):
        module, other = build(source, arguments, seed=1), build(target, arguments, seed=2)
        safetensors.torch.save_file(module.state_dict(), path)
        other.load_state_dict(safetensors.torch.load_file(path), strict=True)
        for name, tensor in module.state_dict().items():
            assert_equal(other.state_dict()[name], tensor)


def test_parameter_names_and_shapes() -> None:
    shapes = {n: tuple(p.shape) for n, p in sspcab_cuda.SSPCAB(16, 3).named_parameters()}
    convolutions = {f"conv{i}" for i in range(1, 5)}
    assert {n.rsplit(".", 1)[0] for n in shapes} == convolutions | {"se.fc1", "se.fc2"}
    for name in convolutions:
        assert shapes[f"{name}.weight"] == (16, 16, 3, 3) and shapes[f"{name}.bias"] == (16,)
    assert shapes["se.fc1.weight"] == (2, 16) and shapes["se.fc2.weight"] == (16, 2)


@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS, ids=IDS)
def test_copies(ours: type[nn.Module], theirs: type[nn.Module], arguments: tuple[int, ...]) -> None:
    module = build(ours, arguments)
    x = image(arguments)
    expected = module(x)
    copies = (copy.deepcopy(module), pickle.loads(pickle.dumps(module)))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    for other in copies:
        assert_equal(other(x).detach(), expected.detach())


def test_functional_call() -> None:
    block, x = sspcab_cuda.SSPCAB(16), image((16,))
    other = {name: torch.randn_like(p) for name, p in block.named_parameters()}
    out, loss = torch.func.functional_call(block, other, (x,), {"return_loss": True})
    block.load_state_dict(other)
    assert_equal(out, block(x).detach())
    assert_equal(loss, block(x, return_loss=True)[1].detach())


def test_return_loss(device: str) -> None:
    block, x = sspcab_cuda.SSPCAB(16).to(device), image((16,), device)
    out, loss = block(x, return_loss=True)
    assert isinstance(block(x), Tensor)
    assert_equal(out, block(x))
    assert loss.shape == ()
    torch.testing.assert_close(loss, (out - x).square().mean())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtype_of_a_model(dtype: torch.dtype, device: str) -> None:
    block = sspcab_cuda.SSPCAB(16, 2).to(device, dtype)
    x = image((16,), device).to(dtype)
    out, loss = block(x, return_loss=True)
    wide = torch.promote_types(dtype, torch.float32)
    assert out.dtype == dtype and loss.dtype == wide
    (out.to(wide).sum() + loss).backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in block.parameters())
    assert block.anomaly_map(x).dtype == wide


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_anomaly_map(dtype: torch.dtype, device: str) -> None:
    block = sspcab_cuda.SSPCAB(16).to(device, dtype)
    expected = reference.SSPCAB(16).to(device, torch.float64)
    expected.load_state_dict(block.state_dict())
    x = image((16,), device).to(dtype)
    result = block.anomaly_map(x)
    assert result.shape == (2, 9, 10)
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        result.double(), expected.anomaly_map(x.double()), rtol=tolerance, atol=tolerance
    )
    loss = block(x, return_loss=True)[1]
    torch.testing.assert_close(result.mean(), loss, rtol=tolerance, atol=tolerance)
    assert reference.SSPCAB(16).to(device, dtype).anomaly_map(x).dtype == result.dtype


def test_anomaly_map_is_of_what_the_block_returns(device: str) -> None:
    class Residual(sspcab_cuda.SSPCAB):
        def forward(self, x: Tensor, return_loss: bool = False) -> Any:
            return x + super().forward(x)

    block, x = sspcab_cuda.SSPCAB(16).to(device), image((16,), device)
    block.register_forward_hook(lambda module, inputs, output: 2 * output)
    for one in (block, Residual(16).to(device)):
        torch.testing.assert_close(one.anomaly_map(x), (one(x) - x).square().mean(dim=1))


def test_anomaly_map_collects_nothing() -> None:
    block, x = sspcab_cuda.SSPCAB(16), image((16,))
    with sspcab_cuda.collect_reconstruction_losses() as losses:
        block.anomaly_map(x)
        assert not losses
        block(x)
    assert len(losses) == 1


@pytest.mark.parametrize("kind", [np.int64, np.int32, torch.tensor, HasIndex], ids=str)
def test_integers_of_any_kind(kind: Any) -> None:
    arguments = (8, 2, 1, 4)
    block = sspcab_cuda.SSPCAB(*map(kind, arguments))
    expected = sspcab_cuda.SSPCAB(*arguments)
    expected.load_state_dict(block.state_dict())
    x = image((8,))
    assert_equal(block(x).detach(), expected(x).detach())
    assert repr(block) == repr(expected)
    assert sspcab_cuda.MaskedConv2d(kind(8)).conv1.weight.shape == (8, 8, 1, 1)
    assert sspcab_cuda.SELayer(kind(8), kind(2)).fc1.out_features == 4


@pytest.mark.parametrize("kernel_dim", [1, 3])
def test_gradients_have_the_strides_of_their_parameters(kernel_dim: int, device: str) -> None:
    """Those of a 1 × 1 weight in channels_last too, where only the numbers differ."""
    block = sspcab_cuda.SSPCAB(16, kernel_dim).to(device).to(memory_format=torch.channels_last)
    block.se.fc1.weight = nn.Parameter(torch.randn(16, 2, device=device).t())
    seen = {}
    for name, parameter in block.named_parameters():
        parameter.register_hook(lambda gradient, name=name: seen.update({name: gradient}))
    x = image((16,), device)
    out, loss = block(x, return_loss=True)
    (out.sum() + loss).backward()
    assert {n: g.stride() for n, g in seen.items()} == {
        n: p.stride() for n, p in block.named_parameters()
    }
    assert block.conv1.weight.stride() == (16 * kernel_dim**2, 1, 16 * kernel_dim, 16)


def test_descriptions() -> None:
    text = "(\n  kernel_dim=3, dilation=2, receptive_field=11x11"
    assert text in repr(sspcab_cuda.SSPCAB(16, 3, 2))
    assert text in repr(sspcab_cuda.MaskedConv2d(16, 3, 2))
    assert "fc1" in repr(sspcab_cuda.SELayer(16))


def test_a_frozen_parameter_stays(device: str) -> None:
    block, x = sspcab_cuda.SSPCAB(16).to(device), image((16,), device)
    block.conv2.requires_grad_(False)
    block.se.fc2.weight.requires_grad_(False)
    out, loss = block(x, return_loss=True)
    (out.sum() + loss).backward()
    without = {name for name, p in block.named_parameters() if p.grad is None}
    assert without == {"conv2.weight", "conv2.bias", "se.fc2.weight"}


def test_public_names() -> None:
    for name in sspcab_cuda.__all__:
        assert hasattr(sspcab_cuda, name)
    for name in ("masked_conv2d", "squeeze_excite", "reconstruction_loss", "sspcab"):
        assert callable(getattr(sspcab_cuda.functional, name)) and hasattr(reference, name)


def test_seeds_and_the_order_of_parameters_are_those_of_the_authors() -> None:
    """So a seeded run starts alike, and an optimizer's state, which goes by position, loads."""
    torch.manual_seed(5)
    theirs = upstream.SSPCAB(16, 2, 1, 4)
    for module in (sspcab_cuda.SSPCAB, reference.SSPCAB):
        torch.manual_seed(5)
        ours = module(16, 2, 1, 4)
        for (name, value), (their_name, their_value) in zip(
            ours.named_parameters(), theirs.named_parameters(), strict=True
        ):
            assert name == their_name
            assert_equal(value.detach(), their_value.detach())


@pytest.mark.parametrize(
    "kind", [sspcab_cuda.SSPCAB, sspcab_cuda.MaskedConv2d, sspcab_cuda.SELayer]
)
def test_device_and_dtype(kind: Any, device: str) -> None:
    module = kind(16, device=device, dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {(device, torch.float64)}
    x = image((16,), device).double()
    assert module(x).dtype == torch.float64
    assert {p.device.type for p in kind(16, device="meta").parameters()} == {"meta"}


PARTS = [sspcab_cuda.SSPCAB, sspcab_cuda.MaskedConv2d, sspcab_cuda.SELayer]


@pytest.mark.parametrize("kind", PARTS)
def test_a_device_without_kernels(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch computes it there, and said once. Here for the CPU, as if it had no kernels."""
    module, x = kind(16), image((16,)).requires_grad_()
    expected = module(x)
    monkeypatch.setattr(checks, "_DEVICES", ("cuda", "meta"))
    text = rf"^sspcab: x is on cpu, for which this build has no kernels, so this {kind.__name__}"
    with pytest.warns(UserWarning, match=text) as caught:
        result = module(x)
    assert len(caught) == 1
    torch.testing.assert_close(result, expected)
    gradients = [
        torch.autograd.grad(y.sum(), [x, *module.parameters()]) for y in (result, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    module(x)  # without a warning, which would be an error
    if kind is sspcab_cuda.SSPCAB:
        torch.testing.assert_close(module(x, return_loss=True)[1], (expected - x).square().mean())


NAMES = ["sspcab", "masked_conv2d", "squeeze_excite"]


@pytest.mark.parametrize(("kind", "name"), [*zip(PARTS, NAMES, strict=True)])
def test_edited_in_place_before_backward(kind: Any, name: str) -> None:
    module, x = kind(16), image((16,))
    h = 2 * x.requires_grad_()
    h += module(h)
    text = (
        f"^sspcab: {name} reads x, its parameters and its results again in the backward pass, so "
        r"they must not be edited .* please write `h = h \+ block\(h\)`; got: .*\[2, 16, 9, 10\]"
    )
    with pytest.raises(RuntimeError, match=text):
        h.sum().backward()
    h = 2 * x
    h = h + module(h)
    h.sum().backward()
