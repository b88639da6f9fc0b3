"""What holds for every operator that is registered: the memory of its results, its fakes,
transforms and batches. A new operator is in the table once operator_calls.py has its arguments."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

import sspcab_cuda
from sspcab_cuda import ops, reference

from ..helpers.cases import Case, leaves
from ..helpers.operator_calls import NAMES, PRIVATE, calls_of, has_loss

# Forward mode makes PyTorch load its own TorchScript decompositions.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")

CASE = Case(2, 4, 5, 3, 1, 1, 2)
BACKWARD = [name for name in NAMES if name.endswith("_backward")]
Arguments = tuple[Any, ...]
Function = Callable[..., tuple[Tensor, ...]]


def tensors_of(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def with_tensors(arguments: Arguments, tensors: Sequence[Tensor]) -> Arguments:
    """The same call of other tensors."""
    remaining = iter(tensors)
    moved: Arguments = pytree.tree_map_only(Tensor, lambda _: next(remaining), arguments)
    return moved


def subsets(count: int, every: bool) -> Iterator[list[bool]]:
    """Every one; or all, none, each alone and all but each."""
    if every:
        yield from map(list, itertools.product([True, False], repeat=count))
        return
    for value in (True, False):
        yield [value] * count
        yield from ([value ^ (i == j) for i in range(count)] for j in range(count))


def calls(
    name: str, device: str, layout: str = "contiguous", *, every: bool = False
) -> Iterator[Arguments]:
    """With subsets of needs, where there are some."""
    for arguments in calls_of(name, CASE, torch.float64, device, layout):
        needs = [
            i for i, a in enumerate(arguments) if isinstance(a, list) and isinstance(a[0], bool)
        ]
        if not needs:
            yield arguments
            continue
        (i,) = needs
        for subset in subsets(len(arguments[i]), every):
            yield *arguments[:i], subset, *arguments[i + 1 :]


def assert_own_memory(results: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Results share no memory with each other or with others."""
    taken = {tensor.untyped_storage()._cdata for tensor in others}
    for index, result in enumerate(results):
        storage = result.untyped_storage()._cdata
        assert storage not in taken, f"result {index}"
        taken.add(storage)


def memory(name: str, device: str) -> None:
    operator = getattr(ops, name)
    for layout in ("contiguous", "channels_last"):
        for arguments in calls(name, device, layout, every=device == "cpu"):
            assert_own_memory(tensors_of(operator(*arguments)), tensors_of(arguments))
    if name in BACKWARD:
        return
    for arguments in calls(name, device):
        tensors = leaves(tensors_of(arguments))
        assert_own_memory(tensors_of(operator(*with_tensors(arguments, tensors))), tensors)
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(t.detach(), torch.ones_like(t)) for t in tensors]
            assert_own_memory(tensors_of(operator(*with_tensors(arguments, duals))), duals)


def fakes(name: str, device: str) -> None:
    operator = getattr(ops, name)
    for layout in ("contiguous", "channels_last", "sliced"):
        for arguments in calls(name, device, layout):
            expected = tensors_of(operator(*arguments))
            with FakeTensorMode() as mode:
                fake = pytree.tree_map_only(Tensor, mode.from_tensor, arguments)
                results = tensors_of(operator(*fake))
            meta = pytree.tree_map_only(Tensor, lambda t: t.to("meta"), arguments)
            for truth, result, dry in zip(
                expected, results, tensors_of(operator(*meta)), strict=True
            ):
                for other, place in ((result, truth.device), (dry, torch.device("meta"))):
                    assert (other.shape, other.dtype) == (truth.shape, truth.dtype)
                    assert (other.stride(), other.device) == (truth.stride(), place)


def raises_for_derivatives(name: str) -> Any:
    text = f"^sspcab: sspcab::{name} has no derivative; got an argument that is differentiated"
    return pytest.raises(RuntimeError, match=text)


def problems(name: str, device: str) -> Iterator[tuple[list[Tensor], Function]]:
    """Tensors, and the operator as a function of them."""
    for arguments in filter(has_loss, calls_of(name, CASE, torch.float64, device, "contiguous")):
        yield tensors_of(arguments), functools.partial(call, name, arguments)


