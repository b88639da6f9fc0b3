"""The variants of the block: paper, anomalib, tensorflow."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import sspcab_cuda
from sspcab_cuda import functional, reference
from sspcab_cuda.reference import Variant

from ..helpers.cases import (
    CASES,
    DTYPES,
    LAYOUTS,
    SMALL,
    Case,
    arguments,
    block,
    double,
    forward_backward,
    leaves,
    output_gradients,
)
from ..helpers.tolerances import assert_accurate, assert_equal, relative_error

VARIANTS: tuple[Variant, ...] = ("paper", "anomalib", "tensorflow")


def fits(case: Case, variant: str) -> bool:
    mirrored = min(case.height, case.width) > case.kernel_dim + case.dilation
    return mirrored if variant == "tensorflow" else True


def formula(tensors: Sequence[Tensor], dilation: int, variant: str) -> np.ndarray:
    """out in float64 from the formula, tap by tap, in numpy."""
    x, *parameters = (t.double().numpy() for t in tensors)
    weights, biases, (fc1, fc1_bias, fc2, fc2_bias) = (
        parameters[:4],
        parameters[4:8],
        parameters[8:],
    )
    _, _, height, width = x.shape
    size = weights[0].shape[-1]
    padding = size + dilation
    padded = np.pad(
        x,
        [(0, 0), (0, 0), (padding, padding), (padding, padding)],
        mode="reflect" if variant == "tensorflow" else "constant",
    )
    corners = []
    for corner, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        first_row = (size + 2 * dilation + 1) * (corner in (1, 3))  # the lower ones
        first_column = (size + 2 * dilation + 1) * (corner in (2, 3))  # the right ones
        sums = bias[None, :, None, None]
        for i in range(size):
            for j in range(size):
                row, column = first_row + i, first_column + j
                shifted = padded[:, :, row : row + height, column : column + width]
                sums = sums + np.einsum("oc,nchw->nohw", weight[:, :, i, j], shifted)
        corners.append(np.maximum(sums, 0) if variant == "tensorflow" else sums)
    total = np.sum(corners, axis=0)
    y = np.maximum(total, 0) if variant == "paper" else total
    hidden = np.maximum(y.mean((2, 3)) @ fc1.T + fc1_bias, 0)
    gate = 1 / (1 + np.exp(-(hidden @ fc2.T + fc2_bias)))
    return y * gate[:, :, None, None]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", (*CASES[::3], Case(2, 6, 9, 8, 2, 3, 2)), ids=str)
def test_formula(case: Case, variant: str, device: str) -> None:
    if not fits(case, variant):
        pytest.skip("smaller than what is mirrored")
    tensors = arguments(case, torch.float64)
    truth = torch.from_numpy(formula(tensors, case.dilation, variant))
    out, loss = block(functional, [t.to(device) for t in tensors], case.dilation, variant=variant)
    assert relative_error(out.cpu(), truth) <= 1e-12
    torch.testing.assert_close(loss.cpu(), (truth - tensors[0]).square().mean(), rtol=1e-12, atol=0)
    assert (
        relative_error(block(reference, tensors, case.dilation, variant=variant)[0], truth) <= 1e-12
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("variant", ["anomalib", "tensorflow"])
def test_values_and_gradients(variant: str, layout: str, dtype: torch.dtype, device: str) -> None:
    runs = []
    for seed in range(5):
        case = Case(2, 24, 9, 11, 1 + seed % 2, seed % 3)
        tensors = arguments(case, dtype, device, seed=seed)
        tensors[0] = LAYOUTS[layout](tensors[0])
        grads = output_gradients(case, dtype, device, seed)
        ours, eager, truth = (
            forward_backward(library, inputs, case.dilation, *gradients, variant=variant)
            for library, inputs, gradients in (
                (functional, tensors, grads),
                (reference, tensors, grads),
                (reference, double(tensors), double(grads)),
            )
        )
        assert ours["out"].dtype == dtype
        assert ours["out"].is_contiguous() == (layout != "channels_last")
        runs.append((ours, eager, truth))
    ours, eager, truth = (
        {name: torch.cat([run[i][name].flatten() for run in runs]) for name in runs[0][i]}
        for i in range(3)
    )
    assert_accurate(dtype, [(ours, eager, truth)])


@pytest.mark.parametrize("variant", ["anomalib", "tensorflow"])
@pytest.mark.parametrize("case", [Case(2, 5, 6, 7, 1, 1, 2), Case(2, 4, 6, 7, 3, 1, 2)], ids=str)
def test_gradcheck(case: Case, variant: str, device: str) -> None:
    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return block(functional, tensors, case.dilation, variant=variant)

    inputs = leaves(arguments(case, torch.float64, device, seed=3))
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_module(variant: Variant, device: str) -> None:
    torch.manual_seed(0)
    ours = sspcab_cuda.SSPCAB(16, 2, 1, 4, variant=variant).to(device)
    slow = reference.SSPCAB(16, 2, 1, 4, variant=variant).to(device)
    slow.load_state_dict(ours.state_dict())
    x = torch.randn(2, 16, 9, 8, device=device)
    for result, expected in zip(ours(x, True), slow(x, True), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert f"variant={variant}" in repr(ours)
    with torch.no_grad():  # the same kernels' results, without what autograd keeps
        assert_equal(ours(x), ours(x, True)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_transforms(variant: str) -> None:
    tensors = arguments(SMALL, torch.float64)

    def loss_of(library: object, x: Tensor) -> Tensor:
        out, loss = block(library, [x, *tensors[1:]], 1, variant=variant)  # type: ignore[arg-type]
        return out.square().sum() + loss

    ours, truth = (
        torch.func.grad(lambda x, library=library: loss_of(library, x))(tensors[0])
        for library in (functional, reference)
    )
    assert relative_error(ours, truth) <= 1e-12


@pytest.mark.parametrize("variant", VARIANTS)
def test_compile(variant: Variant) -> None:
    torch._dynamo.reset()
    model = sspcab_cuda.SSPCAB(16, variant=variant)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 16, 8, 8)
    for result, expected in zip(compiled(x, True), model(x, True), strict=True):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast(variant: Variant, device: str) -> None:
    model = sspcab_cuda.SSPCAB(16, variant=variant).to(device)
    x = torch.randn(2, 16, 8, 8, device=device)
    with torch.autocast(device, torch.bfloat16):
        out, loss = model(x, return_loss=True)
    assert out.dtype == torch.bfloat16 and loss.dtype == torch.float32
    torch.testing.assert_close(out.float(), model(x), rtol=0.1, atol=0.02)
    (out.float().sum() + loss).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_half_images_beside_float32_parameters(device: str) -> None:
    tensors = arguments(SMALL, torch.float16, device, parameters=torch.float32)
    out, loss = block(functional, tensors, 1, variant="tensorflow")
    assert out.dtype == torch.float16 and loss.dtype == torch.float32


def test_unknown_variant(device: str) -> None:
    text = re.escape("variant must be 'paper', 'anomalib' or 'tensorflow'; got 'keras'")
    with pytest.raises(ValueError, match=text):
        block(functional, arguments(SMALL, device=device), 1, variant="keras")
    with pytest.raises(ValueError, match=text):
        sspcab_cuda.SSPCAB(16, variant="keras")  # type: ignore[arg-type]


def test_errors_of_the_mirrored_variant() -> None:
    tensors = arguments(SMALL)

    def wrong(index: int, value: Tensor, dilation: int = 1) -> None:
        changed = [*tensors]
        changed[index] = value
        block(functional, changed, dilation, variant="tensorflow")

    for text, index, value, dilation in (
        ("H and W must be larger than k' + d = 8; got (2, 16, 8, 8)", 0, tensors[0], 7),
        ("x must be (N, C, H, W); got (16, 8, 8)", 0, tensors[0][0], 1),
        ("dilation must be 0 or more; got -1", 0, tensors[0], -1),
        ("weight2 must be (16, 16, 1, 1) for x of (2, 16, 8, 8); got (8, 16, 1, 1)", 2,
         tensors[2][:8], 1),
        ("bias3 must be (16,) for x of (2, 16, 8, 8); got (8,)", 7, tensors[7][:8], 1),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=re.escape(text)):
            wrong(index, value, dilation)
