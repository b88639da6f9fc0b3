"""The SSPCAB block in plain PyTorch: the truth that the kernels are tested against.

Written from the formulas of Ristea et al., "Self-Supervised Predictive Convolutional Attentive
Block for Anomaly Detection", CVPR 2022. It imports torch alone, runs on every device and dtype
that PyTorch has, and can be differentiated any number of times. The functions have the names,
arguments and results of :mod:`sspcab_cuda.functional`; the modules have the parameters of those in
:mod:`sspcab_cuda`.

Corners are numbered as in the authors' code: 0 top-left, 1 bottom-left, 2 top-right,
3 bottom-right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Variant = Literal["paper", "anomalib", "tensorflow"]


def masked_conv2d(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    dilation: int = 1,
    activation: Literal["relu", "none"] = "relu",
) -> Tensor:
    """Masked convolution: four k'×k' sub-kernels in the corners of the receptive field.

    Args:
        x: ``(N, C, H, W)``, floating point.
        weights: four sub-kernels ``(C, C, k', k')``, in corner order.
        biases: four vectors ``(C,)``; all four are added.
        dilation: distance d ≥ 0 between a sub-kernel and the masked centre.
        activation: ``"relu"`` after the sum of the corners (the paper), or ``"none"``.

    Returns:
        ``(N, C, H, W)``, as if x were 0 outside the image.
    """
    total = sum(_corners(x, weights, biases, dilation, "constant"))
    assert isinstance(total, Tensor)
    return F.relu(total) if activation == "relu" else total


def masked_conv2d_tensorflow(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], dilation: int = 1
) -> Tensor:
    """:func:`masked_conv2d` as in the authors' TensorFlow code.

    x is mirrored at the border (without repeating it), so H and W must be larger than k' + d, and
    ReLU is applied to each corner before the sum.
    """
    total = sum(map(F.relu, _corners(x, weights, biases, dilation, "reflect")))
    assert isinstance(total, Tensor)
    return total


def _corners(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], dilation: int, padding_mode: str
) -> list[Tensor]:
    """What each corner adds to the masked convolution: four times ``(N, C, H, W)``."""
    seen = corners(x, weights[0].shape[-1], dilation, padding_mode)
    return [F.conv2d(*arguments) for arguments in zip(seen, weights, biases, strict=True)]


def corners(x: Tensor, kernel_dim: int, dilation: int, padding_mode: str) -> list[Tensor]:
    """What the sub-kernel of each corner sees: four times ``(N, C, H + k' - 1, W + k' - 1)``."""
    height, width = x.size(2) + kernel_dim - 1, x.size(3) + kernel_dim - 1
    distance = kernel_dim + 2 * dilation + 1  # between the first rows (columns) of two sub-kernels
    padded = F.pad(x, [kernel_dim + dilation] * 4, mode=padding_mode)
    upper, lower = padded[:, :, :height], padded[:, :, distance:]
    return [
        upper[:, :, :, :width],
        lower[:, :, :, :width],
        upper[:, :, :, distance:],
        lower[:, :, :, distance:],
    ]


def squeeze_excite(
    x: Tensor, fc1_weight: Tensor, fc1_bias: Tensor, fc2_weight: Tensor, fc2_bias: Tensor
) -> Tensor:
    """Squeeze-and-excitation channel attention (Hu et al., CVPR 2018).

    Args:
        x: ``(N, C, H, W)``.
        fc1_weight, fc1_bias: ``(C // r, C)`` and ``(C // r,)``.
        fc2_weight, fc2_bias: ``(C, C // r)`` and ``(C,)``.

    Returns:
        ``(N, C, H, W)``: x times the gate, ``sigmoid(fc2(relu(fc1(mean of x over H and W))))``.
    """
    *_, gate = excitation(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    return x * gate[:, :, None, None]


def excitation(
    x: Tensor, fc1_weight: Tensor, fc1_bias: Tensor, fc2_weight: Tensor, fc2_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, hidden units and gate: ``(N, C)``, ``(N, C // r)``, ``(N, C)``."""
    mean = x.mean(dim=(2, 3))
    hidden = F.relu(F.linear(mean, fc1_weight, fc1_bias))
    return mean, hidden, torch.sigmoid(F.linear(hidden, fc2_weight, fc2_bias))


def reconstruction_loss(out: Tensor, x: Tensor) -> Tensor:
    """``mean((out - x)²)``, accumulated in float32 or wider.

    Args:
        out, x: ``(N, C, H, W)``.

    Returns:
        A scalar, float64 for float64 input, otherwise float32. NaN for an empty input.
    """
    wide = torch.promote_types(torch.promote_types(out.dtype, x.dtype), torch.float32)
    return F.mse_loss(out.to(wide), x.to(wide))


@overload
def sspcab(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    dilation: int = ...,
    return_loss: Literal[False] = ...,
    variant: Variant = ...,
) -> Tensor: ...
@overload
def sspcab(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    dilation: int = ...,
    *,
    return_loss: Literal[True],
    variant: Variant = ...,
) -> tuple[Tensor, Tensor]: ...
@overload
def sspcab(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    dilation: int = ...,
    return_loss: bool = ...,
    variant: Variant = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...
def sspcab(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    dilation: int = 1,
    return_loss: bool = False,
    variant: Variant = "paper",
) -> Tensor | tuple[Tensor, Tensor]:
    """The whole block: masked convolution, ReLU, squeeze and excitation, reconstruction loss.

    Arguments as in :func:`masked_conv2d` and :func:`squeeze_excite`; ``variant`` says what the
    masked convolution is: ``"paper"`` has ReLU after the sum of the corners, ``"anomalib"`` none,
    ``"tensorflow"`` is :func:`masked_conv2d_tensorflow`.

    Returns:
        ``out`` of shape ``(N, C, H, W)``; with ``return_loss`` the pair of it and the scalar
        :func:`reconstruction_loss` of ``out`` against ``x``.
    """
    if variant == "tensorflow":
        y = masked_conv2d_tensorflow(x, weights, biases, dilation)
    else:
        y = masked_conv2d(x, weights, biases, dilation, "relu" if variant == "paper" else "none")
    out = squeeze_excite(y, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    return (out, reconstruction_loss(out, x)) if return_loss else out


class MaskedConv2d(nn.Module):
    """Masked convolution with ReLU as a module. Shapes: see :func:`masked_conv2d`."""

    def __init__(self, channels: int, kernel_dim: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv1 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv2 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv3 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv4 = nn.Conv2d(channels, channels, kernel_dim)

    def forward(self, x: Tensor) -> Tensor:
        convs = (self.conv1, self.conv2, self.conv3, self.conv4)
        biases = [c.bias for c in convs if c.bias is not None]
        return masked_conv2d(x, [c.weight for c in convs], biases, self.dilation)


class SELayer(nn.Module):
    """Squeeze-and-excitation as a module. Shapes: see :func:`squeeze_excite`."""

    def __init__(self, num_channels: int, reduction_ratio: int = 8) -> None:
        super().__init__()
        reduced = num_channels // reduction_ratio
        self.fc1 = nn.Linear(num_channels, reduced)
        self.fc2 = nn.Linear(reduced, num_channels)

    def forward(self, x: Tensor) -> Tensor:
        return squeeze_excite(x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)


class SSPCAB(nn.Module):
    """The block as a module, with the parameters of :class:`sspcab_cuda.SSPCAB`."""

    def __init__(
        self,
        channels: int,
        kernel_dim: int = 1,
        dilation: int = 1,
        reduction_ratio: int = 8,
        variant: Variant = "paper",
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.variant: Variant = variant
        self.se = SELayer(channels, reduction_ratio)
        self.conv1 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv2 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv3 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv4 = nn.Conv2d(channels, channels, kernel_dim)

    def forward(self, x: Tensor, return_loss: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        convs = (self.conv1, self.conv2, self.conv3, self.conv4)
        biases = [c.bias for c in convs if c.bias is not None]
        fc1, fc2 = self.se.fc1, self.se.fc2
        return sspcab(
            x,
            [c.weight for c in convs],
            biases,
            fc1.weight,
            fc1.bias,
            fc2.weight,
            fc2.bias,
            self.dilation,
            return_loss,
            self.variant,
        )

    def anomaly_map(self, x: Tensor) -> Tensor:
        """Squared reconstruction error of each pixel, averaged over the channels: ``(N, H, W)``."""
        wide = torch.promote_types(x.dtype, torch.float32)
        out = self.forward(x)
        assert isinstance(out, Tensor)
        return (out.to(wide) - x.to(wide)).square().mean(dim=1)
