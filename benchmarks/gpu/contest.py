"""The rivals of a problem on a GPU: those of the benchmark, compiled, and as CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

import sspcab_cuda
from sspcab_cuda import reference

from ..rivals import (
    MEMORY_FORMATS,
    ConvolutionOnly,
    CornerConvolution,
    Expert,
    Mode,
    Problem,
    Rival,
    Truth,
    grad_mode,
    truth_of,
)
from .precisions import Precision

# Replays of them, beside calls.
REPLAYED = ("ours", "expert")


class Replay(Rival):
    """A rival's run in one mode as a CUDA graph; results stay in the graph's memory.

    Of a rival that has not run yet: autograd remembers the stream of the first run.
    """

    def __init__(self, rival: Rival, mode: Mode) -> None:
        self.__dict__.update(rival.__dict__)
        self.name = f"{rival.name} graph"
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), grad_mode(mode):
            for _ in range(2):
                rival.run(mode)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with grad_mode(mode), torch.cuda.graph(self._graph, stream=stream):
            self._results = rival.run(mode)

    def run(self, mode: Mode) -> tuple[Tensor, ...]:
        self._graph.replay()
        return self._results


def rivals_of(
    problem: Problem, precision: Precision, compiled: str
) -> Iterator[tuple[Rival, Truth]]:
    """Each rival with its float64 truth.

    compiled: the name of one that torch.compile gets too, which takes its time; the others but ours
    are left out then.
    """
    wide = problem.to(torch.float64)
    block = wide.block(reference.SSPCAB)
    truth = truth_of(Rival("truth", wide, block))
    make = partial(Rival, autocast=precision.autocast)
    kinds: dict[str, type[reference.SSPCAB]] = {"reference": reference.SSPCAB}
    if problem.case.kernel_dim == 1:
        kinds["expert"] = Expert
    for name, kind in kinds.items():
        if compiled in ("", name):
            yield make(name, problem, problem.block(kind)), truth
        if compiled == name:
            module = problem.block(kind)
            call = partial(torch.compile(module, dynamic=False), return_loss=True)
            yield make(f"{name} compiled", problem, module, call=call), truth
    if "expert" in kinds and not compiled:
        memory_format = MEMORY_FORMATS[problem.layout]
        floor = ConvolutionOnly(problem.block(reference.SSPCAB)).to(memory_format=memory_format)
        true = CornerConvolution(block).to(memory_format=memory_format)
        outputs = ("out",)
        corners = Rival("truth", wide, true, outputs, lambda x: (true(x),))
        floor_call = partial(_alone, floor)
        yield make("conv only", problem, floor, outputs, floor_call), truth_of(corners)
    yield make("ours", problem, problem.block(sspcab_cuda.SSPCAB)), truth


def _alone(convolution: ConvolutionOnly, x: Tensor) -> tuple[Tensor, ...]:
    return (convolution(x),)
