"""Any shape, strides, sub-kernel, dilation, reduction ratio and dtype against float64."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sspcab_cuda import functional, reference

from ..helpers.cases import (
    DTYPES,
    LAYOUTS,
    Case,
    arguments,
    convolution,
    double,
    forward_backward,
    integers,
    output_gradients,
)
from ..helpers.tolerances import assert_accurate, assert_equal


def _cases(kernel_dims: st.SearchStrategy[int], channels: int) -> st.SearchStrategy[Case]:
    sizes = st.integers(1, 3), st.integers(1, channels), st.integers(1, 16), st.integers(1, 30)
    return st.builds(
        Case, *sizes, kernel_dims, st.integers(0, 3), st.sampled_from([1, 2, 3, 8, 16])
    )


SHAPES = _cases(st.integers(1, 3), 40) | _cases(st.integers(4, 7), 18)
LAYOUT = st.sampled_from(sorted(LAYOUTS))


@settings(max_examples=60)
@given(SHAPES, st.sampled_from(DTYPES), LAYOUT, LAYOUT, st.integers(0, 2**31))
def test_exact_sums(
    device: str, case: Case, dtype: torch.dtype, layout: str, layout_of_grad: str, seed: int
) -> None:
    tensors = integers(case, dtype, device, seed)
    tensors[0] = LAYOUTS[layout](tensors[0])
    grad_y = LAYOUTS[layout_of_grad](integers(case, dtype, device, seed + 1)[0])
    inputs = [t.detach().requires_grad_() for t in tensors]
    wide = [t.double().requires_grad_() for t in tensors]
    y = convolution(functional, inputs, case.dilation)
    truth = convolution(reference, wide, case.dilation)
    assert_equal(y.detach(), truth.detach().to(dtype))
    gradients = torch.autograd.grad(y, inputs, grad_y)
    for ours, expected in zip(
        gradients, torch.autograd.grad(truth, wide, grad_y.double()), strict=True
    ):
        assert_equal(ours, expected.to(dtype))


@settings(max_examples=40)
@given(SHAPES, LAYOUT, LAYOUT, st.integers(0, 2**31))
def test_block_in_float64(
    device: str, case: Case, layout: str, layout_of_grad: str, seed: int
) -> None:
    tensors = arguments(case, torch.float64, device, seed=seed)
    grad_out, grad_loss = output_gradients(case, torch.float64, device, seed)
    grads = (LAYOUTS[layout_of_grad](grad_out), grad_loss)
    tensors[0] = LAYOUTS[layout](tensors[0])
    ours = forward_backward(functional, tensors, case.dilation, *grads)
    truth = forward_backward(reference, tensors, case.dilation, *grads)
    assert_accurate(torch.float64, [(ours, truth, truth)])


@given(SHAPES, st.sampled_from(DTYPES[:2]), LAYOUT, st.booleans(), st.integers(0, 2**31))
def test_results_in_half_precision(
    device: str, case: Case, dtype: torch.dtype, layout: str, mixed: bool, seed: int
) -> None:
    parameters = torch.float32 if mixed else dtype
    tensors = arguments(case, dtype, device, parameters=parameters, seed=seed)
    tensors[0] = LAYOUTS[layout](tensors[0])

    def results(library: object, inputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        out, loss = library.sspcab(  # type: ignore[attr-defined]
            inputs[0], inputs[1:5], inputs[5:9], *inputs[9:], case.dilation, True
        )
        return {"out": out, "loss": loss}

    ours = results(functional, tensors)
    eager = results(reference, [t.to(dtype) for t in tensors])
    assert_accurate(dtype, [(ours, eager, results(reference, double(tensors)))])
