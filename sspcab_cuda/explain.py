"""What a call of the block runs, in which pieces, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import losses
from ._extension import _C, build_info
from .checks import check_image, check_input
from .explanation import Explanation, Stage
from .functional import uses_tf32
from .modules import SSPCAB, why_not_fused
from .operator_checks import check_image as check_dimensions

_WAYS = {
    "direct": "directly, all taps of a pixel",
    "winograd": "by Winograd's filtering, 9 products where the formula has 16",
    "windows": "as products of the four corners' windows, sub-kernels read where they lie",
}


def explain(block: nn.Module, x: Tensor, training: bool | None = None) -> Explanation:
    """What ``block(x)`` runs on the device of x, in which pieces and why. Computes nothing.

    Args:
        block: an :class:`SSPCAB`.
        x: ``(N, C, H, W)``, as the block is given it.
        training: a training step, forward and backward, with the reconstruction loss and all
            gradients, or inference, whose loss is computed where it is collected; None: as the
            call would find it, by grad mode and by what requires a gradient.

    Returns:
        An :class:`Explanation`, whose text is a page to read. Bytes are those of dense tensors in
        the dtype in which the block computes, inside autocast that of the region.

    Raises:
        TypeError: block is no :class:`SSPCAB`, or x no tensor.
        RuntimeError: x is nothing that the block takes.

    Example:
        >>> print(explain(SSPCAB(64), torch.rand(8, 64, 56, 56)))  # doctest: +SKIP
    """
    if not isinstance(block, SSPCAB):
        raise TypeError(f"sspcab: block must be an SSPCAB; got {type(block).__name__}")
    if not isinstance(x, Tensor):
        raise TypeError(f"sspcab: x must be a tensor; got {type(x).__name__}")
    check_dimensions(x)
    if training is None:
        tensors = (x, *block.parameters())
        training = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    call = _Call(block, x, training)
    reason = why_not_fused(block, x)
    if reason is not None:
        reason += ": the block calls its parts; those that can be read are still fused"
    elif type(block).forward is not SSPCAB.forward:
        reason = f"{type(block).__name__} has another forward, and what that calls isn't known"
    if reason is not None:
        return Explanation(str(call), False, None, (reason,), flops=call.flops())
    check_image("x", x)
    check_input(x, _weight_like(block), "SSPCAB")
    if x.is_meta:
        return Explanation(
            str(call), True, None, ("x has no values: nothing runs",), flops=call.flops()
        )
    if x.numel() == 0:
        return Explanation(str(call), True, None, ("x is empty: nothing runs",))
    return call.on_cuda() if x.is_cuda else call.on_cpu()


@dataclass(frozen=True)
class _Call:
    block: SSPCAB
    x: Tensor
    training: bool

    @property
    def dtype(self) -> torch.dtype:
        device = self.x.device.type
        casts = not self.x.is_meta and torch.is_autocast_enabled(device)
        if casts and self.x.dtype != torch.float64:
            return torch.get_autocast_dtype(device)
        return self.x.dtype

    @property
    def with_loss(self) -> bool:
        return self.training or losses.active() is not None

    @property
    def channels_last(self) -> bool:
        return not self.x.is_contiguous() and self.x.stride(1) == 1  # csrc/layout.h

    @property
    def image(self) -> int:
        """Bytes of x."""
        return self.x.numel() * self.dtype.itemsize

    @property
    def weights(self) -> int:
        """Bytes of the four sub-kernels."""
        weight = _weight_like(self.block)
        return 4 * self.block.kernel_dim**2 * weight.shape[1] ** 2 * weight.element_size()

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        device = str(self.x.device)
        if device == "cpu":
            device = f"cpu ({build_info()['cpu_capability']}, {torch.get_num_threads()} threads)"
        elif self.x.is_cuda and torch.cuda.is_available():
            device = f"{device} ({torch.cuda.get_device_name(self.x.device)})"
        kind = "training step" if self.training else "inference"
        channels = getattr(self.block.conv1, "in_channels", self.x.shape[1])
        return (
            f"SSPCAB({channels}, kernel_dim={self.block.kernel_dim}, "
            f"dilation={self.block.dilation}) on {tuple(self.x.shape)} {_name(self.dtype)}, "
            f"{layout}, {device}: {kind}{' with the loss' if self.with_loss else ''}"
        )

    def flops(self) -> int:
        samples, channels, height, width = self.x.shape
        block = self.block
        if block.variant == "tensorflow":  # mirrored borders have taps everywhere
            taps = 4 * block.kernel_dim**2 * height * width
        else:
            steps = range(block.dilation + 1, block.dilation + 1 + block.kernel_dim)
            sides = [2 * sum(max(0, n - step) for step in steps) for n in (height, width)]
            taps = math.prod(sides)
        return 2 * samples * channels * channels * taps * (3 if self.training else 1)

    def on_cpu(self) -> Explanation:
        plan: Mapping[str, Any] = _C.cpu_plan(
            tuple(self.x.shape),
            _name(self.dtype),
            self.block.kernel_dim,
            self.block.dilation,
            self.channels_last,
            threads=torch.get_num_threads(),
        )
        way, costs = plan["way"], plan["costs"]
        reasons = [f"fused, {_WAYS[way]}"]
        if costs[way] > 0:
            ordered = sorted(costs.items(), key=lambda item: item[1])
            words = (f"{name} {cost / costs[way]:.2f}" for name, cost in ordered)
            reasons.append("relative costs by the model: " + ", ".join(words))
        if plan["threads"] < torch.get_num_threads():
            reasons.append(f"threads: {plan['threads']}, for more the work is too little")
        packs = not plan["reads_in_place"]
        if packs:
            once = "at once" if plan["packs_all"] else "band by band"
            reasons.append(f"x is packed {once} in blocks of 16 channels: {self._why_packed()}")
        work = ""
        if way != "windows":
            work = f"bands of a sample: {plan['bands']}, parts of a band: {plan['parts']}"
        wide = max(4, self.dtype.itemsize)
        blocked = self.x.numel() // self.x.shape[1] * math.ceil(self.x.shape[1] / 16) * 16 * wide
        panels, gathered = plan["panel_bytes"], plan["gathered_bytes"]
        source = blocked if packs else self.image
        read = gathered + self.weights if way == "windows" else source + panels
        stages = [
            *self._copied(),
            *([Stage("pack x", "", self.image, blocked)] if packs else []),
            *([Stage("pack sub-kernels", "", self.weights, panels)] if panels else []),
            *([Stage("gather the windows", "", source, gathered)] if gathered else []),
            *self._forward(work, read),
        ]
        if self.training:
            of_x = gathered + self.weights if way == "windows" else blocked + panels
            stages += [
                *([Stage("pack x", "", self.image, blocked)] if packs else []),
                *([Stage("pack sub-kernels", "", self.weights, panels)] if panels else []),
                *self._backward(blocked, of_x, blocked + source),
            ]
        return self._explanation(way, reasons, plan["groups"], plan["groups"], stages)

    def on_cuda(self) -> Explanation:
        with torch.cuda.device(self.x.device):
            device: Mapping[str, Any] = _C.cuda_device()
        plan: Mapping[str, Any] = _C.cuda_plan(
            tuple(self.x.shape),
            _name(self.dtype),
            self.block.kernel_dim,
            self.block.dilation,
            self.channels_last,
            self.dtype == torch.float32 and uses_tf32(self.x),
            parameter_dtype=_name(_weight_like(self.block).dtype),
            **device,
        )
        forward, backward = plan["forward_launches"], plan["backward_launches"]
        launches = f"launches: {len(forward)}"
        if self.training:
            launches += f" forward, {len(backward)} backward"
        work, of_x, of_weights = "one thread for each result", "", ""
        if plan["tiled"]:
            path = plan["forward"]["path"]
            reasons = [f"fused, by the kernels of {path}"]
            if plan["obstacle"] and device["capability"] >= 90:
                reasons.append(f"not by those of sm90: {plan['obstacle']}")
            reasons.append(launches)
            work = _tiles(plan["forward"])
            of_x, of_weights = _tiles(plan["input_gradient"]), _tiles(plan["weight_gradient"])
        else:
            path = "plain"
            reasons = [f"fused, by the plain kernels: {plan['obstacle']}", launches]
        image = self.image * plan["packs_x"]
        packed = image + self.weights * plan["packs_weights"]
        stages = [
            *self._copied(),
            *([Stage("pack", "", packed, packed)] if packed else []),
            *self._forward(work, self.image + self.weights),
        ]
        if "channel_sums" in forward:
            stages.insert(-2, Stage("means", "", self.image, 0))
        if self.training:
            packed = image + self.weights * plan["tiled"]
            stages += [
                *([Stage("pack", "", packed, packed)] if packed else []),
                *self._backward(
                    self.image, self.image + self.weights, 2 * self.image, of_x, of_weights
                ),
            ]
        return self._explanation(
            path, reasons, plan["forward_groups"], plan["backward_groups"], stages
        )

    def _explanation(
        self,
        path: str,
        reasons: list[str],
        groups: list[int],
        backward_groups: list[int],
        stages: list[Stage],
    ) -> Explanation:
        # x and out; of a training step y, the gradients of out and x too, and those of the weights.
        least, saved = 2 * self.image + self.weights, 0
        if self.training:
            least = 5 * self.image + 2 * self.weights
            channels, hidden = self.x.shape[1], self.block.se.fc1.out_features
            vectors = self.x.shape[0] * (2 * channels + hidden)
            computed = sum(
                "weight" not in layer._parameters
                for layer in (getattr(self.block, f"conv{i}") for i in (1, 2, 3, 4))
            )
            saved = 2 * self.image + vectors * max(4, self.dtype.itemsize)
            saved += computed * self.weights // 4
        return Explanation(
            str(self),
            True,
            path,
            tuple(reasons),
            tuple(groups),
            tuple(backward_groups) if self.training else (),
            tuple(stages),
            self.flops(),
            least,
            saved,
        )

    def _copied(self) -> list[Stage]:
        """Where x isn't dense, or is of another dtype than the one that autocast wants."""
        own = self.x.numel() * self.x.element_size()
        order = (0, 2, 3, 1) if self.channels_last else (0, 1, 2, 3)
        if self.dtype == self.x.dtype and self.x.permute(order).is_contiguous():
            return []
        return [Stage("copy x", "", own, self.image)]

    def _forward(self, work: str, read: int) -> list[Stage]:
        image = self.image
        loss = image if self.with_loss else 0
        return [
            Stage("convolution, ReLU, sums", work, read, image),
            Stage("gate", "of vectors", 0, 0),
            Stage("scale" + (", loss" if loss else ""), "", image + loss, image),
        ]

    def _backward(
        self, grad_a: int, of_x: int, of_weights: int, work_x: str = "", work_weights: str = ""
    ) -> list[Stage]:
        """`grad_a` is written; `of_x` and `of_weights` are read for these gradients."""
        image = self.image
        return [
            Stage("gradient of the gate", "", 3 * image, 0),
            Stage("gradient of the excitation", "of vectors", 0, 0),
            Stage("gradient of the pre-activation", "", 3 * image, grad_a),
            Stage("gradient of x", work_x, of_x + 2 * image, image),
            Stage("gradients of the sub-kernels", work_weights, of_weights, self.weights),
        ]

    def _why_packed(self) -> str:
        if not self.channels_last:
            return "it isn't in channels_last"
        if self.dtype.itemsize < 4:
            return f"its elements are {_name(self.dtype)}, the arithmetic float32"
        return "its pixels lie a multiple of 4096 bytes apart"


def _weight_like(block: SSPCAB) -> Tensor:
    """Without elements: the weight itself may be computed by a parametrisation, which may keep a
    state of its own."""
    own = (*block.conv1.parameters(), *block.conv1.__dict__.values())
    like = next(value for value in own if isinstance(value, Tensor))
    return like.new_empty(0, block.conv1.in_channels, 1, 1)


def _tiles(launch: Mapping[str, Any]) -> str:
    rows, columns = launch["tile"]
    return f"tiles of {rows} × {columns}: {launch['units']}, splits of the sum: {launch['splits']}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
