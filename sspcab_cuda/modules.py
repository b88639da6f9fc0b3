"""The block and its parts as modules, with the parameters of the authors' PyTorch code."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from . import functional, losses
from .checks import check_at_least, check_variant
from .reference import Variant
from .submodules import check_readable, parts, read


class MaskedConv2d(nn.Module):
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
        check_at_least("channels", channels, 1)
        check_at_least("kernel_dim", kernel_dim, 1)
        check_at_least("dilation", dilation, 0)
        self.dilation = dilation
        self.conv1 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv2 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv3 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv4 = nn.Conv2d(channels, channels, kernel_dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, H, W)``, in the dtype and layout of x."""
        convolutions = parts(self, _CONVOLUTIONS)
        check_readable(self, nn.Conv2d, _CONVOLUTIONS, convolutions)
        return functional.masked_conv2d(x, *read(convolutions), self.dilation)

    def extra_repr(self) -> str:
        return _describe(self)


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
        check_at_least("num_channels", num_channels, 1)
        check_at_least("reduction_ratio", reduction_ratio, 1)
        reduced = num_channels // reduction_ratio
        self.fc1 = nn.Linear(num_channels, reduced)
        self.fc2 = nn.Linear(reduced, num_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, H, W)``, in the dtype and layout of x."""
        layers = parts(self, ("fc1", "fc2"))
        check_readable(self, nn.Linear, ("fc1", "fc2"), layers)
        (fc1_weight, fc2_weight), (fc1_bias, fc2_bias) = read(layers)
        return functional.squeeze_excite(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias)


class SSPCAB(nn.Module):
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
        check_at_least("channels", channels, 1)
        check_at_least("kernel_dim", kernel_dim, 1)
        check_at_least("dilation", dilation, 0)
        check_variant(variant)
        self.dilation = dilation
        self.variant: Variant = variant
        # First, as in the authors' code: seeds and optimizers go by the order of parameters.
        self.se = SELayer(channels, reduction_ratio)
        self.conv1 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv2 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv3 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv4 = nn.Conv2d(channels, channels, kernel_dim)

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
        collected = losses.active()
        if collected is None:
            return functional.sspcab(x, **_arguments(self), return_loss=return_loss)
        out, loss = functional.sspcab(x, **_arguments(self), return_loss=True)
        collected.add(loss)
        return (out, loss) if return_loss else out

    def anomaly_map(self, x: Tensor) -> Tensor:
        """Squared reconstruction error of each pixel, averaged over the channels.

        Args:
            x: ``(N, C, H, W)``, as in :meth:`forward`.

        Returns:
            ``(N, H, W)``, in float32 or wider, in squared units of x.
        """
        wide = torch.promote_types(x.dtype, torch.float32)
        out = functional.sspcab(x, **_arguments(self))
        return (out.to(wide) - x.to(wide)).square().mean(dim=1)

    def extra_repr(self) -> str:
        return f"{_describe(self)}, variant={self.variant}"


_CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4")


def _arguments(block: SSPCAB) -> dict[str, Any]:
    """What :func:`functional.sspcab` takes beside x and return_loss."""
    convolutions, (se,) = parts(block, _CONVOLUTIONS), parts(block, ("se",))
    check_readable(block, nn.Conv2d, _CONVOLUTIONS, convolutions)
    check_readable(block, SELayer, ("se",), (se,))
    layers = parts(se, ("fc1", "fc2"))
    check_readable(block, nn.Linear, ("se.fc1", "se.fc2"), layers)
    weights, biases = read(convolutions)
    (fc1_weight, fc2_weight), (fc1_bias, fc2_bias) = read(layers)
    return {
        "weights": weights,
        "biases": biases,
        "fc1_weight": fc1_weight,
        "fc1_bias": fc1_bias,
        "fc2_weight": fc2_weight,
        "fc2_bias": fc2_bias,
        "dilation": block.dilation,
        "variant": block.variant,
    }


def _describe(module: MaskedConv2d | SSPCAB) -> str:
    channels, kernel_dim = module.conv1.in_channels, module.conv1.kernel_size[0]
    receptive_field = 2 * (kernel_dim + module.dilation) + 1
    return (
        f"{channels}, kernel_dim={kernel_dim}, dilation={module.dilation}, "
        f"receptive_field={receptive_field}x{receptive_field}"
    )
