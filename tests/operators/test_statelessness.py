"""A call's result follows from its arguments alone: no call leaves anything for the next one."""

from __future__ import annotations

import copy
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from sspcab_cuda import SSPCAB

from ..helpers.tolerances import assert_equal

SHAPES = [(1, 128, 32, 32), (1, 24, 16, 16), (1, 256, 8, 8)]  # by Winograd, directly, by windows


def make_block(channels: int, seed: int = 0) -> SSPCAB:
    torch.manual_seed(seed)
    return SSPCAB(channels).requires_grad_(False)


def image(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def afresh(block: SSPCAB, x: Tensor) -> Tensor:
    """Of other memory with the same values."""
    result: Tensor = copy.deepcopy(block)(x.clone())
    return result


CHANGES: dict[str, Callable[[SSPCAB], object]] = {
    "in place": lambda block: block.conv1.weight.mul_(1.5),
    "signs": lambda block: block.conv1.weight.index_copy_(
        1, torch.tensor([1, 16, 17]), -block.conv1.weight[:, [1, 16, 17]]
    ),
    "data": lambda block: block.conv2.weight.data.add_(0.01),
    "numpy": lambda block: block.conv3.weight.numpy().fill(0.25),
    "one element": lambda block: block.conv4.weight.data.view(-1)[-1:].add_(0.5),
    "exchange": lambda block: block.conv1.weight.data.copy_(block.conv4.weight),
    "load_state_dict": lambda block: block.load_state_dict(
        make_block(block.conv1.in_channels, 7).state_dict()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_changed_parameters_are_noticed(shape: tuple[int, ...], change: str) -> None:
    block, x = make_block(shape[1]), image(shape)
    with torch.inference_mode():
        before = block(x)
        assert_equal(block(x), before)
    CHANGES[change](block)
    with torch.inference_mode():
        after = block(x)
        assert not torch.equal(after, before)
        assert_equal(after, afresh(block, x))


def test_parameters_written_while_others_infer() -> None:
    """Results in between may be of either; afterwards they are of the new ones alone."""
    block, x = make_block(128), image(SHAPES[0])
    other = make_block(128, 1).state_dict()
    stop = threading.Event()

    def infer() -> None:
        while not stop.is_set():
            block(x)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(infer) for _ in range(2)]
        for _ in range(20):
            block.load_state_dict(other)
            other = {name: -value for name, value in other.items()}
        stop.set()
        for future in running:
            future.result()
    assert_equal(block(x), afresh(block, x))


def test_blocks_in_several_threads() -> None:
    blocks, x = [make_block(128, seed) for seed in range(4)], image(SHAPES[0])
    expected = [afresh(block, x) for block in blocks]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            results = pool.map(lambda block: block(x), blocks * 4)
            for result, alone in zip(results, expected * 4, strict=True):
                assert_equal(result, alone)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_others_infer(one_thread: None) -> None:
    """No lock is held that its owner, who isn't there in the child, would have to let go of."""
    block, x = make_block(128), image(SHAPES[0])
    stop = threading.Event()

    def infer() -> None:
        while not stop.is_set():
            block(x)

    thread = threading.Thread(target=infer)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(10)  # a hang is a failure
                block(x)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
