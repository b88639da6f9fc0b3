"""Inference on a CPU keeps packed sub-kernels; whatever happens to the parameters is noticed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from sspcab_cuda import SSPCAB
from sspcab_cuda._extension import _C

from .tolerances import assert_equal

SHAPE = (1, 128, 32, 32)  # by Winograd, whose panels take over a tenth of the time
LIMIT = 64 << 20
PANEL_BYTES = 9 * 128 * 128 * 4


def make_block(seed: int = 0) -> SSPCAB:
    torch.manual_seed(seed)
    return SSPCAB(SHAPE[1]).requires_grad_(False)


def image(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def without_cache(block: SSPCAB, x: Tensor) -> Tensor:
    """Training never keeps panels."""
    copied = copy.deepcopy(block).requires_grad_()
    result: Tensor = copied(x)
    return result.detach()


CHANGES: dict[str, Callable[[SSPCAB], object]] = {
    "in place": lambda block: block.conv1.weight.mul_(1.5),
    "data": lambda block: block.conv2.weight.data.add_(0.01),
    "numpy": lambda block: block.conv3.weight.numpy().fill(0.25),
    "one element": lambda block: block.conv4.weight.data.view(-1)[-1:].add_(0.5),
    "swap": lambda block: setattr(block.conv1, "weight", block.conv4.weight),
    "exchange": lambda block: block.conv1.weight.data.copy_(block.conv4.weight),
    "load_state_dict": lambda block: block.load_state_dict(make_block(7).state_dict()),
    "cast": lambda block: block.bfloat16().float(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed(change: str) -> None:
    block, x = make_block(), image()
    before = block(x)
    assert_equal(block(x), before)
    CHANGES[change](block)
    after = block(x)
    assert not torch.equal(after, before)
    assert_equal(after, without_cache(block, x))
    assert_equal(block(x), after)


def test_signs_are_noticed() -> None:
    """Each is the highest bit of a word of 64, whose carry is lost."""
    block, x = make_block().double(), image().double()
    before = block(x)
    block.conv1.weight.neg_()
    after = block(x)
    assert not torch.equal(after, before)
    assert_equal(after, without_cache(block, x))


def test_an_optimizer_is_noticed() -> None:
    block, x = make_block().requires_grad_(), image()
    optimizer = torch.optim.Adam(block.parameters(), lr=0.01)
    for _ in range(2):
        with torch.no_grad():
            before = block(x)
        block(x, return_loss=True)[1].backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            after = block(x)
        assert not torch.equal(after, before)
        assert_equal(after, without_cache(block, x))


def test_they_are_kept_for_inference_alone() -> None:
    for seed in range(LIMIT // PANEL_BYTES):  # full of others
        make_block(100 + seed)(image())
    block, x = make_block(1), image()
    kept = _C.kept_panel_bytes()
    assert LIMIT - PANEL_BYTES < kept <= LIMIT
    without_cache(block, x)
    assert _C.kept_panel_bytes() == kept
    small = SSPCAB(256).requires_grad_(False)  # its sub-kernels are read where they lie
    small(torch.randn(1, 256, 8, 8))
    assert _C.kept_panel_bytes() == kept
    block(x)
    assert _C.kept_panel_bytes() <= LIMIT


def test_what_has_been_let_go_of_is_packed_anew() -> None:
    blocks = [make_block(seed) for seed in range(LIMIT // PANEL_BYTES + 2)]
    x = image()
    first = [block(x) for block in blocks]
    for block, expected in zip(blocks, first, strict=True):
        assert_equal(block(x), expected)


def test_blocks_in_several_threads() -> None:
    blocks, x = [make_block(seed) for seed in range(4)], image()
    expected = [without_cache(block, x) for block in blocks]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            results = pool.map(lambda block: block(x), blocks * 4)
            for result, alone in zip(results, expected * 4, strict=True):
                assert_equal(result, alone)


def test_copies_and_pickles() -> None:
    block, x = make_block(), image()
    expected = block(x)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert_equal(other(x), expected)
        other.conv1.weight.mul_(2)
        assert not torch.equal(other(x), expected)
        assert_equal(block(x), expected)


def test_other_sizes_and_dtypes() -> None:
    """The same values as other sub-kernels, or for another way of computing."""
    torch.manual_seed(0)
    small = SSPCAB(32, kernel_dim=2).requires_grad_(False)
    large = SSPCAB(64).requires_grad_(False)
    for i in range(1, 5):
        values = getattr(small, f"conv{i}").weight
        getattr(large, f"conv{i}").weight.copy_(values.reshape(64, 64, 1, 1))
    for block in (small, large, large.double(), large.float()):
        for size in (64, 40):
            x = torch.randn(1, block.conv1.in_channels, size, size, dtype=block.conv1.weight.dtype)
            assert_equal(block(x), without_cache(block, x))
