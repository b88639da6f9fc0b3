"""Sub-modules that can't be read: the block calls them, and fuses what is left."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import weight_norm as weight_norm_hook
from torch.utils._python_dispatch import TorchDispatchMode

import sspcab_cuda
from sspcab_cuda.reference import Variant

from ..helpers import published
from ..helpers.tolerances import assert_equal
from .test_recomputed import PARTS, Halved

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")


class LowRank(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x


class Adapted(nn.Module):
    """Wraps a layer, as adapters and quantisers do."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return 2 * self.layer(x)


class Standardised(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight / weight.std(), bias)


class OtherGate(sspcab_cuda.SELayer):
    def forward(self, x: Tensor) -> Tensor:
        return x - super().forward(x)


class InputPruning(Halved):
    def __call__(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0] / 2,)


class Wrapping(Tensor):
    """A weight that holds another tensor, as quantised and sharded ones do."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Wrapping:
        made = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):  # type: ignore
        assert function.namespace != "sspcab", "a kernel can't read this weight"
        args = torch.utils._pytree.tree_map_only(cls, lambda t: t.held, args)
        result = function(*args, **(kwargs or {}))
        return cls(result) if function is torch.ops.aten.detach.default else result


class Counted(Tensor):
    """Functions of its own, as PyTorch's ExpandedWeight, which knows no operators but PyTorch's."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):  # type: ignore
        assert not isinstance(function, torch._ops.OpOverload), "it doesn't know this operator"
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))


class TwiceCalled(nn.Conv2d):
    def __call__(self, *arguments: Any) -> Any:
        return 2 * super().__call__(*arguments)


class TwiceRectified(nn.ReLU):
    def __call__(self, *arguments: Any) -> Any:
        return 2 * super().__call__(*arguments)


def counted(layer: Any) -> None:
    layer._parameters["weight"] = layer.weight.detach().as_subclass(Counted)


def doubled(*arguments: Any) -> Any:
    """As a forward pre-hook, a forward hook or a full backward hook."""
    *_, values = arguments
    if isinstance(values, tuple):
        return tuple(2 * value for value in values)
    return 2 * values


def fetched(layer: nn.Module) -> None:
    """Parameters come from elsewhere when the layer is called, as in offloading."""
    forward, held = layer.forward, {n: p.detach().clone() for n, p in layer.named_parameters()}
    for parameter in layer.parameters():
        parameter.data.fill_(torch.nan)

    def fetch(x: Tensor) -> Any:
        for name, parameter in layer.named_parameters():
            parameter.data.copy_(held[name])
        return forward(x)

    layer.forward = functools.partial(fetch)


def wrapped(layer: Any) -> None:
    layer.weight = nn.Parameter(Wrapping(layer.weight.detach()), requires_grad=False)


