"""What a call of the block runs, in which pieces, and why."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._extension import _C, build_info
from .checks import check_image, check_input
from .functional import uses_tf32
from .modules import SSPCAB
from .operator_checks import check_image as check_dimensions

_WAYS = {
    "direct": "directly, all taps of a pixel",
    "winograd": "by Winograd's filtering, 9 products where the formula has 16",
    "windows": "as products of the four corners' windows, sub-kernels read where they lie",
}


@dataclass(frozen=True)
class Stage:
    """Some work of a call, and the bytes of images and sub-kernels that it reads and writes."""

    name: str
    work: str
    read: int
    written: int


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` returns; as a text, a page to read.

    Attributes:
        call: block, input and device.
        fused: whether the fused kernels run.
        path: of the masked convolution, ``"direct"``, ``"winograd"`` or ``"windows"`` on a CPU,
            ``"sm90"``, ``"sm80"`` or ``"plain"`` on CUDA; None where nothing is fused.
        reasons: why it is this path, or why the block calls its parts.
        groups: samples that go through all stages before the next ones do.
        stages: in order, those of the backward pass last.
        flops: of the masked convolution's formula, two for each product, taps outside of the image
            left out; forward and, in training, backward.
        least_bytes: of a call that read and wrote each of its inputs and results once.
        saved_bytes: that a training call keeps for its backward pass, besides the parameters.
    """

    call: str
    fused: bool
    path: str | None
    reasons: tuple[str, ...]
    groups: tuple[int, ...]
    stages: tuple[Stage, ...]
    flops: int
    least_bytes: int
    saved_bytes: int

    @property
    def bytes(self) -> int:
        """That the stages read and write, from a cache or from memory."""
        return sum(stage.read + stage.written for stage in self.stages)

    def __str__(self) -> str:
        lines = [self.call, *(f"  {reason}" for reason in self.reasons)]
        if self.groups:
            lines.append(f"  groups of samples: {_counted(self.groups)}")
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


def explain(block: nn.Module, x: Tensor, training: bool | None = None) -> Explanation:
    """What ``block(x)`` runs on the device of x, in which pieces and why. Computes nothing.

    Args:
        block: an :class:`SSPCAB`.
        x: ``(N, C, H, W)``, as the block is given it.
        training: a training step with the reconstruction loss and all gradients, or inference
            without the loss; None: as ``block.training`` says.

    Raises:
        TypeError: block is no :class:`SSPCAB`.
        RuntimeError: x is nothing that the block takes.

    Example:
        >>> print(explain(SSPCAB(64), torch.rand(8, 64, 56, 56)))  # doctest: +SKIP
    """
    if not isinstance(block, SSPCAB):
        raise TypeError(f"sspcab: block must be an SSPCAB; got {type(block).__name__}")
    training = block.training if training is None else training
    check_image("x", x)
    check_dimensions(x)
    call = _call(block, x, training)
    reason = block.reason_to_call(x)
    flops = _flops(block, x) * (3 if training else 1)
    if reason is not None:
        words = f"{reason}: the block calls its parts, as the published layer does"
        return Explanation(call, False, None, (words,), (), (), flops, 0, 0)
    check_input(x, _weight_like(block), "SSPCAB")
    if x.is_cuda:
        return _on_cuda(block, x, training, call, flops)
    return _on_cpu(block, x, training, call, flops)


def _call(block: SSPCAB, x: Tensor, training: bool) -> str:
    layout = "channels_last" if _is_channels_last(x) else "contiguous"
    dtype = str(x.dtype).removeprefix("torch.")
    device = str(x.device)
    if x.device.type == "cpu":
        device = f"cpu ({build_info()['cpu_capability']}, {torch.get_num_threads()} threads)"
    elif x.is_cuda:
        device = f"{device} ({torch.cuda.get_device_name(x.device)})"
    kind = "training step with the loss" if training else "inference"
    return (
        f"SSPCAB({x.shape[1]}, kernel_dim={block.kernel_dim}, dilation={block.dilation}) on "
        f"{tuple(x.shape)} {dtype}, {layout}, {device}: {kind}"
    )


