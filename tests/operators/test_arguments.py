"""Every argument of every registered operator: what is wrong with it is refused by kernels and by
their fakes, in the same words, before anything is read; strides are never wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_map_only

import sspcab_cuda
from sspcab_cuda import ops

from ..helpers.cases import Case
from ..helpers.operator_calls import NAMES, calls_of
from ..helpers.tolerances import assert_equal

CASE = Case(2, 16, 6, 5, 3, 1)
SHAPE = "(2, 16, 6, 5)"

Arguments = tuple[Any, ...]
Place = tuple[int, ...]  # of an argument, or of one in a list


def call_of(name: str, device: str, dtype: torch.dtype = torch.float32) -> Arguments:
    return calls_of(name, CASE, dtype, device, "contiguous")[0]


def position(name: str, argument: str) -> int | None:
    names = [a.name for a in getattr(ops, name)._schema.arguments]
    return names.index(argument) if argument in names else None


def tensors_of(name: str, args: Arguments) -> Iterator[tuple[str, Place, Tensor]]:
    """Name, place and value of every tensor."""
    for index, (argument, value) in enumerate(
        zip(getattr(ops, name)._schema.arguments, args, strict=False)
    ):
        if isinstance(value, Tensor):
            yield argument.name, (index,), value
        elif isinstance(value, list) and isinstance(value[0], Tensor):
            for i, tensor in enumerate(value):
                yield f"{argument.name.removesuffix('s')}{i + 1}", (index, i), tensor


def replaced(args: Arguments, place: Place, value: Any) -> Arguments:
    index, *of_list = place
    if of_list:
        items = list(args[index])
        items[of_list[0]] = value
        value = items
    return (*args[:index], value, *args[index + 1 :])


def message(name: str, args: Arguments, options: dict[str, int]) -> str:
    with pytest.raises(RuntimeError) as caught:
        getattr(ops, name)(*args, **options)
    return str(caught.value).splitlines()[0]


def on_meta(args: Arguments) -> Arguments:
    return tree_map_only(Tensor, lambda t: t.to("meta"), args)


def messages(name: str, args: Arguments, **options: int) -> set[str]:
    """Of the kernel, of its fake in FakeTensorMode and of meta tensors; one where they agree."""
    with FakeTensorMode() as mode:
        faked = tree_map_only(Tensor, mode.from_tensor, args)
        said = message(name, faked, options)
    return {message(name, args, options), message(name, on_meta(args), options), said}


def dtype_rule(name: str, x: str) -> str:
    """What a message says before the dtype that was wrong."""
    if name == "x":
        return "x must be float16, bfloat16, float32 or float64; got "
    if name in ("y", "out", "grad_out", "grad_y"):
        return f"{name} must be {x} for x of {x}; got "
    if name in ("mean", "hidden", "gate", "grad_loss"):
        return f"{name} must be {'float64' if x == 'float64' else 'float32'} for x of {x}; got "
    return (
        f"{name} must have the dtype of x{'' if x.endswith(('32', '64')) else ' or float32'}; got "
    )


@pytest.mark.parametrize("x", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str, x: str, device: str) -> None:
    args = call_of(name, device, getattr(torch, x))
    for argument, place, tensor in tensors_of(name, args):
        for wrong in ("int64", "bool", "complex64"):
            changed = replaced(args, place, tensor.to(getattr(torch, wrong)))
            (said,) = messages(name, changed)
            assert said.startswith(f"sspcab: {dtype_rule(argument, x)}{wrong}"), said
        if argument != "x":
            changed = replaced(args, place, tensor.half())
            (said,) = messages(name, changed)
            assert said.startswith(f"sspcab: {dtype_rule(argument, x)}float16"), said


# What has no shape of its own, but gives one to others.
DIMENSIONS = {"x": "(N, C, H, W)", "weight1": "(C, C, k', k')", "fc1_weight": "(C // r, C)"}


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str, device: str) -> None:
    args = call_of(name, device)
    for argument, place, tensor in tensors_of(name, args):
        rule = DIMENSIONS.get(argument, f"{tuple(tensor.shape)} for x of {SHAPE}")
        wrong = [tensor[None]]
        if argument not in DIMENSIONS:
            wrong += [tensor.narrow(dim, 0, size - 1) for dim, size in enumerate(tensor.shape)]
        for value in wrong:
            said = messages(name, replaced(args, place, value))
            assert said == {f"sspcab: {argument} must be {rule}; got {tuple(value.shape)}"}


@pytest.mark.parametrize("name", NAMES)
def test_none(name: str, device: str) -> None:
    args = call_of(name, device)
    for argument, place, _ in tensors_of(name, args):
        if len(place) == 2:
            continue  # the dispatcher's own words
        changed = replaced(args, place, None)
        if "Optional" in str(getattr(ops, name)._schema.arguments[place[0]].type):
            getattr(ops, name)(*changed)
        else:
            assert messages(name, changed) == {f"sspcab: {argument} must be a tensor; got None"}


def test_neither_gradient(device: str) -> None:
    args = (None, None, *call_of("sspcab_backward", device)[2:])
    real, meta = ops.sspcab_backward(*args), ops.sspcab_backward(*on_meta(args))
    for gradient, fake in zip(real, meta, strict=True):
        assert gradient.shape == fake.shape and not gradient.any()


@pytest.mark.parametrize("name", NAMES)
def test_numbers(name: str, device: str) -> None:
    args = call_of(name, device)
    if index := position(name, "dilation"):
        said = messages(name, replaced(args, (index,), -1))
        assert said == {"sspcab: dilation must be 0 or more; got -1"}
    if index := position(name, "needs"):
        count = len(args[index])
        for other in (count - 1, count + 1, 0):
            said = messages(name, replaced(args, (index,), [True] * other))
            assert said == {f"sspcab: needs must have {count} entries; got {other}"}
    if index := position(name, "weights"):
        for weights in (args[index][:3], [*args[index], args[index][0]], []):
            said = messages(name, replaced(args, (index,), weights))
            assert said == {f"sspcab: weights must be four sub-kernels; got {len(weights)}"}


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("name", [name for name in NAMES if position(name, "config")])
def test_config(name: str, empty: bool, device: str) -> None:
    case = Case(0, 16, 6, 5) if empty else CASE
    args = calls_of(name, case, torch.float32, device, "contiguous")[0]
    on_cuda = "config must be -1 (automatic), 0 to 2 (tiles) or 3 (plain kernels); got "
    on_cpu = "config must be -1 (automatic), 0 (direct), 1 (Winograd) or 2 (windows); got "
    for config in (-2, 3, 4):
        words = [on_cpu if device == "cpu" else on_cuda, on_cuda]
        if config == 3:  # meta tensors stand for those of every device
            getattr(ops, name)(*on_meta(args), config=config)
            if device == "cpu":
                assert message(name, args, {"config": 3}) == f"sspcab: {on_cpu}3"
        else:
            assert messages(name, args, config=config) == {f"sspcab: {w}{config}" for w in words}


def mixtures(args: Arguments, place: Place, tensor: Tensor) -> Iterator[tuple[Arguments, str, str]]:
    """With one tensor elsewhere: that device, and that of the others."""
    others = ["meta"] if tensor.device.type == "cpu" else ["meta", "cpu"]
    for device in others:
        yield replaced(args, place, tensor.to(device)), device, str(tensor.device)
    moved = on_meta(args)
    yield replaced(moved, place, tensor), str(tensor.device), "meta"
    with FakeTensorMode() as mode:
        for here, there in (("cpu", "cuda:0"), ("cuda:0", "cpu"), ("cuda:0", "cuda:1"),
                            ("cpu", "meta"), ("meta", "cuda:0")):  # fmt: skip

            def fake(t: Tensor, device: str = here) -> Tensor:
                return torch.empty_like(mode.from_tensor(t), device=device)

            yield (
                replaced(tree_map_only(Tensor, fake, args), place, fake(tensor, there)),
                there,
                here,
            )


@pytest.mark.parametrize("name", NAMES)
def test_devices(name: str, device: str) -> None:
    args = call_of(name, device)
    for argument, place, tensor in tensors_of(name, args):
        for mixture, there, here in mixtures(args, place, tensor):
            said = message(name, mixture, {})
            if argument == "x":
                assert said.endswith(f" must be on the device of x, {there}; got {here}"), said
            else:
                rule = f"{argument} must be on the device of x, {here}; got {there}"
                assert said == f"sspcab: {rule}"


def stepped(t: Tensor) -> Tensor:
    bigger = t.new_full([2 * size + 1 for size in t.shape], torch.nan)
    return bigger[(slice(1, None, 2),) * t.dim()].copy_(t)


def reversed_dims(t: Tensor) -> Tensor:
    dims = list(reversed(range(t.dim())))
    return t.permute(dims).contiguous().permute(dims)


STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "stepped": stepped,
    "reversed": reversed_dims,
    "shifted": lambda t: torch.cat([t.new_tensor([torch.nan]), t.flatten()])[1:].view(t.shape),
    # the one that changes the values
    "expanded": lambda t: t[(slice(1),) * t.dim()].expand_as(t),
}


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("name", NAMES)
def test_strides(name: str, strides: str, device: str) -> None:
    args = call_of(name, device)
    for argument, place, tensor in tensors_of(name, args):
        strided = STRIDES[strides](tensor)
        ours = getattr(ops, name)(*replaced(args, place, strided))
        expected = getattr(ops, name)(*replaced(args, place, strided.contiguous()))
        if isinstance(ours, Tensor):
            ours, expected = [ours], [expected]
        for result, truth in zip(ours, expected, strict=True):
            assert_equal(result, truth)
            assert not result.isnan().any(), argument


# Forward mode makes PyTorch load its own TorchScript decompositions.
@pytest.mark.filterwarnings("ignore:`torch.jit.script")
@pytest.mark.parametrize("kind", ["SSPCAB", "MaskedConv2d", "SELayer"])
def test_parameters_without_values(kind: str, device: str) -> None:
    """As after load_state_dict(assign=True) of a checkpoint that lacks the block."""
    with torch.device("meta"):
        empty = getattr(sspcab_cuda, kind)(16)
    x = torch.randn(2, 16, 5, 6, device=device)
    moved = x.to("meta")
    text = f"^sspcab: x must be on meta, as this {kind} is; got x on {x.device}$"
    for training in (False, True):
        with torch.set_grad_enabled(training), pytest.raises(RuntimeError, match=text):
            empty(x)
        assert empty(moved).is_meta
    with pytest.raises(RuntimeError, match=text):
        torch.func.jvp(empty, (x,), (x,))
    assert torch.func.jvp(empty, (moved,), (moved,))[0].is_meta
    with pytest.raises(RuntimeError, match=r"must be of torch\.float32"):
        empty(moved.double())
    block = getattr(sspcab_cuda, kind)(16).to(device)
    call = torch.func.functional_call
    for name, parameter in block.named_parameters():
        mixed = {name: parameter.to("meta")}
        text = f"^sspcab: .* on the device of x|x must be on meta, as this {kind} is"
        with pytest.raises(RuntimeError, match=text):
            call(block, mixed, x)
        with pytest.raises(RuntimeError, match=text):
            torch.func.jvp(lambda x, mixed=mixed: call(block, mixed, x), (x,), (x,))
