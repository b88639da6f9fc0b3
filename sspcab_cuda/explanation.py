"""What :func:`sspcab_cuda.explain` returns."""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Some work of a call, and the bytes of images and sub-kernels that it reads and writes."""

    name: str
    work: str
    read: int
    written: int


@dataclass(frozen=True)
class Explanation:
    """What a call of the block runs; as a text, a page to read.

    Attributes:
        call: block, input and device.
        fused: whether the whole block is one operator. Where it isn't, the block calls its parts,
            and those that can be read are operators of their own.
        path: how the masked convolution is computed: ``"direct"``, ``"winograd"`` or ``"windows"``
            on a CPU, ``"sm90"``, ``"sm80"`` or ``"plain"`` on CUDA; None where the block calls its
            parts or has nothing to do.
        reasons: why it is this path, or why the block calls its parts.
        groups: how many samples go through all stages before the next ones do.
        backward_groups: the same in the backward pass; empty in inference.
        stages: in order, those of the backward pass last; empty where the block calls its parts.
        flops: of the masked convolution's formula, two for each product, taps outside of the image
            left out; forward and, in training, backward.
        least_bytes: of a call that read and wrote each of its inputs and results once; 0 where the
            block calls its parts.
        saved_bytes: that a training call keeps for its backward pass, besides the parameters and
            what a parametrisation keeps by itself; 0 where the block calls its parts.
    """

    call: str
    fused: bool
    path: str | None
    reasons: tuple[str, ...]
    groups: tuple[int, ...] = ()
    backward_groups: tuple[int, ...] = ()
    stages: tuple[Stage, ...] = ()
    flops: int = 0
    least_bytes: int = 0
    saved_bytes: int = 0

    @property
    def bytes(self) -> int:
        """That the stages read and write, from a cache or from memory."""
        return sum(stage.read + stage.written for stage in self.stages)

    def __str__(self) -> str:
        lines = [self.call, *(f"  {reason}" for reason in self.reasons)]
        if self.groups:
            lines.append(f"  groups of samples: {_counted(self.groups)}")
        if self.backward_groups not in ((), self.groups):
            lines.append(f"  in the backward pass: {_counted(self.backward_groups)}")
        if self.stages:
            width = max(len(stage.name) for stage in self.stages)
            lines.append(f"  {'stage':{width}}  {'reads':>9}  {'writes':>9}")
            lines += [
                f"  {stage.name:{width}}  {_size(stage.read):>9}  {_size(stage.written):>9}"
                f"  {stage.work}".rstrip()
                for stage in self.stages
            ]
            lines.append(
                f"  in all {_size(self.bytes)}; {_size(self.least_bytes)} if each input and result "
                "were touched once"
            )
        lines.append(f"  convolution: {self.flops / 1e9:.3g} GFLOP")
        if self.saved_bytes:
            lines.append(f"  kept for the backward pass: {_size(self.saved_bytes)}")
        return "\n".join(lines)


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B" if count else "-"


def _counted(groups: tuple[int, ...]) -> str:
    return ", ".join(f"{len([*same])} of {size}" for size, same in itertools.groupby(groups))
