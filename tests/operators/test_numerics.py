"""Accuracy of every result and gradient against float64, over all cases and dtypes."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from sspcab_cuda import functional, ops, reference

from ..helpers.cases import (
    CASES,
    DTYPES,
    HALVES,
    LAYOUTS,
    LONG_SUMS,
    MANY_SAMPLES,
    Case,
    arguments,
    double,
    forward_backward,
    output_gradients,
)
from ..helpers.tolerances import assert_accurate, errors, rms_error

Results = dict[str, Tensor]

SEEDS = 8
ROUNDING = torch.finfo(torch.float32).eps / 4  # of a result, at most, in the RMS


@functools.cache
def run(
    case: Case,
    dtype: torch.dtype,
    device: str,
    *,
    layout: str = "contiguous",
    parameters: torch.dtype | None = None,
    seed: int = 0,
) -> tuple[Results, Results, Results]:
    """Ours, the eager reference's in this dtype, and the truth."""
    tensors = arguments(case, dtype, device, parameters=parameters, seed=seed)
    tensors[0] = LAYOUTS[layout](tensors[0])
    grads = output_gradients(case, dtype, device, seed=seed + SEEDS)
    ours = forward_backward(functional, tensors, case.dilation, *grads)
    eager = forward_backward(reference, [t.to(dtype) for t in tensors], case.dilation, *grads)
    truth = forward_backward(reference, double(tensors), case.dilation, *double(grads))
    return ours, eager, truth


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_block(case: Case, dtype: torch.dtype, device: str, layout: str) -> None:
    many = SEEDS if device == "cpu" else 2
    seeds = many if dtype == torch.float32 else 1
    runs = [run(case, dtype, device, layout=layout, seed=seed) for seed in range(seeds)]
    assert_accurate(dtype, runs)
    ours, eager, _ = runs[0]
    assert {n: t.dtype for n, t in ours.items()} == {n: t.dtype for n, t in eager.items()}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_block_with_float32_parameters(case: Case, dtype: torch.dtype, device: str) -> None:
    results = run(case, dtype, device, parameters=torch.float32)
    assert_accurate(dtype, [results])
    for name, result in results[0].items():
        assert result.dtype == (dtype if name in ("out", "grad_x") else torch.float32), name


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rms_error_over_all_cases(dtype: torch.dtype, device: str) -> None:
    squares: dict[str, list[Tensor]] = {}
    for case in CASES:
        for seed in range(2):
            ours, eager, truth = run(case, dtype, device, seed=seed)
            for name in truth:
                pair = [rms_error(r[name], truth[name]) ** 2 for r in (ours, eager)]
                squares.setdefault(name, []).append(torch.tensor(pair))
    rms = {name: torch.stack(pairs).mean(0).sqrt().tolist() for name, pairs in squares.items()}
    worse = {name: pair for name, pair in rms.items() if pair[0] > pair[1]}
    assert not worse, f"(ours, eager): {worse}"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")  # it adds up what several would share
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("case", LONG_SUMS, ids=str)
def test_rms_error_of_long_float32_sums(case: Case, device: str, layout: str) -> None:
    """One chain of additions has an error that grows with its length; eager adds in pieces."""
    runs = [run(case, torch.float32, device, layout=layout, seed=seed) for seed in range(SEEDS)]
    worse = {}
    for name in runs[0][2]:
        ours, eager = errors(runs, name, rms_error)
        if ours > 2 * eager + ROUNDING:
            worse[name] = f"ours {ours:.2e}, eager {eager:.2e}"
    assert not worse, worse


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_mean_of_many_pixels(device: str, layout: str) -> None:
    """The squeeze adds up positive numbers, whose rounding errors grow the fastest."""
    case = Case(1, 8, 256, 256, reduction_ratio=1)
    x, *parameters = arguments(case, torch.float32, device)
    _, _, y, mean, _, _ = ops.sspcab(LAYOUTS[layout](x), *parameters, case.dilation, True, False)
    mean_alone = ops.squeeze_excite(y, *parameters[8:])[1]
    truth = y.double().mean(dim=(2, 3))
    limit = 2 * rms_error(y.mean(dim=(2, 3)), truth) + ROUNDING
    assert rms_error(mean, truth) <= limit
    assert rms_error(mean_alone, truth) <= limit


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_more_samples_than_are_worked_off_at_once(device: str, layout: str) -> None:
    assert_accurate(torch.float32, [run(MANY_SAMPLES, torch.float32, device, layout=layout)])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_loss_is_summed_in_float32_or_wider(dtype: torch.dtype, device: str) -> None:
    case = Case(2, 16, 48, 48)
    x = arguments(case, dtype, device)[0]
    out = torch.zeros_like(x)
    loss = functional.reconstruction_loss(out, x)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), x.double().square().mean(), rtol=1e-6, atol=0)
