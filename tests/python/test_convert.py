"""Converters, each against an implementation that knows nothing of ours, in float64."""

from __future__ import annotations

import copy
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import sspcab_cuda
from sspcab_cuda.convert import from_anomalib, from_tensorflow, from_upstream, to_anomalib

from ..helpers import upstream
from ..helpers.cases import Case
from ..helpers.tolerances import assert_equal, relative_error

SIZES = (
    Case(2, 16, 8, 8),
    Case(1, 6, 9, 8, 2, 0, 3),
    Case(2, 10, 11, 13, 3, 2, 2),
    Case(2, 4, 7, 6),  # C < r
)

# Linear says so itself where there are no hidden units, in the authors' code too.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")


def arguments(case: Case) -> tuple[int, int, int, int]:
    return case.channels, case.kernel_dim, case.dilation, case.reduction_ratio


def results(block: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """out, and the gradients of x and of the parameters in the order of the block."""
    out = block(x)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    inputs = [x, *block.parameters()]
    gradients = torch.autograd.grad((out * weight).sum(), inputs)
    return {"out": out, **{f"grad_{i}": g for i, g in enumerate(gradients)}}


def assert_same_numbers(block: nn.Module, other: nn.Module, case: Case) -> None:
    x = torch.randn(case.shape, dtype=torch.float64, requires_grad=True)
    ours, theirs = results(block, x), results(other, x)
    for name, truth in theirs.items():
        assert relative_error(ours[name], truth) <= 1e-12, name


def identities(module: nn.Module) -> list[int]:
    return [id(parameter) for parameter in module.parameters()]


@pytest.mark.parametrize("case", SIZES, ids=str)
def test_from_upstream(case: Case) -> None:
    old = upstream.SSPCAB(*arguments(case)).double()
    new = from_upstream(old)
    assert type(new) is sspcab_cuda.SSPCAB and new.variant == "paper"
    assert identities(new) == identities(old)
    assert_same_numbers(new, old, case)
    assert new.state_dict().keys() == old.state_dict().keys()


@pytest.mark.parametrize("case", SIZES, ids=str)
def test_from_and_to_anomalib(case: Case, anomalib: ModuleType) -> None:
    theirs = anomalib.models.components.layers.SSPCAB
    old = theirs(*arguments(case)).double()
    new = from_anomalib(old)
    assert type(new) is sspcab_cuda.SSPCAB and new.variant == "anomalib"
    assert identities(new) == identities(old)
    assert_same_numbers(new, old, case)
    back = to_anomalib(new)
    assert type(back) is theirs
    assert_same_numbers(back, old, case)
    assert list(back.state_dict()) == list(old.state_dict())
    for name, value in back.state_dict().items():
        assert_equal(value, old.state_dict()[name])


@pytest.mark.parametrize("case", SIZES[:2], ids=str)
def test_to_anomalib_of_a_block_of_ours(case: Case, anomalib: ModuleType) -> None:
    block = sspcab_cuda.SSPCAB(*arguments(case), variant="anomalib").double().eval()
    other = to_anomalib(block)
    assert identities(other) == identities(block)
    assert not any(module.training for module in other.modules())
    assert_same_numbers(other, block, case)


def tensorflow_block(x: np.ndarray, arrays: list[np.ndarray], dilation: int) -> np.ndarray:
    """(N, H, W, C) to (N, H, W, C): the formula with TensorFlow's layouts."""
    kernel_dim = arrays[0].shape[0]
    pad, distance = kernel_dim + dilation, kernel_dim + 2 * dilation + 1
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    _, height, width, _ = x.shape
    y = np.zeros_like(x)
    for corner, (top, left) in enumerate(((0, 0), (distance, 0), (0, distance), (distance,) * 2)):
        kernel, bias = arrays[2 * corner : 2 * corner + 2]
        windows = np.lib.stride_tricks.sliding_window_view(
            padded[:, top:, left:], (kernel_dim, kernel_dim), axis=(1, 2)
        )[:, :height, :width]
        y += np.maximum(np.einsum("nhwcij,ijco->nhwo", windows, kernel) + bias, 0)
    fc1, fc1_bias, fc2, fc2_bias = arrays[8:]
    hidden = np.maximum(y.mean(axis=(1, 2)) @ fc1 + fc1_bias, 0)
    gate = 1 / (1 + np.exp(-(hidden @ fc2 + fc2_bias)))
    return np.asarray(y * gate[:, None, None, :])


def tensorflow_arrays(case: Case, dtype: str = "float64") -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    c, k, hidden = case.channels, case.kernel_dim, case.hidden
    shapes = [(k, k, c, c), (c,)] * 4 + [(c, hidden), (hidden,), (hidden, c), (c,)]
    return [generator.normal(scale=c**-0.5, size=shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("case", SIZES[:3], ids=str)
def test_from_tensorflow(case: Case) -> None:
    arrays = tensorflow_arrays(case)
    block = from_tensorflow(arrays, case.dilation)
    assert block.variant == "tensorflow" and block.training
    assert all(p.requires_grad and p.is_contiguous() for p in block.parameters())
    x = np.random.default_rng(1).normal(size=case.shape)
    truth = tensorflow_block(x.transpose(0, 2, 3, 1), arrays, case.dilation)
    out = block(torch.from_numpy(x))
    assert relative_error(out, torch.from_numpy(truth).permute(0, 3, 1, 2)) <= 1e-12


def test_tensorflow_arrays_are_copied() -> None:
    arrays = tensorflow_arrays(SIZES[1], "float32")
    for array in arrays:
        array.setflags(write=False)  # as they come out of HDF5 and JAX
    block = from_tensorflow(arrays, 0)
    assert {p.dtype for p in block.parameters()} == {torch.float32}
    for array in arrays:
        array.setflags(write=True)
        array.fill(0)
    assert all(p.count_nonzero() for p in block.parameters())


def test_what_stays(device: str) -> None:
    old = upstream.SSPCAB(16, 2).to(device, torch.bfloat16)
    old.conv2.requires_grad_(False)
    old.se.fc1.bias.requires_grad_(False)
    old.eval()
    old.conv3.train()
    old.se.train()
    state = torch.get_rng_state()
    new = from_upstream(old)
    assert torch.equal(torch.get_rng_state(), state)
    assert identities(new) == identities(old)
    frozen = {name for name, p in new.named_parameters() if not p.requires_grad}
    assert frozen == {"conv2.weight", "conv2.bias", "se.fc1.bias"}
    for name, module in new.named_modules():
        assert module.training == old.get_submodule(name).training
    x = torch.randn(1, 16, 5, 6, device=device, dtype=torch.bfloat16)
    assert new(x).dtype == torch.bfloat16


def test_a_block_without_memory() -> None:
    with torch.device("meta"):
        old = upstream.SSPCAB(16)
    assert {p.device.type for p in from_upstream(old).parameters()} == {"meta"}


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_parametrisations_stay() -> None:
    old = upstream.SSPCAB(16).double()
    parametrize.register_parametrization(old.conv1, "weight", Doubled())
    parametrize.register_parametrization(old.se.fc2, "bias", Doubled())
    new = from_upstream(old)
    assert identities(new) == identities(old)
    assert_same_numbers(new, old, SIZES[0])


@pytest.mark.filterwarnings("ignore:sspcab. relu is a .*, so this SSPCAB calls")
@pytest.mark.parametrize(
    "activation",
    [nn.LeakyReLU(0.3), nn.PReLU(16, 0.2), nn.ReLU(inplace=True), nn.Sequential(nn.SiLU())],
    ids=lambda activation: type(activation).__name__,
)
def test_an_activation_in_the_place_of_another_stays(activation: nn.Module) -> None:
    old = upstream.SSPCAB(16, 2).double()
    old.set_submodule("relu", activation.double())
    new = from_upstream(old)
    assert new.relu is old.relu and new.se.relu is old.se.relu
    assert new.se.sigmoid is old.se.sigmoid
    assert identities(new) == identities(old)
    assert_same_numbers(new, old, SIZES[0])


def test_hooks_of_the_block_stay_behind() -> None:
    old = upstream.SSPCAB(16)
    old.register_forward_hook(lambda *_: torch.zeros(1))
    old.register_state_dict_post_hook(lambda *_: None)
    x = torch.randn(1, 16, 5, 6)
    assert from_upstream(old)(x).shape == x.shape


def test_a_copy() -> None:
    old = upstream.SSPCAB(16)
    new = from_upstream(copy.deepcopy(old))
    assert not set(identities(new)) & set(identities(old))
