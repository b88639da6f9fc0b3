"""Equal bits from run to run, and what is kept between forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from sspcab_cuda import functional, reference

from ..helpers.cases import (
    DTYPES,
    Case,
    arguments,
    block,
    forward_backward,
    leaves,
    output_gradients,
)
from ..helpers.tolerances import assert_equal

# Several bands, tiles and pieces of work for each thread.
CASE = Case(3, 48, 24, 26, 2, 1)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_runs_are_equal(threads: int, dtype: torch.dtype, device: str) -> None:
    tensors = arguments(CASE, dtype, device)
    grads = output_gradients(CASE, dtype, device)
    first = forward_backward(functional, tensors, CASE.dilation, *grads)
    for _ in range(4):
        again = forward_backward(functional, tensors, CASE.dilation, *grads)
        for name, result in first.items():
            assert_equal(again[name], result)


def test_threads_that_share_many_samples(device: str) -> None:
    """No thread touches a sample that is another one's."""
    x, grad_out = torch.rand(2, 96, 64, 2, 2, device=device)
    fc1_weight, fc2_weight = torch.randn(2, 64, 64, device=device)
    biases = torch.randn(2, 64, device=device)
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, *[4] * 8):
            torch.set_num_threads(count)
            given = x.clone().requires_grad_()
            out = functional.squeeze_excite(given, fc1_weight, biases[0], fc2_weight, biases[1])
            (grad_x,) = torch.autograd.grad(out, given, grad_out)
            results.append((out.detach(), grad_x))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_deterministic_mode(dtype: torch.dtype, device: str) -> None:
    """Nothing is refused there; new memory, filled with NaN by PyTorch then, is never read."""
    tensors = arguments(CASE, dtype, device)
    grads = output_gradients(CASE, dtype, device)
    expected = forward_backward(functional, tensors, CASE.dilation, *grads)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        results = forward_backward(functional, tensors, CASE.dilation, *grads)
    finally:
        torch.use_deterministic_algorithms(before)
    for name, result in expected.items():
        assert_equal(results[name], result)


def saved_by(run: Callable[[], object]) -> list[Tensor]:
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return saved


def bytes_apart_from(parameters: list[Tensor], saved: list[Tensor]) -> int:
    own = {p.untyped_storage().data_ptr() for p in parameters}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}
    return sum(size for pointer, size in storages.items() if pointer not in own)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [CASE, Case(2, 16, 8, 8), Case(2, 16, 9, 7, 3, 1)], ids=str)
def test_saved_for_backward(case: Case, dtype: torch.dtype, device: str) -> None:
    """x, y and three small vectors; the parameters by reference."""
    tensors = leaves(arguments(case, dtype, device))
    saved = saved_by(lambda: block(functional, tensors, case.dilation))
    own = {tensor.data_ptr() for tensor in tensors}
    others = [tensor for tensor in saved if tensor.data_ptr() not in own]
    n, c = case.n, case.channels
    assert sorted(t.numel() for t in others) == sorted(
        [n * c * case.height * case.width, n * c, n * c, n * case.hidden]
    )
    assert sum(tensor.data_ptr() == tensors[0].data_ptr() for tensor in saved) == 1
    eager = saved_by(lambda: block(reference, tensors, case.dilation))
    ours = bytes_apart_from(tensors[1:], saved)
    assert ours <= 0.5 * bytes_apart_from(tensors[1:], eager)


def test_nothing_is_saved_without_gradients(device: str) -> None:
    tensors = arguments(CASE, device=device)
    assert not saved_by(lambda: block(functional, tensors, CASE.dilation))
    tensors[0].requires_grad_()
    with torch.no_grad():
        assert not saved_by(lambda: block(functional, tensors, CASE.dilation))