def call(name: str, arguments: Arguments, *tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensors_of(getattr(ops, name)(*with_tensors(arguments, tensors))))


def call_of_one(function: Function, others: list[Tensor], index: int, tensor: Tensor) -> Any:
    """With tensor in the place of one of the others."""
    return function(*others[:index], tensor, *others[index + 1 :])


def total(function: Function, *tensors: Tensor) -> Tensor:
    """A scalar of what has a gradient: neither what is kept for backward, nor the same twice."""
    results = function(*tensors)
    return torch.stack([r.sin().sum() for r in results[: 1 if len(results) == 4 else 2]]).sum()


def by_level(function: Function, tensor: Tensor, tangent: Tensor) -> list[Tensor | None]:
    with forward_ad.dual_level():
        results = function(forward_ad.make_dual(tensor, tangent))
        return [forward_ad.unpack_dual(r).tangent for r in results]


def by_func(function: Function, tensor: Tensor, tangent: Tensor) -> list[Tensor | None]:
    return list(torch.func.jvp(function, (tensor,), (tangent,))[1])


def tangents(name: str, device: str) -> None:
    """Of each argument: what finite differences of the kernels give."""
    for tensors, function in problems(name, device):
        for index, tensor in enumerate(tensors):
            of_one = functools.partial(call_of_one, function, tensors, index)
            tangent = torch.randn_like(tensor)
            for way in (by_level, by_func):
                if name in BACKWARD:
                    with raises_for_derivatives(name):
                        way(of_one, tensor, tangent)
                    continue
                after, before = (of_one(tensor + e * tangent) for e in (1e-6, -1e-6))
                got = way(of_one, tensor, tangent)
                for result, a, b in zip(got, after, before, strict=True):
                    expected = (a - b) / 2e-6
                    result = torch.zeros_like(expected) if result is None else result
                    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-7)


def reverse_levels(name: str, device: str) -> None:
    """torch.func.grad: what autograd gives; and a call in a level that has no part in it."""
    one = torch.ones((), dtype=torch.float64, device=device)
    for tensors, function in problems(name, device):
        value = functools.partial(total, function)
        if name in BACKWARD:
            for index in range(len(tensors)):
                with raises_for_derivatives(name):
                    torch.func.grad(value, argnums=index)(*tensors)
        else:
            inputs = leaves(tensors)
            expected = torch.autograd.grad(value(*inputs), inputs)
            every = tuple(range(len(tensors)))
            torch.testing.assert_close(torch.func.grad(value, argnums=every)(*tensors), expected)
        aside = torch.func.grad(lambda t, value, tensors: t * value(*tensors))(one, value, tensors)
        torch.testing.assert_close(aside, value(*tensors))


def batches(name: str, device: str) -> None:
    """torch.vmap over each argument, and over all."""
    for tensors, function in problems(name, device):
        indices = range(len(tensors))
        for batched in (*([i] for i in indices), indices):
            dims = tuple(-1 if i in batched else None for i in indices)
            stacked = [
                t if dim is None else torch.stack([t, 2 * t, -t], dim)
                for t, dim in zip(tensors, dims, strict=True)
            ]
            results = torch.vmap(function, in_dims=dims)(*stacked)
            for sample in range(3):
                slices = [t[..., sample] if i in batched else t for i, t in enumerate(stacked)]
                for result, expected in zip(results, function(*slices), strict=True):
                    torch.testing.assert_close(result[sample], expected, rtol=1e-9, atol=1e-10)


def batched_gradients(name: str, device: str) -> None:
    """is_grads_batched=True and torch.vmap of torch.autograd.grad, differentiable ones too."""
    if name in BACKWARD:
        return  # see batches: these are what autograd would have called
    for tensors, function in problems(name, device):
        inputs = leaves(tensors)
        outputs = [result for result in function(*inputs) if result.requires_grad]
        grads = [torch.stack([torch.randn_like(o) for _ in range(3)]) for o in outputs]
        for create_graph in (False, True):
            gradients = functools.partial(
                torch.autograd.grad, outputs, inputs, retain_graph=True, create_graph=create_graph
            )
            batch = gradients(grads, is_grads_batched=True)
            mapped = torch.vmap(gradients)(grads)
            for sample in range(3):
                expected = gradients([g[sample] for g in grads])
                for first, second, truth in zip(batch, mapped, expected, strict=True):
                    torch.testing.assert_close(first[sample], truth, rtol=1e-9, atol=1e-10)
                    torch.testing.assert_close(second[sample], truth, rtol=1e-9, atol=1e-10)


