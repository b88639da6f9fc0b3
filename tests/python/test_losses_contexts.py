"""Contexts that take turns, and the sequence that a context yields."""

from __future__ import annotations

import asyncio
import copy
import gc
import operator
import pickle
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch
from torch import Tensor

from sspcab_cuda import SSPCAB, collect_reconstruction_losses, losses

BLOCK = SSPCAB(16)


def run(times: int = 1) -> None:
    for _ in range(times):
        BLOCK(torch.randn(1, 16, 4, 5))


def test_tasks() -> None:
    async def task(before: int, after: int) -> int:
        with collect_reconstruction_losses() as collected:
            run(before)
            await asyncio.sleep(0)
            run(after)
            await asyncio.sleep(0)
        run()
        return len(collected)

    async def both() -> list[int]:
        with collect_reconstruction_losses() as outer:
            counts = await asyncio.gather(task(1, 1), task(1, 2), task(3, 0))
        return [*counts, len(outer)]

    assert asyncio.run(both()) == [2, 3, 3, 3]


def test_a_task_that_outlives_its_creator_s_context() -> None:
    async def later(event: asyncio.Event) -> None:
        await event.wait()
        run()

    async def creator() -> tuple[int, bool]:
        event = asyncio.Event()
        with collect_reconstruction_losses() as collected:
            run()
            task = asyncio.create_task(later(event))
        count, reference = len(collected), weakref.ref(collected[0])
        del collected
        gc.collect()
        kept = reference() is not None
        event.set()
        await task
        return count, kept

    assert asyncio.run(creator()) == (1, False)


def test_left_in_any_order() -> None:
    def batches() -> Generator[int]:
        with collect_reconstruction_losses() as collected:
            while True:
                run()
                yield len(collected)

    first = batches()
    next(first)
    with collect_reconstruction_losses() as ours:
        first.close()
        run()  # the generator's end didn't end ours
        second = batches()
        next(second)
    second.close()
    assert losses.active() is None  # and ours didn't come back
    run()
    assert len(ours) == 1


def test_of_compiled_blocks_left_in_any_order() -> None:
    torch.compiler.reset()
    compiled = torch.compile(BLOCK, fullgraph=True, backend="aot_eager")
    x = torch.randn(1, 16, 4, 5)
    first, second = collect_reconstruction_losses(), collect_reconstruction_losses()
    ours, theirs = first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    compiled(x)
    second.__exit__(None, None, None)
    compiled(x)
    assert (len(ours), len(theirs)) == (0, 1)


def test_a_graph_that_breaks_inside_a_context() -> None:
    torch.compiler.reset()

    @torch.compile(backend="aot_eager")
    def step(x: Tensor) -> int:
        with collect_reconstruction_losses() as collected:
            y = BLOCK(x)
            torch._dynamo.graph_break()
            BLOCK(y)
        return len(collected)

    with torch.no_grad():
        assert step(torch.randn(1, 16, 4, 5)) == 2
    assert losses.active() is None


def cleared(values: list[Any]) -> list[Any]:
    values.clear()
    return values


def sliced_away(values: list[Any]) -> list[Any]:
    del values[:]
    return values


def changed(values: list[Any]) -> list[Any]:
    values.append(values.pop(0))
    values.insert(1, values[-1])
    values.reverse()
    values += values[:1]
    values[0:1] = values[1:]
    values.remove(values[2])
    values.extend(values)
    values *= 2
    del values[3]
    return values


WHAT_LISTS_DO: dict[str, Callable[[Any], Any]] = {
    "clear": cleared,
    "del": sliced_away,
    "change": changed,
    "copy": lambda v: v.copy(),
    "copy.copy": copy.copy,
    "+": lambda v: v + [1],  # noqa: RUF005
    "+ itself": lambda v: v + v,
    "right +": lambda v: [1] + v,  # noqa: RUF005
    "extend another": lambda v: operator.iadd([1], v),
    "*": lambda v: 2 * v,
    "==": lambda v: [v == list(v), v == [], operator.eq([], v), v != [], v == v],
    "reversed": lambda v: list(reversed(v)),
    "iterate": lambda v: [*v, *iter(v)],
    "pop": lambda v: [v.pop(), v.pop(0), len(v)],
    "index": lambda v: [v.index(v[1]), v.count(v[0]), v[0] in v],
    "slice": lambda v: [*v[1:], v[-1]],
    "sort": lambda v: sorted(v),
    "sort in place": lambda v: v.sort() or v,
    "compare": lambda v: [v < [], v >= []],
    "truth": bool,
    "append": lambda v: v.append(1) or v,
    "pickle": lambda v: [x.item() for x in pickle.loads(pickle.dumps(v))],
}


@pytest.mark.parametrize("name", WHAT_LISTS_DO)
def test_all_that_a_list_does(name: str) -> None:
    """Before anything else has asked for the losses of a compiled block."""
    values = [torch.tensor(float(i)) for i in range(3)]
    pending = losses.ReconstructionLosses()
    for value in values:
        pending.chain.add(value)
    result, expected = WHAT_LISTS_DO[name](pending), WHAT_LISTS_DO[name](list(values))
    assert result == expected
    if name in ("copy", "copy.copy", "+", "slice"):
        assert type(result) is list


def test_two_with_pending_losses() -> None:
    value = torch.tensor(1.0)
    first, second = losses.ReconstructionLosses(), losses.ReconstructionLosses()
    first.chain.add(value)
    second.chain.add(value)
    assert first == second
    second.chain.add(value)
    assert first + second == [value] * 3


def test_no_method_of_lists_is_forgotten() -> None:
    without_values = {"__new__", "__getattribute__", "__hash__", "__class_getitem__", "__sizeof__"}
    assert {*vars(list)} - without_values <= {*vars(losses.ReconstructionLosses)}
