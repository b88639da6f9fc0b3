"""torch.library.opcheck of every operator: schema, fake results and strides, autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sspcab_cuda import ops

from ..helpers.cases import LAYOUTS, SMALL, Case, leaves
from ..helpers.operator_calls import NAMES, PRIVATE, calls_of, has_loss

CASES = [SMALL, Case(2, 5, 6, 7, 2, 1), Case(1, 16, 1, 1), Case(1, 1, 5, 4, 3, 0)]


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
