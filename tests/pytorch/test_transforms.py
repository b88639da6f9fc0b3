"""torch.func transforms and forward-mode differentiation, which PyTorch's own operators compute:
called, and in graphs that were captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, jvp, vjp, vmap

import sspcab_cuda
from sspcab_cuda import functional, reference

from ..helpers.cases import HALVES, Case, arguments, block, convolution

# Forward mode makes PyTorch load its own TorchScript decompositions.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")

CASE = Case(2, 4, 5, 4, 1, 1, 2)
Scalar = Callable[[Tensor], Tensor]

# Each function of the image alone, for either library.
FUNCTIONS: dict[str, Callable[[ModuleType, list[Tensor]], Scalar]] = {
    "sspcab": lambda library, rest: (
        lambda x: torch.stack([part.square().sum() for part in block(library, [x, *rest], 1)]).sum()
    ),
    "out": lambda library, rest: lambda x: block(library, [x, *rest], 1, False)[0].sin().sum(),
    "masked_conv2d": lambda library, rest: (
        lambda x: convolution(library, [x, *rest], 1).square().sum()
    ),
    "squeeze_excite": lambda library, rest: (
        lambda x: library.squeeze_excite(x, *rest[8:]).square().sum()
    ),
    "reconstruction_loss": lambda library, rest: lambda x: library.reconstruction_loss(x.sin(), x),
}


def both(name: str, device: str) -> tuple[Scalar, Scalar, Tensor]:
    x, *rest = arguments(CASE, torch.float64, device)
    return FUNCTIONS[name](functional, rest), FUNCTIONS[name](reference, rest), x


@pytest.mark.parametrize("name", FUNCTIONS)
def test_grad_and_vmap(name: str, device: str) -> None:
    ours, expected, x = both(name, device)
    torch.testing.assert_close(grad(ours)(x), grad(expected)(x), rtol=1e-12, atol=1e-12)
    assert grad(ours)(x).any()
    images = torch.stack([x, 2 * x, -x])
    torch.testing.assert_close(
        vmap(grad(ours))(images), vmap(grad(expected))(images), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jvp(name: str, device: str) -> None:
    ours, expected, x = both(name, device)
    tangent = torch.ones_like(x)
    result, truth = (jvp(f, (x,), (tangent,))[1] for f in (ours, expected))
    assert truth != 0
    torch.testing.assert_close(result, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode(name: str, device: str) -> None:
    ours, expected, x = both(name, device)
    tangents = []
    for function in (ours, expected):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            tangents.append(forward_ad.unpack_dual(function(dual)).tangent)
    assert tangents[0] is not None
    torch.testing.assert_close(*tangents, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_order(name: str, device: str) -> None:
    ours, expected, x = both(name, device)
    torch.testing.assert_close(hessian(ours)(x), hessian(expected)(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        jacrev(grad(ours))(x), jacrev(grad(expected))(x), rtol=1e-10, atol=1e-10
    )


def test_per_sample_gradients_of_a_module(device: str) -> None:
    model = sspcab_cuda.SSPCAB(8).to(device, torch.float64)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    images = torch.randn(3, 8, 6, 5, dtype=torch.float64, device=device)

    def loss_of(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        result: tuple[Tensor, Tensor] = functional_call(
            model, parameters, (image[None],), {"return_loss": True}
        )
        return result[1]

    ours = vmap(grad(loss_of), in_dims=(None, 0))(parameters, images)
    for i, image in enumerate(images):
        model.zero_grad()
        model(image[None], return_loss=True)[1].backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(ours[name][i], parameter.grad, rtol=1e-10, atol=1e-12)


def test_parameters_of_a_module(device: str) -> None:
    """functional_call under grad, jvp, hessian and vmap over an ensemble, as for the reference."""
    ours, expected = (
        library.SSPCAB(4, reduction_ratio=2).to(device, torch.float64)
        for library in (sspcab_cuda, reference)
    )
    expected.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, device=device)

    def results(model: torch.nn.Module) -> list[Tensor]:
        state = {name: p.detach() for name, p in model.named_parameters()}

        def value(parameters: dict[str, Tensor]) -> Tensor:
            out, loss = functional_call(model, {**state, **parameters}, (x, True))
            return out.square().mean() + loss

        ones = {name: torch.ones_like(p) for name, p in state.items()}
        ensemble = {name: torch.stack([p, 2 * p]) for name, p in state.items()}
        some = {name: state[name] for name in ("conv2.weight", "conv3.bias", "se.fc1.weight")}
        second = hessian(value)(some)
        return [
            *grad(value)(state).values(),
            *jvp(value, (state,), (ones,)),
            *vmap(grad(value))(ensemble).values(),
            *(second[a][b] for a in some for b in some),
        ]

    torch.testing.assert_close(results(ours), results(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_float32_parameters_beside_half_images(dtype: torch.dtype, device: str) -> None:
    """As the operators do, though the reference alone has no mixed arithmetic."""
    tensors = arguments(CASE, dtype, device, parameters=torch.float32)
    x, rest = tensors[0], tensors[1:]

    def functions(x: Tensor) -> tuple[Tensor, ...]:
        y = convolution(functional, [x, *rest], 1)
        return *block(functional, [x, *rest], 1), y, functional.squeeze_excite(y, *rest[8:])

    results, tangents, *_ = jvp(functions, (x,), (torch.ones_like(x),))
    for result, tangent, expected in zip(results, tangents, functions(x), strict=True):
        assert result.dtype == tangent.dtype == expected.dtype
        assert tangent.any()
        torch.testing.assert_close(result, expected, rtol=5e-2, atol=2e-2)


# What a graph may hold, for either library.
MODELS: dict[str, Callable[[ModuleType], torch.nn.Module]] = {
    "paper": lambda library: library.SSPCAB(4, reduction_ratio=2),
    "anomalib": lambda library: library.SSPCAB(4, 2, reduction_ratio=2, variant="anomalib"),
    "tensorflow": lambda library: library.SSPCAB(4, reduction_ratio=2, variant="tensorflow"),
    "loss": lambda library: Loss(library.SSPCAB(4, reduction_ratio=2)),
    "masked_conv2d": lambda library: library.MaskedConv2d(4),
    "squeeze_excite": lambda library: library.SELayer(4, 2),
    "reconstruction_loss": lambda library: Compared(library),
}


class Loss(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        loss: Tensor = self.inner(x, return_loss=True)[1]
        return loss


class Compared(torch.nn.Module):
    def __init__(self, library: ModuleType) -> None:
        super().__init__()
        self.compare = (functional if library is sspcab_cuda else reference).reconstruction_loss

    def forward(self, x: Tensor) -> Tensor:
        loss: Tensor = self.compare(x.sin(), x)
        return loss


def forward_level(f: Scalar, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, x.cos()))).tangent
    return torch.zeros_like(x) if tangent is None else tangent


def forward_over_reverse(f: Scalar, x: Tensor) -> Tensor:
    def value(x: Tensor) -> Tensor:
        return f(x).square().sum()

    tangent: Tensor = jvp(grad(value), (x,), (x.cos(),))[1]
    return tangent


TRANSFORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "jvp": lambda f, x: jvp(f, (x,), (x.cos(),))[1],
    "dual_level": forward_level,
    "grad": lambda f, x: grad(lambda x: f(x).square().sum())(x),
    "jacrev": lambda f, x: jacrev(f)(x),
    "vjp": lambda f, x: vjp(f, x)[1](torch.ones_like(f(x)))[0],
    "forward over reverse": forward_over_reverse,
    "vmap": lambda f, x: vmap(grad(lambda x: f(x).square().sum()))(torch.stack([x, 2 * x])),
}


def compiled(function: Callable[..., Tensor], backend: str = "aot_eager") -> Callable[..., Tensor]:
    return torch.compile(function, fullgraph=True, backend=backend)


def exported(model: torch.nn.Module, x: Tensor) -> torch.nn.Module:
    return torch.export.export(model, (x,)).module()


# Of a model and a transform, its result for x.
CAPTURES: dict[str, Callable[[Any, Any, Tensor], Tensor]] = {
    "transformed within": lambda m, transform, x: compiled(lambda x: transform(m, x))(x),
    "graph alone": lambda m, transform, x: compiled(lambda x: transform(m, x), "eager")(x),
    "compiled": lambda m, transform, x: transform(torch.compile(m, backend="aot_eager"), x),
    "exported": lambda m, transform, x: transform(exported(m, x), x),
    "exported, compiled within": lambda m, transform, x: CAPTURES["transformed within"](
        exported(m, x), transform, x
    ),
}


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def combinations() -> Iterator[tuple[str, str, str, bool]]:
    """One model goes through all, where PyTorch's compiler can trace it; others the main ways."""
    for transform in TRANSFORMS:
        yield "paper", "exported", transform, False
        if transform != "vmap":
            yield "paper", "transformed within", transform, False
    for transform in ("jvp", "dual_level"):
        for capture in CAPTURES:
            yield "paper", capture, transform, True
        for capture in ("graph alone", "compiled", "exported, compiled within"):
            yield "paper", capture, transform, False
    for model in MODELS:
        if model != "paper":
            yield model, "transformed within", "dual_level", False
            for transform in ("jvp", "dual_level", "grad"):
                yield model, "exported", transform, False


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(("model", "capture", "transform", "trained"), list(combinations()))
def test_captured_graphs(
    model: str, capture: str, transform: str, trained: bool, device: str
) -> None:
    """Never 0 without a word, with parameters that require gradients and with frozen ones."""
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, device=device)
    ours, truth = (
        MODELS[model](library).to(device, torch.float64).requires_grad_(trained)
        for library in (sspcab_cuda, reference)
    )
    truth.load_state_dict(ours.state_dict())
    expected = TRANSFORMS[transform](truth, x).detach()
    assert expected.any()
    result = CAPTURES[capture](ours, TRANSFORMS[transform], x).detach()
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
@pytest.mark.parametrize("model", MODELS)
def test_vectorized_jacobians(model: str, strategy: str, device: str) -> None:
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, device=device)
    ours = MODELS[model](sspcab_cuda).to(device, torch.float64)
    expected = torch.autograd.functional.jacobian(ours, x)
    result = torch.autograd.functional.jacobian(ours, x, vectorize=True, strategy=strategy)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11)


# Where x is compared with itself PyTorch's own layers raise: a tangent of theirs is immutable.
@pytest.mark.parametrize("name", ["out", "masked_conv2d", "squeeze_excite"])
def test_tangents_of_output_gradients(name: str, device: str) -> None:
    """A backward pass in a level that the forward pass didn't see is linear in what it is given."""
    ours, _, x = both(name, device)
    x.requires_grad_()
    value = ours(x)
    (expected,) = torch.autograd.grad(value, x, retain_graph=True)
    with forward_ad.dual_level():
        one = torch.ones_like(value)
        dual = forward_ad.make_dual(one, 3 * one)
        tangent = forward_ad.unpack_dual(torch.autograd.grad(value, x, dual)[0]).tangent
    torch.testing.assert_close(tangent, 3 * expected, rtol=1e-12, atol=1e-12)
