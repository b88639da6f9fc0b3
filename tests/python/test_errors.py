"""Every error message: the rule and the values seen, with the arguments left as they were."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad

import sspcab_cuda
from sspcab_cuda import functional, ops
from sspcab_cuda.checks import check_image

from ..helpers.cases import NAMES, Case, arguments, block, convolution
from ..helpers.messages import said
from ..helpers.tolerances import assert_equal

# Forward mode makes PyTorch load its own TorchScript decompositions.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")

CASE = Case(2, 16, 6, 5, 3, 1)
Change = Callable[[Tensor], Tensor]

SHAPES: list[tuple[str, Change, str]] = [
    ("x", lambda t: t[0], "x must be (N, C, H, W); got (16, 6, 5)"),
    ("x", lambda t: t[:, :0], "x must have at least one channel; got (2, 0, 6, 5)"),
    ("x", lambda t: t.long(), "x must be float16, bfloat16, float32 or float64; "
     "got torch.int64"),
    ("x", lambda t: t.to(torch.complex64), "x must be float16, bfloat16, float32 or float64; "
     "got torch.complex64"),
    ("x", lambda t: t[:, 1:], "weight1 must be (15, 15, 3, 3) for x of (2, 15, 6, 5); got "
     "(16, 16, 3, 3)"),
    ("x", lambda t: t.double(), "weight1 must have the dtype of x; got float32 for x of float64"),
    ("weight1", lambda t: t[0], "weight1 must be (C, C, k', k'); got (16, 3, 3)"),
    ("weight1", lambda t: t[..., :0], "weight1 must have k' of 1 or more; got (16, 16, 3, 0)"),
    ("weight1", lambda t: t[..., :2], "weight1 must be (16, 16, 2, 2) for x of (2, 16, 6, 5); got "
     "(16, 16, 3, 2)"),
    ("weight2", lambda t: t[..., 1:, 1:], "weight2 must be (16, 16, 3, 3) for x of (2, 16, 6, 5); "
     "got (16, 16, 2, 2)"),
    ("weight3", lambda t: t[:, :8], "weight3 must be (16, 16, 3, 3) for x of (2, 16, 6, 5); got "
     "(16, 8, 3, 3)"),
    ("weight4", lambda t: t.double(), "weight4 must have the dtype of x; got float64 for x of "
     "float32"),
    ("bias1", lambda t: t[:8], "bias1 must be (16,) for x of (2, 16, 6, 5); got (8,)"),
    ("bias4", lambda t: t[None], "bias4 must be (16,) for x of (2, 16, 6, 5); got (1, 16)"),
    ("bias2", lambda t: t.half(), "bias2 must have the dtype of x; got float16 for x of float32"),
    ("fc1_weight", lambda t: t[0], "fc1_weight must be (C // r, C); got (16,)"),
    ("fc1_weight", lambda t: t[:, :8], "fc1_weight must be (2, 16) for x of (2, 16, 6, 5); got "
     "(2, 8)"),
    ("fc1_weight", lambda t: t.double(), "fc1_weight must have the dtype of x; got float64"),
    ("fc1_bias", lambda t: t[:1], "fc1_bias must be (2,) for x of (2, 16, 6, 5); got (1,)"),
    ("fc1_bias", lambda t: t.double(), "fc1_bias must have the dtype of x; got float64"),
    ("fc2_weight", lambda t: t[:, :1], "fc2_weight must be (16, 2) for x of (2, 16, 6, 5); got "
     "(16, 1)"),
    ("fc2_weight", lambda t: t.half(), "fc2_weight must have the dtype of x; got float16"),
    ("fc2_bias", lambda t: t[:2], "fc2_bias must be (16,) for x of (2, 16, 6, 5); got (2,)"),
    ("fc2_bias", lambda t: t.half(), "fc2_bias must have the dtype of x; got float16"),
]  # fmt: skip


@pytest.fixture(params=["operators", "reference"])
def _computes(request: pytest.FixtureRequest) -> Iterator[None]:
    """In forward mode the reference computes, with the messages of the operators."""
    with forward_ad.dual_level() if request.param == "reference" else contextlib.nullcontext():
        yield


@pytest.mark.usefixtures("_computes")
@pytest.mark.parametrize(("name", "change", "text"), SHAPES, ids=[text for *_, text in SHAPES])
def test_block(name: str, change: Change, text: str, device: str) -> None:
    tensors = arguments(CASE, device=device)
    tensors[NAMES.index(name)] = change(tensors[NAMES.index(name)])
    copies = [tensor.clone() for tensor in tensors]
    calls: list[Callable[[], Any]] = [lambda: block(functional, tensors, 1)]
    if NAMES.index(name) < 9:
        calls.append(lambda: convolution(functional, tensors, 1))
    elif "weight1" not in text:
        calls.append(lambda: functional.squeeze_excite(tensors[0], *tensors[9:]))
    for call in calls:
        with pytest.raises(RuntimeError, match=said(text)):
            call()
    tensors[0].requires_grad_(tensors[0].is_floating_point())
    with pytest.raises(RuntimeError, match=said(text)):
        block(functional, tensors, 1)
    for tensor, copy in zip(tensors, copies, strict=True):
        assert_equal(tensor.detach(), copy)


@pytest.mark.usefixtures("_computes")
@pytest.mark.parametrize("name", NAMES[2:])
def test_parameters_share_a_dtype(name: str, device: str) -> None:
    tensors = arguments(CASE, torch.bfloat16, device)
    index = NAMES.index(name)
    tensors[index] = tensors[index].float()
    text = f"{name} must have the dtype of the other parameters, bfloat16; got float32"
    with pytest.raises(RuntimeError, match=said(text)):
        block(functional, tensors, 1)
    tensors[index] = tensors[index].half()
    text = f"{name} must have the dtype of x or float32; got float16 for x of bfloat16"
    with pytest.raises(RuntimeError, match=said(text)):
        block(functional, tensors, 1)
    tensors[index] = tensors[index].long()
    text = f"{name} must have the dtype of x or float32; got int64 for x of bfloat16"
    with pytest.raises(RuntimeError, match=said(text)):
        block(functional, tensors, 1)


@pytest.mark.usefixtures("_computes")
def test_dilation(device: str) -> None:
    tensors = arguments(CASE, device=device)
    for function in (block, convolution):
        with pytest.raises(RuntimeError, match=said("dilation must be 0 or more; got -1")):
            function(functional, tensors, -1)


def test_four_corners(device: str) -> None:
    x, *rest = arguments(CASE, device=device)
    weights, biases, excitation = rest[:4], rest[4:8], rest[8:]
    for call in (
        lambda w, b: functional.masked_conv2d(x, w, b),
        lambda w, b: functional.sspcab(x, w, b, *excitation),  # type: ignore[call-overload]
    ):
        text = "weights must have four tensors, one for each corner; got 3"
        with pytest.raises(ValueError, match=said(text)):
            call(weights[:3], biases)
        text = "biases must have four tensors, one for each corner; got 5"
        with pytest.raises(ValueError, match=said(text)):
            call(weights, [*biases, biases[0]])


def test_activation(device: str) -> None:
    tensors = arguments(CASE, device=device)
    text = "activation must be 'relu' or 'none'; got 'gelu'"
    with pytest.raises(ValueError, match=said(text)):
        convolution(functional, tensors, 1, "gelu")


@pytest.mark.parametrize("value", [None, 3.0, [1.0]])
def test_no_tensor(value: Any) -> None:
    tensors = arguments(CASE)
    for call in (
        lambda: block(functional, [value, *tensors[1:]], 1),
        lambda: convolution(functional, [value, *tensors[1:]], 1),
        lambda: functional.squeeze_excite(value, *tensors[9:]),
    ):
        with pytest.raises(
            TypeError, match=said(f"x must be a tensor; got {type(value).__name__}")
        ):
            call()
    with pytest.raises(TypeError, match=said("out must be a tensor; got ")):
        functional.reconstruction_loss(value, tensors[0])


@pytest.mark.usefixtures("_computes")
def test_reconstruction_loss(device: str) -> None:
    x = torch.randn(2, 3, 4, 5, device=device)
    for out, text in (
        (x[:1], "out must be (2, 3, 4, 5) for x of (2, 3, 4, 5); got (1, 3, 4, 5)"),
        (x.double(), "out must be float32 for x of float32; got float64"),
    ):
        with pytest.raises(RuntimeError, match=said(text)):
            functional.reconstruction_loss(out, x)
        with pytest.raises(RuntimeError, match=said(text)):
            ops.reconstruction_loss_backward(torch.ones(()), out, x)
    with pytest.raises(RuntimeError, match=said("x must be (N, C, H, W); got (4, 5)")):
        functional.reconstruction_loss(x, x[0, 0])


@pytest.mark.parametrize(
    ("module", "arguments", "text"),
    [
        ("SSPCAB", (0,), "channels must be an integer ≥ 1; got 0"),
        ("SSPCAB", (8.0,), "channels must be an integer ≥ 1; got 8.0"),
        ("SSPCAB", (torch.tensor(8.0),), "channels must be an integer ≥ 1; got tensor(8.)"),
        ("SSPCAB", (8, 0), "kernel_dim must be an integer ≥ 1; got 0"),
        ("SSPCAB", (8, True), "kernel_dim must be an integer ≥ 1; got True"),
        ("SSPCAB", (8, (3, 3)), "kernel_dim must be an integer ≥ 1; got (3, 3)"),
        ("SSPCAB", (8, 1, -1), "dilation must be an integer ≥ 0; got -1"),
        ("SSPCAB", (8, 1, 1, 0), "reduction_ratio must be an integer ≥ 1; got 0"),
        ("MaskedConv2d", (-1,), "channels must be an integer ≥ 1; got -1"),
        ("MaskedConv2d", (8, "3"), "kernel_dim must be an integer ≥ 1; got '3'"),
        ("MaskedConv2d", (8, 1, None), "dilation must be an integer ≥ 0; got None"),
        ("SELayer", (0,), "num_channels must be an integer ≥ 1; got 0"),
        ("SELayer", (8, -2), "reduction_ratio must be an integer ≥ 1; got -2"),
    ],
)
def test_modules(module: str, arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(ValueError, match=said(text)):
        getattr(sspcab_cuda, module)(*arguments)


MODULES: dict[str, Callable[[], Any]] = {
    "SSPCAB": lambda: sspcab_cuda.SSPCAB(16),
    "MaskedConv2d": lambda: sspcab_cuda.MaskedConv2d(16),
    "SELayer": lambda: sspcab_cuda.SELayer(16),
}


@pytest.mark.usefixtures("_computes")
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.rand(2, 8, 5, 6), "x must have 16 channels, as this {} has; got 8, in x of "
         "(2, 8, 5, 6)"),
        (torch.rand(2, 16, 5, 6).double(), "x must be of torch.float32, as this {} is; got "
         "torch.float64"),
        (torch.rand(16, 5, 6), "x must be (N, C, H, W); got (16, 5, 6)"),
        (torch.zeros(2, 16, 5, 6).long(), "x must be float16, bfloat16, float32 or float64; got "
         "torch.int64"),
    ],
)  # fmt: skip
def test_what_a_module_is_given(module: str, x: Tensor, text: str, device: str) -> None:
    """Its user gave it x, and has never heard of weight1."""
    with pytest.raises(RuntimeError, match="^" + re.escape("sspcab: " + text.format(module)) + "$"):
        MODULES[module]().to(device)(x.to(device))


@pytest.mark.parametrize("module", MODULES)
def test_half_precision_beside_float32_is_not_to_blame(module: str) -> None:
    block = MODULES[module]()
    for layer in block.modules():
        if hasattr(layer, "bias"):
            layer.bias = torch.nn.Parameter(layer.bias[:1].detach())
    with pytest.raises(RuntimeError, match=r"^sspcab: (fc1_)?bias1? must be"):
        block(torch.rand(2, 16, 5, 6).bfloat16())


def test_the_second_argument_is_no_image() -> None:
    x = torch.rand(2, 16, 5, 6)
    for value, kind in ((x, "Tensor"), (1, "int"), (None, "NoneType")):
        text = f"return_loss must be True or False; got {kind}"
        with pytest.raises(TypeError, match=said(text)):
            sspcab_cuda.SSPCAB(16)(x, value)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda x: x.to_sparse(), "torch.sparse_coo"),
        (lambda x: x.to_mkldnn(), "torch._mkldnn"),
        (lambda x: torch.nested.nested_tensor([*x]), "a nested tensor"),
        (lambda x: torch.nested.nested_tensor([*x], layout=torch.jagged), "a nested tensor"),
    ],
)
# Of PyTorch, for nested tensors of the first kind.
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("module", MODULES)
def test_what_has_no_strides(module: str, change: Change, kind: str) -> None:
    text = f"x must be dense (torch.strided); got {kind}"
    with pytest.raises(RuntimeError, match=said(text)):
        MODULES[module]()(change(torch.rand(2, 16, 5, 6)))


@pytest.mark.parametrize("module", MODULES)
def test_a_negated_view_and_a_subclass(module: str, device: str) -> None:
    class Marked(Tensor):
        """A tensor of somebody else's."""

    block, x = MODULES[module]().to(device), torch.randn(2, 16, 5, 6, device=device)
    expected = block(x).detach()
    assert_equal(block(torch._neg_view(-x)).detach(), expected)
    assert_equal(block(x.as_subclass(Marked)).detach().as_subclass(Tensor), expected)