# What is done to a sub-module (a result takes its place), and what the warning says of it.
Change = Callable[[Any], object]
ANYWHERE: list[tuple[Change, str]] = [
    (lambda m: m.register_forward_pre_hook(doubled) and None,
     "has the forward pre-hook tests.python.test_submodules.doubled"),
    (lambda m: m.register_forward_hook(doubled) and None,
     "has the forward hook tests.python.test_submodules.doubled"),
    (lambda m: m.register_full_backward_hook(lambda m, i, o: doubled(i)) and None,
     "has the backward hook tests.python.test_submodules.<lambda>"),
    (lambda m: m.register_full_backward_pre_hook(lambda m, o: doubled(o)) and None,
     "has the backward pre-hook tests.python.test_submodules.<lambda>"),
    (lambda m: m.register_forward_pre_hook(InputPruning()) and None,
     "has the forward pre-hook tests.python.test_submodules.InputPruning"),
    (lambda m: setattr(m, "forward", lambda x: x * x),
     "has another forward, tests.python.test_submodules.<lambda>"),
    (lambda m: nn.Identity(), "is a torch.nn.modules.linear.Identity"),
    (lambda m: Adapted(m), "is a tests.python.test_submodules.Adapted"),
    (lambda m: torch.compile(m, backend="eager"), "is a torch._dynamo.eval_frame.OptimizedModule"),
]  # fmt: skip
PARAMETRISED: list[tuple[Change, str]] = [
    (fetched, "has another forward, functools.partial"),
    (wrapped, "has a weight of tests.python.test_submodules.Wrapping"),
    (counted, "has a weight of tests.python.test_submodules.Counted"),
]
CONVOLUTIONS: list[tuple[Change, str]] = [
    (lambda m: weight_norm_hook(m).register_forward_hook(doubled) and None,
     "has the forward hook tests.python.test_submodules.doubled"),
    (lambda m: parametrizations.weight_norm(m).register_forward_hook(doubled) and None,
     "has the forward hook tests.python.test_submodules.doubled"),
    (lambda m: TwiceCalled(6, 6, 1),
     "has another __call__, tests.python.test_submodules.TwiceCalled.__call__"),
    (lambda m: LowRank(6, 6, 1),
     "has another forward, tests.python.test_submodules.LowRank.forward"),
    (lambda m: Standardised(6, 6, 1),
     "has another _conv_forward, tests.python.test_submodules.Standardised._conv_forward"),
    (lambda m: nn.Conv2d(6, 6, 1, bias=False), "has no bias"),
    (lambda m: nn.Conv2d(6, 6, 3, padding=1),
     "has stride (1, 1), padding (1, 1), dilation (1, 1), groups 1"),
    (lambda m: nn.Conv2d(6, 6, 1, groups=3),
     "has stride (1, 1), padding (0, 0), dilation (1, 1), groups 3"),
]  # fmt: skip
CALLED = [
    (name, change, reason)
    for name, changes in {
        "conv1": ANYWHERE + PARAMETRISED + CONVOLUTIONS,
        "conv4": ANYWHERE[:1],
        "se": [*ANYWHERE, (lambda m: OtherGate(6, 2), "has another forward, tests.")],
        "relu": [
            *ANYWHERE,
            (lambda m: TwiceRectified(), "has another __call__, tests."),
            (lambda m: nn.SiLU(), "is a torch.nn.modules.activation.SiLU"),
        ],
        "se.relu": [*ANYWHERE, (lambda m: nn.PReLU(3), "is a torch.nn.modules.activation.PReLU")],
        "se.sigmoid": [*ANYWHERE, (lambda m: nn.Hardsigmoid(), "is a torch.nn.modules.")],
        "se.fc1": [ANYWHERE[0], (lambda m: nn.Linear(6, 3, bias=False), "has no bias")],
        "se.fc2": [*ANYWHERE[:5], ANYWHERE[7], *PARAMETRISED],
    }.items()
    for change, reason in changes
]


def make(kind: type[nn.Module], name: str, change: Change, device: str) -> Any:
    torch.manual_seed(3)
    block = kind(6, reduction_ratio=2).to(device, torch.float64)
    parent, _, attribute = name.rpartition(".")
    new: Any = change(block.get_submodule(name))
    if new is not None:
        setattr(block.get_submodule(parent), attribute, new.to(device, torch.float64))
    return block


