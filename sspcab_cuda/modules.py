"""The block and its parts as modules, with the parameters of the authors' PyTorch code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import functional, losses, reference
from .checks import check_flag, check_input, check_variant, integer_at_least
from .reference import Variant
from .submodules import is_plain, parts, read, read_plain, reason_to_call, warn_once

_CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4")
_LAYERS = ("fc1", "fc2")


class _FourConvolutions(nn.Module):
    """What has a convolution for each corner, and can call them as the published layer does."""

    def _add_convolutions(self, channels: int, kernel_dim: int, dilation: int) -> None:
        channels = integer_at_least("channels", channels, 1)
        self.kernel_dim = integer_at_least("kernel_dim", kernel_dim, 1)
        self.dilation = integer_at_least("dilation", dilation, 0)
        self.conv1 = nn.Conv2d(channels, channels, self.kernel_dim)
        self.conv2 = nn.Conv2d(channels, channels, self.kernel_dim)
        self.conv3 = nn.Conv2d(channels, channels, self.kernel_dim)
        self.conv4 = nn.Conv2d(channels, channels, self.kernel_dim)

    # TorchScript compiles this too: what it can't say is left out.
    def _call_convolutions(self, x: Tensor, variant: str) -> Tensor:
        """The masked convolution, unfused: ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        mode = "reflect" if variant == "tensorflow" else "constant"
        corners = reference.corners(x, self.kernel_dim, self.dilation, mode)
        a1, a2 = self.conv1(corners[0]), self.conv2(corners[1])
        a3, a4 = self.conv3(corners[2]), self.conv4(corners[3])
        if variant == "tensorflow":
            return F.relu(a1) + F.relu(a2) + F.relu(a3) + F.relu(a4)
        a = a1 + a2 + a3 + a4
        return F.relu(a) if variant == "paper" else a

    def extra_repr(self) -> str:
        receptive_field = 2 * (self.kernel_dim + self.dilation) + 1
        return (
            f"kernel_dim={self.kernel_dim}, dilation={self.dilation}, "
            f"receptive_field={receptive_field}x{receptive_field}"
        )