def _on_cpu(block: SSPCAB, x: Tensor, training: bool, call: str, flops: int) -> Explanation:
    plan: Mapping[str, Any] = _C.cpu_plan(
        tuple(x.shape),
        str(x.dtype).removeprefix("torch."),
        block.kernel_dim,
        block.dilation,
        _is_channels_last(x),
        threads=torch.get_num_threads(),
    )
    way = plan["way"]
    reasons = [f"fused, {_WAYS[way]}"]
    least = min(plan["costs"].values())
    if least > 0:
        others = [
            f"{name} {cost / least:.2f}"
            for name, cost in sorted(plan["costs"].items(), key=lambda item: item[1])
        ]
        reasons.append("relative costs by the model: " + ", ".join(others))
    threads = plan["threads"]
    if threads < torch.get_num_threads():
        reasons.append(f"{threads} of the threads: more would wait longer than they work")
    if plan["reads_in_place"]:
        reasons.append("x is read where it lies")
    elif x.numel() > 0:
        once = "at once" if plan["packs_all"] else "band by band"
        reasons.append(f"x is packed {once} into blocks of 16 channels: {_why_packed(x)}")
    work = ""
    if plan["groups"]:
        bands, parts = plan["bands"], plan["parts"]
        work = f"bands of rows in a sample: {bands}, parts of the channels: {parts}"
    stages = _forward_stages(block, x, training, work, packs=not plan["reads_in_place"])
    if training:
        stages += _backward_stages(block, x, packs=not plan["reads_in_place"])
    return _explanation(block, x, training, call, way, reasons, plan["groups"], stages, flops)


def _on_cuda(block: SSPCAB, x: Tensor, training: bool, call: str, flops: int) -> Explanation:
    with torch.cuda.device(x.device):
        device: Mapping[str, Any] = _C.cuda_device()
    plan: Mapping[str, Any] = _C.cuda_plan(
        tuple(x.shape),
        str(x.dtype).removeprefix("torch."),
        block.kernel_dim,
        block.dilation,
        _is_channels_last(x),
        uses_tf32(x),
        parameter_dtype=str(_weight_like(block).dtype).removeprefix("torch."),
        **device,
    )
    if not plan["tiled"]:
        path, work = "plain", "one thread for each result"
        reasons = [f"fused, by the plain kernels: {_why_plain(x, device['capability'])}"]
    else:
        launch = plan["forward"]
        path = launch["path"]
        work = _tiles(launch)
        reasons = [f"fused, by the kernels of {path}"]
    launches = len(plan["forward_launches"])
    if training:
        launches += len(plan["backward_launches"])
    reasons.append(f"launches: {launches}")
    packs = "pack" in plan["forward_launches"] and not _is_channels_last(x)
    groups = plan["backward_groups" if training else "forward_groups"]
    stages = _forward_stages(block, x, training, work, packs)
    if training:
        gradients = ("", "")
        if plan["tiled"]:
            gradients = (_tiles(plan["input_gradient"]), _tiles(plan["weight_gradient"]))
        stages += _backward_stages(block, x, packs, *gradients)
    return _explanation(block, x, training, call, path, reasons, groups, stages, flops)


def _explanation(
    block: SSPCAB,
    x: Tensor,
    training: bool,
    call: str,
    path: str,
    reasons: list[str],
    groups: list[int],
    stages: list[Stage],
    flops: int,
) -> Explanation:
    image, weights = _bytes(x), _weight_bytes(block)
    # x and out; of a training step y, the gradients of out and x too, and those of the weights.
    least = (5 * image + 2 * weights) if training else 2 * image + weights
    wide = max(4, x.element_size())
    hidden = block.se.fc1.out_features
    saved = 2 * image + x.shape[0] * (2 * x.shape[1] + hidden) * wide if training else 0
    return Explanation(
        call, True, path, tuple(reasons), tuple(groups), tuple(stages), flops, least, saved
    )


