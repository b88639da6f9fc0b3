"""torch.library.opcheck of every operator: schema, fake results and strides, autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sspcab_cuda import ops

from .cases import LAYOUTS, SMALL, Case, arguments, leaves, output_gradients

CASES = [SMALL, Case(2, 5, 6, 7, 2, 1), Case(1, 16, 1, 1), Case(1, 1, 5, 4, 3, 0)]

# Operators that nothing differentiates again.
PRIVATE = {
    "masked_conv2d_backward",
    "squeeze_excite_backward",
    "reconstruction_loss_backward",
    "sspcab_backward",
    "sspcab_inference",
}


def calls_of(
    name: str, case: Case, dtype: torch.dtype, device: str, layout: str
) -> list[tuple[Any, ...]]:
    """Arguments for an operator; several where it has options."""
    tensors = arguments(case, dtype, device)
    x = tensors[0] = LAYOUTS[layout](tensors[0])
    grad_out, grad_loss = output_gradients(case, dtype, device)
    weights, excitation, d = tensors[1:5], tensors[9:], case.dilation
    out, _, y, *vectors = ops.sspcab(*tensors, d, True, True)
    saved = (*vectors, excitation[0], excitation[2])
    calls: dict[str, list[tuple[Any, ...]]] = {
        "masked_conv2d": [(*tensors[:9], d, relu) for relu in (True, False)],
        "masked_conv2d_backward": [
            (grad_out, x, y, weights, d, True, [True] * 6),
            (grad_out, x, y, weights, d, False, [False, True, False, False, True, False]),
        ],
        "squeeze_excite": [(x, *excitation)],
        "squeeze_excite_backward": [
            (grad_out, x, *saved, [True] * 5),
            (grad_out, x, *saved, [False, True, False, True, False]),
        ],
        "reconstruction_loss": [(out, x)],
        "reconstruction_loss_backward": [(grad_loss, out, x)],
        "sspcab": [
            (*tensors, d, True, True),
            (*tensors, d, False, True),
            (*tensors, d, True, False),
        ],
        "sspcab_inference": [
            (*tensors, d, True, True),
            (*tensors, d, False, True),
            (*tensors, d, True, False),
        ],
        "sspcab_backward": [
            (grad_out, grad_loss, x, y, *vectors, weights, *saved[3:], d, True, [True] * 10),
            (None, grad_loss, x, y, *vectors, weights, *saved[3:], d, True, [False, True] * 5),
            (grad_out, None, x, y, *vectors, weights, *saved[3:], d, False, [True, False] * 5),
        ],
    }
    return calls[name]


def test_every_operator_is_checked() -> None:
    defined = {name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names()
               if name.startswith("sspcab::")}  # fmt: skip
    assert defined == set(NAMES)


NAMES = ["masked_conv2d", "squeeze_excite", "reconstruction_loss", "sspcab", *sorted(PRIVATE)]


def has_loss(args: tuple[Any, ...]) -> bool:
    """opcheck compares results, and a loss that isn't computed is NaN."""
    return args[-1] is not False


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_without_gradients(name: str, case: Case, device: str) -> None:
    for args in filter(has_loss, calls_of(name, case, torch.float32, device, "contiguous")):
        torch.library.opcheck(getattr(ops, name), args)


# opcheck looks at the .grad of its own copies of the arguments, which are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", sorted(set(NAMES) - PRIVATE))
def test_with_gradients(name: str, case: Case, device: str) -> None:
    for args in filter(has_loss, calls_of(name, case, torch.float32, device, "contiguous")):
        tensors = [a for a in args if isinstance(a, Tensor)]
        torch.library.opcheck(getattr(ops, name), (*leaves(tensors), *args[len(tensors) :]))


@pytest.mark.parametrize("name", NAMES)
def test_differentiates_or_raises(name: str, device: str) -> None:
    """No operator gives results without a graph from arguments that require gradients."""
    for args in calls_of(name, SMALL, torch.float64, device, "contiguous"):
        for index, arg in enumerate(args):
            for tensor in arg if isinstance(arg, list) else [arg]:
                if not isinstance(tensor, Tensor):
                    continue
                tensor.requires_grad_()
                results = getattr(ops, name)(*args)
                first = results if isinstance(results, Tensor) else results[0]
                assert first.requires_grad, index
                if name.endswith("_backward"):
                    text = f"^sspcab: sspcab::{name} has no derivative; got an argument"
                    with pytest.raises(RuntimeError, match=text):
                        first.sum().backward()
                else:
                    first.sum().backward()
                    assert tensor.grad is not None
                tensor.requires_grad_(False)
                with torch.no_grad():
                    getattr(ops, name)(*args)


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"contiguous"}))
@pytest.mark.parametrize("name", NAMES)
def test_layouts(name: str, layout: str, device: str) -> None:
    for args in calls_of(name, SMALL, torch.float32, device, layout):
        torch.library.opcheck(
            getattr(ops, name), args, test_utils=("test_schema", "test_faketensor")
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str, dtype: torch.dtype, device: str) -> None:
    for args in calls_of(name, SMALL, dtype, device, "channels_last"):
        torch.library.opcheck(
            getattr(ops, name), args, test_utils=("test_schema", "test_faketensor")
        )


@pytest.mark.parametrize("name", NAMES)
def test_meta_tensors(name: str) -> None:
    """Shapes can be had without memory, as in torch.nn.utils.skip_init or a dry run."""
    for args in calls_of(name, SMALL, torch.float32, "cpu", "channels_last"):
        moved = torch.utils._pytree.tree_map_only(Tensor, lambda t: t.to("meta"), args)
        real, meta = getattr(ops, name)(*args), getattr(ops, name)(*moved)
        pairs = [(real, meta)] if isinstance(real, Tensor) else zip(real, meta, strict=True)
        for expected, result in pairs:
            assert result.is_meta and result.dtype == expected.dtype
            assert result.shape == expected.shape and result.stride() == expected.stride()