@pytest.mark.cuda
@pytest.mark.parametrize("module", MODULES)
def test_a_module_on_another_device(module: str) -> None:
    text = f"x must be on cpu, as this {module} is; got x on cuda:0"
    with pytest.raises(RuntimeError, match=said(text)):
        MODULES[module]()(torch.rand(2, 16, 5, 6, device="cuda"))


@pytest.mark.parametrize("device", ["mps", "xpu", "cuda"])
def test_devices_without_kernels(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sspcab_cuda.checks._DEVICES", ("cpu", "meta"))

    class Elsewhere(Tensor):
        """A tensor that says it lies on another device."""

        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device(device)

    x = torch.zeros(1, 2, 3, 4).as_subclass(Elsewhere)
    with pytest.raises(RuntimeError) as caught:
        check_image("x", x)
    message = str(caught.value)
    assert message.startswith(f"sspcab: this build has kernels for cpu; got x on {device}.")
    assert "sspcab_cuda.reference" in message
    rebuild = "FORCE_CUDA=1 pip install --no-build-isolation -e ."
    assert (rebuild in message) == (device == "cuda")


@pytest.mark.skipif(bool(sspcab_cuda.build_info()["cuda"]), reason="this build has CUDA kernels")
def test_a_cuda_model_in_a_cpu_only_build() -> None:
    """It calls its parts, and says what would build the kernels; the functions raise."""
    with FakeTensorMode():
        block, x = sspcab_cuda.SSPCAB(8, device="cuda"), torch.empty(1, 8, 4, 4, device="cuda")
        with pytest.warns(UserWarning, match=r"x is on cuda, .*FORCE_CUDA=1 pip install"):
            assert block(x).shape == x.shape
        with pytest.raises(RuntimeError, match=r"got out on cuda.*FORCE_CUDA=1"):
            functional.reconstruction_loss(x, x)


@pytest.mark.cuda
def test_parameters_on_another_device() -> None:
    tensors = arguments(CASE, device="cuda")
    for name in NAMES[1:]:
        moved = [*tensors]
        moved[NAMES.index(name)] = moved[NAMES.index(name)].cpu()
        with pytest.raises(
            RuntimeError, match=said(f"{name} must be on the device of x, cuda:0; got cpu")
        ):
            block(functional, moved, 1)