def results_of(block: Any, x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    out, loss = block(leaf, return_loss=True)
    (out.square().mean() + loss).backward()
    wanted = [p.grad for p in block.parameters() if p.requires_grad]
    return [out.detach(), loss.detach(), leaf.grad, *wanted]


@pytest.mark.filterwarnings(
    "ignore:Full backward hook is firing",
    "ignore:The .grad attribute of a Tensor that is not a leaf",
)
@pytest.mark.parametrize(
    ("name", "change", "reason"),
    CALLED,
    ids=[f"{name}-{reason[-40:]}" for name, _, reason in CALLED],
)
def test_called(name: str, change: Change, reason: str, device: str) -> None:
    """What can't be read is called, with the numbers of the authors' code, and said once."""
    block = make(sspcab_cuda.SSPCAB, name, change, device)
    x = torch.randn(2, 6, 7, 8, dtype=torch.float64, device=device)
    expected = results_of(make(published.SSPCAB, name, change, device), x)
    text = f"sspcab: {name} {reason}"
    with pytest.warns(UserWarning, match="^" + re.escape(text)) as caught:
        results = results_of(block, x)
    assert len(caught) == 1
    torch.testing.assert_close(results, expected, rtol=1e-10, atol=1e-12)
    results_of(block, x)  # without a warning, which would be an error


@pytest.mark.parametrize("variant", ["paper", "anomalib", "tensorflow"])
@pytest.mark.parametrize("name", [*PARTS, "relu", "se.relu", "se.sigmoid"])
@pytest.mark.filterwarnings("ignore:sspcab. .* has the forward hook")
def test_every_hook_sees_what_it_would_see(name: str, variant: Variant, device: str) -> None:
    """And all other sub-modules of a kind are called along with the one that is hooked."""
    seen: dict[str, list[Tensor]] = {}
    blocks = [
        kind(6, 2, 1, 2, variant).to(device, torch.float64)
        for kind in (sspcab_cuda.SSPCAB, sspcab_cuda.reference.SSPCAB)
    ]
    blocks[1].load_state_dict(blocks[0].state_dict())

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen["hook"] = [*inputs, output]

    blocks[0].get_submodule(name).register_forward_hook(record)
    x = torch.randn(2, 6, 7, 8, dtype=torch.float64, device=device)
    out, loss = blocks[0](x, return_loss=True)
    torch.testing.assert_close((out, loss), blocks[1](x, return_loss=True))
    inputs, output = seen["hook"]
    torch.testing.assert_close(output, blocks[0].get_submodule(name).forward(inputs))
    if name.startswith("conv"):
        mode = "reflect" if variant == "tensorflow" else "constant"
        corner = sspcab_cuda.reference.corners(x, 2, 1, mode)[int(name[-1]) - 1]
        assert_equal(inputs, corner)


def test_the_parts_call_too(device: str) -> None:
    x = torch.randn(2, 6, 5, 5, device=device)
    for part, name in (
        (sspcab_cuda.MaskedConv2d(6, 2), "conv3"),
        (sspcab_cuda.SELayer(6, 2), "fc1"),
        (sspcab_cuda.MaskedConv2d(6, 2), "relu"),
        (sspcab_cuda.SELayer(6, 2), "sigmoid"),
    ):
        expected = part.to(device)(x)
        handle = part.get_submodule(name).register_forward_hook(lambda *_: None)
        with pytest.warns(UserWarning, match=f"^sspcab: {name} has the forward hook"):
            torch.testing.assert_close(part(x), expected)
        handle.remove()
        assert_equal(part(x).detach(), expected.detach())


class Operators(TorchDispatchMode):
    """The names of ours that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function.namespace == "sspcab":
            self.names.append(function.name().split("::")[1])
        return function(*args, **(kwargs or {}))


def operators_of(block: nn.Module, x: Tensor) -> list[str]:
    with torch.no_grad(), Operators() as operators:
        block(x)
    return operators.names


@pytest.mark.filterwarnings("ignore:sspcab. .* has the forward hook")
def test_fused_as_far_as_possible() -> None:
    block, x = sspcab_cuda.SSPCAB(6, reduction_ratio=2), torch.randn(2, 6, 5, 5)
    assert operators_of(block, x) == ["sspcab_inference"]
    handle = block.conv2.register_forward_hook(lambda *_: None)
    assert operators_of(block, x) == ["squeeze_excite"]
    handle.remove()
    handle = block.relu.register_forward_hook(lambda *_: None)
    assert operators_of(block, x) == ["masked_conv2d", "squeeze_excite"]
    handle.remove()
    handle = block.se.sigmoid.register_forward_hook(lambda *_: None)
    assert operators_of(block, x) == ["masked_conv2d"]
    handle.remove()
    handle = block.se.fc2.register_forward_hook(lambda *_: None)
    assert operators_of(block, x) == ["masked_conv2d"]
    handle.remove()
    assert operators_of(block, x) == ["sspcab_inference"]


def test_the_hook_of_every_leaf() -> None:
    """As counters of operations, summaries and loggers of activations have it."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3), sspcab_cuda.SSPCAB(16))
    x = torch.rand(1, 3, 9, 9)
    expected = model(x)
    called: list[nn.Module] = []
    leaves = [module for module in model.modules() if not list(module.children())]
    for module in leaves:
        module.register_forward_hook(lambda module, *_: called.append(module))
    with pytest.warns(UserWarning, match="conv1 has the forward hook"):
        torch.testing.assert_close(model(x), expected)
    assert {*called} == {*leaves} and len(called) == 10


def test_nothing_in_place_of_a_sub_module() -> None:
    block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
    block.conv2 = None  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match=r"^sspcab: conv2 must be a module; got None$"):
        block(torch.zeros(1, 6, 3, 3))


@pytest.mark.skipif(
    torch.__version__ < "2.14",
    reason="older graphs may miss later hooks: 2.10 does, with torch._dynamo's default setting",
)
@pytest.mark.parametrize("name", ["conv1", "relu", "se.sigmoid"])
def test_a_hook_that_comes_after_compilation(name: str) -> None:
    torch.compiler.reset()
    block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 6, 5, 5)
    expected = compiled(x)
    handle = block.get_submodule(name).register_forward_hook(doubled)
    changed = compiled(x)
    with pytest.warns(UserWarning, match=f"{name} has the forward hook"):
        torch.testing.assert_close(changed, block(x))
    assert not torch.equal(changed, expected)
    handle.remove()
    assert_equal(compiled(x).detach(), expected.detach())


def test_hooks_of_the_whole_block() -> None:
    block = sspcab_cuda.SSPCAB(6, reduction_ratio=2)
    x = torch.randn(2, 6, 5, 5)
    expected = 3 * block(2 * x)
    block.register_forward_pre_hook(lambda _, inputs: (2 * inputs[0],))
    block.register_forward_hook(lambda _, __, out: 3 * out)
    assert_equal(block(x).detach(), expected.detach())