def dependent_arguments(name: str, device: str) -> None:
    """Arguments that depend on each other: the gradient that can be differentiated is the same."""
    if name in BACKWARD:
        return
    for tensors, function in problems(name, device):
        first = tensors[0].detach().requires_grad_()
        inputs = [first, *(t * first.sin().mean() for t in tensors[1:])]
        value = total(function, *inputs)
        (expected,) = torch.autograd.grad(value, first, retain_graph=True)
        (result,) = torch.autograd.grad(value, first, create_graph=True)
        torch.testing.assert_close(result, expected)


RULES: dict[str, Callable[[str, str], None]] = {
    "memory": memory,
    "fakes": fakes,
    "tangents": tangents,
    "reverse levels": reverse_levels,
    "batches": batches,
    "batched gradients": batched_gradients,
    "dependent arguments": dependent_arguments,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES)
def test_every_operator(rule: str, name: str, device: str) -> None:
    RULES[rule](name, device)


# The autograd functions around them.


def functions_of_the_package() -> set[str]:
    return {
        function.__name__
        for function in torch.autograd.Function.__subclasses__()
        if function.__module__.startswith("sspcab_cuda")
    }


def test_every_autograd_function_is_here() -> None:
    assert functions_of_the_package() == {f"{name}_function" for name in set(NAMES) - PRIVATE}


def some_subsets(count: int) -> Iterator[list[bool]]:
    """All, each alone, all but each, every pair of neighbours."""
    yield [True] * count
    for i in range(count):
        yield [i == j for j in range(count)]
        if count > 1:
            yield [i != j for j in range(count)]
            yield [j in (i - 1, i) for j in range(count)]


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", sorted(set(NAMES) - PRIVATE))
def test_gradients_have_memory_of_their_own(name: str, create_graph: bool, device: str) -> None:
    """Of each other, the arguments, the results and their gradients."""
    for arguments in filter(has_loss, calls_of(name, CASE, torch.float64, device, "contiguous")):
        tensors = tensors_of(arguments)
        for needs in some_subsets(len(tensors)):
            inputs = [t.detach().requires_grad_(n) for t, n in zip(tensors, needs, strict=True)]
            results = tensors_of(getattr(ops, name)(*with_tensors(arguments, inputs)))
            outputs = [result for result in results if result.requires_grad]
            grads = [torch.randn_like(output) for output in outputs]
            gradients = torch.autograd.grad(
                outputs, [t for t in inputs if t.requires_grad], grads, create_graph=create_graph
            )
            assert_own_memory(gradients, [*inputs, *results, *grads])


def changed_after_autograd_grad(model: torch.nn.Module, loss: Tensor) -> list[Tensor]:
    parameters = list(model.parameters())
    for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        p.grad = gradient
    torch.nn.utils.clip_grad_norm_(parameters, 1e-3)
    return [p.grad for p in parameters if p.grad is not None]


def changed_by_hooks(model: torch.nn.Module, loss: Tensor) -> list[Tensor]:
    for p in model.parameters():
        p.register_hook(lambda gradient: gradient.mul_(0.5))
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("backend", [None, "aot_eager"])
@pytest.mark.parametrize("change", [changed_after_autograd_grad, changed_by_hooks])
def test_gradients_changed_in_place(
    change: Callable[[torch.nn.Module, Tensor], list[Tensor]], backend: str | None, device: str
) -> None:
    """As clipping, unscaling and hooks do: one change each, to the biases' too."""
    torch.compiler.reset()
    models = [m.SSPCAB(8).to(device, torch.float64) for m in (sspcab_cuda, reference)]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64, device=device)
    changed = []
    for model in models:
        function = torch.compile(model, backend=backend) if backend else model
        changed.append(change(model, function(x).square().sum()))
    assert len(changed[0]) == 12
    torch.testing.assert_close(*changed)