def _forward_stages(
    block: SSPCAB, x: Tensor, training: bool, work: str, packs: bool
) -> list[Stage]:
    image = _bytes(x)
    stages = [Stage("pack x", "", image, _packed_bytes(x))] if packs else []
    source = _packed_bytes(x) if packs else image
    loss = image if training else 0
    return [
        *stages,
        Stage("convolution, ReLU, means", work, source + _weight_bytes(block), image),
        Stage("gate", "of vectors", 0, 0),
        Stage("scale" + (", loss" if training else ""), "", image + loss, image),
    ]


def _backward_stages(
    block: SSPCAB, x: Tensor, packs: bool, of_x: str = "", of_weights: str = ""
) -> list[Stage]:
    image, weights, packed = _bytes(x), _weight_bytes(block), _packed_bytes(x)
    grad_a = packed if x.device.type == "cpu" else image
    source = packed if packs else image
    return [
        *([Stage("pack x", "", image, packed)] if packs else []),
        Stage("gradient of the gate", "", 3 * image, 0),
        Stage("gradient of the excitation", "of vectors", 0, 0),
        Stage("gradient of the pre-activation", "", 3 * image, grad_a),
        Stage("gradient of x", of_x, grad_a + 2 * image + weights, image),
        Stage("gradients of the sub-kernels", of_weights, grad_a + source, weights),
    ]


def _flops(block: SSPCAB, x: Tensor) -> int:
    """Of one of the three convolutions."""
    samples, channels, height, width = x.shape
    sides = []
    for size in (height, width):
        steps = range(block.dilation + 1, block.dilation + 1 + block.kernel_dim)
        sides.append(2 * sum(max(0, size - step) for step in steps))
    return 2 * samples * channels * channels * math.prod(sides)


def _tiles(launch: Mapping[str, Any]) -> str:
    rows, columns = launch["tile"]
    return f"tiles of {rows} × {columns}: {launch['units']}, splits of the sum: {launch['splits']}"


def _why_packed(x: Tensor) -> str:
    if not _is_channels_last(x):
        return "it isn't in channels_last"
    if x.element_size() < 4:
        return f"its elements are {str(x.dtype).removeprefix('torch.')}, the arithmetic float32"
    return "its pixels lie a multiple of 4096 bytes apart"


def _why_plain(x: Tensor, capability: int) -> str:
    if capability < 80:
        return (
            f"the code that is loaded is for compute capability {capability / 10}, and the others "
            "need 8.0's asynchronous copies"
        )
    multiple = 16 // x.element_size()
    if x.shape[1] % multiple:
        return f"{x.shape[1]} channels are no multiple of {multiple}"
    return "the image or the dilation is too large for 32-bit coordinates"


def _is_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.stride(1) == 1  # csrc/layout.h


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _weight_bytes(block: SSPCAB) -> int:
    weight = _weight_like(block)
    return 4 * block.kernel_dim**2 * weight.shape[1] ** 2 * weight.element_size()


def _weight_like(block: SSPCAB) -> Tensor:
    """Without elements: the weight itself may be computed by a parametrisation, which may keep a
    state of its own."""
    return next(block.conv1.parameters()).new_empty(0, block.conv1.in_channels, 1, 1)


def _packed_bytes(x: Tensor) -> int:
    if x.device.type != "cpu":
        return _bytes(x)
    channels = math.ceil(x.shape[1] / 16) * 16
    return x.numel() // max(1, x.shape[1]) * channels * max(4, x.element_size())


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def _counted(groups: tuple[int, ...]) -> str:
    return ", ".join(f"{len([*same])} of {size}" for size, same in itertools.groupby(groups))