class MaskedConv2d(_FourConvolutions):
    """Masked convolution with ReLU: :func:`sspcab_cuda.functional.masked_conv2d`.

    Args:
        channels: C, of input and output.
        kernel_dim: k', the size of each of the four sub-kernels, in pixels.
        dilation: d ≥ 0, the distance between a sub-kernel and the masked centre, in pixels.

    Parameters: ``conv1`` to ``conv4`` (top-left, bottom-left, top-right, bottom-right), each with
    a weight ``(C, C, k', k')`` and a bias ``(C,)``.

    Raises:
        ValueError: an argument is no integer or too small.
    """

    def __init__(self, channels: int, kernel_dim: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self._add_convolutions(channels, kernel_dim, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, H, W)``, in the dtype and layout of x."""
        if torch.jit.is_scripting():
            return self._call_convolutions(x, "paper")
        else:
            return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        parameters = _read(self, nn.Conv2d, _CONVOLUTIONS)
        if parameters is None:
            return self._call_convolutions(x, "paper")
        weights, biases = parameters
        try:
            return functional.masked_conv2d(x, weights, biases, self.dilation)
        except RuntimeError:
            check_input(x, weights[0], "MaskedConv2d")
            raise


class SELayer(nn.Module):
    """Squeeze and excitation: :func:`sspcab_cuda.functional.squeeze_excite`.

    Args:
        num_channels: C.
        reduction_ratio: r ≥ 1; the gate has C // r hidden units, none where C < r.

    Parameters: ``fc1`` with weight ``(C // r, C)``, ``fc2`` with weight ``(C, C // r)``.

    Raises:
        ValueError: an argument is no integer or too small.
    """

    def __init__(self, num_channels: int, reduction_ratio: int = 8) -> None:
        super().__init__()
        num_channels = integer_at_least("num_channels", num_channels, 1)
        reduced = num_channels // integer_at_least("reduction_ratio", reduction_ratio, 1)
        self.fc1 = nn.Linear(num_channels, reduced)
        self.fc2 = nn.Linear(reduced, num_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, H, W)``, in the dtype and layout of x."""
        if torch.jit.is_scripting():
            return self._call_layers(x)
        else:
            return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        parameters = _read(self, nn.Linear, _LAYERS)
        if parameters is None:
            return self._call_layers(x)
        (fc1_weight, fc2_weight), (fc1_bias, fc2_bias) = parameters
        try:
            return functional.squeeze_excite(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
        except RuntimeError:
            check_input(x, fc1_weight, "SELayer")
            raise

    def _call_layers(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


class SSPCAB(_FourConvolutions):
    """Self-Supervised Predictive Convolutional Attentive Block (Ristea et al., CVPR 2022).

    Takes the place of the authors' layer: same arguments, parameters, initialisation and numbers;
    checkpoints load with ``strict=True`` in both directions.

    Args:
        channels: C, of input and output.
        kernel_dim: k', the size of each of the four sub-kernels, in pixels.
        dilation: d ≥ 0, the distance between a sub-kernel and the masked centre, in pixels.
        reduction_ratio: r ≥ 1 of the squeeze-and-excitation gate.
        variant: ``"paper"``; ``"anomalib"``, without ReLU; ``"tensorflow"``, with mirrored borders
            and ReLU on each corner, not fused: :func:`sspcab_cuda.functional.sspcab`. Parameters
            and the order of the corners are the same in all.

    Parameters: ``conv1`` to ``conv4`` (top-left, bottom-left, top-right, bottom-right), each with
    a weight ``(C, C, k', k')`` and a bias ``(C,)``; ``se.fc1`` and ``se.fc2``.

    Raises:
        ValueError: an argument is no integer or too small, or the variant is not one of these.

    Example:
        >>> block = SSPCAB(64)
        >>> out, reconstruction_loss = block(torch.rand(2, 64, 32, 32), return_loss=True)
        >>> total_loss = task_loss + 0.1 * reconstruction_loss  # doctest: +SKIP
    """

    def __init__(
        self,
        channels: int,
        kernel_dim: int = 1,
        dilation: int = 1,
        reduction_ratio: int = 8,
        variant: Variant = "paper",
    ) -> None:
        super().__init__()
        check_variant(variant)
        self.variant: Variant = variant
        # First, as in the authors' code: seeds and optimizers go by the order of parameters.
        self.se = SELayer(integer_at_least("channels", channels, 1), reduction_ratio)
        self._add_convolutions(channels, kernel_dim, dilation)

    @overload
    def forward(self, x: Tensor, return_loss: Literal[False] = ...) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, return_loss: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor, return_loss: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Reconstructs each pixel from the corners of its receptive field.

        Args:
            x: ``(N, C, H, W)``, float16, bfloat16, float32 or float64, any strides.
            return_loss: also return the reconstruction loss.

        Returns:
            ``out`` of the shape, dtype and layout of x; with ``return_loss`` the pair of it and
            ``mean((out - x)²)``, a scalar in float32 or wider.

        Inside :func:`sspcab_cuda.collect_reconstruction_losses` the loss is collected too.
        """
        check_flag("return_loss", return_loss)
        collected = losses.active()
        if collected is None:
            return self._compute(x, return_loss)
        out, loss = self._compute(x, True)
        collected.add(loss)
        return (out, loss) if return_loss else out

    def _compute(self, x: Tensor, return_loss: bool) -> Any:
        parameters = self._read()
        if isinstance(parameters, str):
            return self._compute_by_parts(x, return_loss, parameters)
        weights, biases, (fc1_weight, fc2_weight), (fc1_bias, fc2_bias) = parameters
        try:
            return functional.sspcab(
                x,
                weights,
                biases,
                fc1_weight,
                fc1_bias,
                fc2_weight,
                fc2_bias,
                self.dilation,
                return_loss,
                self.variant,
            )
        except RuntimeError:
            check_input(x, weights[0], "SSPCAB")
            raise

    def _compute_by_parts(self, x: Tensor, return_loss: bool, reason: str) -> Any:
        """Calls what can't be read; four convolutions that can are still one."""
        warn_once(self, reason)
        convolutions = parts(self, _CONVOLUTIONS)
        fused = self.variant != "tensorflow"
        if fused and reason_to_call(nn.Conv2d, _CONVOLUTIONS, convolutions) is None:
            activation: Literal["relu", "none"] = "relu" if self.variant == "paper" else "none"
            y = functional.masked_conv2d(x, *read(convolutions), self.dilation, activation)
        else:
            y = self._call_convolutions(x, self.variant)
        out = self.se(y)
        return (out, reference.reconstruction_loss(out, x)) if return_loss else out

    def _read(self) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]] | str:
        """Weights and biases of the convolutions and of the gate, or why something is called."""
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        gate_weights: list[Tensor] = []
        gate_biases: list[Tensor] = []
        se: Any = self._modules.get("se")
        if (
            read_plain(nn.Conv2d, self, _CONVOLUTIONS, weights, biases)
            and is_plain(SELayer, se)
            and read_plain(nn.Linear, se, _LAYERS, gate_weights, gate_biases)
        ):
            return weights, biases, gate_weights, gate_biases
        convolutions = parts(self, _CONVOLUTIONS)
        reason = reason_to_call(nn.Conv2d, _CONVOLUTIONS, convolutions)
        reason = reason or reason_to_call(SELayer, ("se",), (se,))
        if reason is not None:
            return reason
        layers = parts(se, _LAYERS)
        reason = reason_to_call(nn.Linear, ("se.fc1", "se.fc2"), layers)
        return reason or (*read(convolutions), *read(layers))

    def __prepare_scriptable__(self) -> nn.Module:
        return _ScriptableBlock(self)

    def anomaly_map(self, x: Tensor) -> Tensor:
        """Squared reconstruction error of each pixel, averaged over the channels.

        Of what the block returns when it is called, hooks and all; a loss is not collected.

        Args:
            x: ``(N, C, H, W)``, as in :meth:`forward`.

        Returns:
            ``(N, H, W)``, in float32 or wider, in squared units of x.
        """
        with losses.suspended():
            out = self(x)
        wide = torch.promote_types(x.dtype, torch.float32)
        return (out.to(wide) - x.to(wide)).square().mean(dim=1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, variant={self.variant}"


class _ScriptableBlock(_FourConvolutions):
    """What torch.jit.script compiles: the block's sub-modules, called. In TorchScript a forward has
    one type of result, so there is no return_loss."""

    def __init__(self, block: SSPCAB) -> None:
        super().__init__()
        self.kernel_dim, self.dilation = block.kernel_dim, block.dilation
        self.variant: str = block.variant
        self.training = block.training
        self.se = block.se
        self.conv1, self.conv2, self.conv3, self.conv4 = parts(block, _CONVOLUTIONS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.se(self._call_convolutions(x, self.variant))
        return out


def _read(
    owner: nn.Module, kind: type[nn.Module], names: Sequence[str]
) -> tuple[list[Tensor], list[Tensor]] | None:
    """Weights and biases of sub-modules, or None, with a warning, where they have to be called."""
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    if read_plain(kind, owner, names, weights, biases):
        return weights, biases
    modules = parts(owner, names)
    reason = reason_to_call(kind, names, modules)
    if reason is None:
        return read(modules)
    warn_once(owner, reason)
    return None
