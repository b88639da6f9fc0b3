"""The block and its parts as modules, with the parameters of the authors' PyTorch code."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from . import functional, losses, reference
from ._extension import BUILD_COMMAND
from .checks import check_flag, check_input, check_variant, has_kernels, integer_at_least
from .reference import Variant
from .submodules import Kinds, parts, read, read_plain, reason_to_call, warn_once

_CONVOLUTIONS: Kinds = tuple((name, nn.Conv2d) for name in ("conv1", "conv2", "conv3", "conv4"))
_LAYERS: Kinds = (("fc1", nn.Linear), ("fc2", nn.Linear))
_GATE: Kinds = (*_LAYERS, ("relu", nn.ReLU), ("sigmoid", nn.Sigmoid))
_ACTIVATIONS = {"paper": nn.ReLU, "anomalib": nn.Identity, "tensorflow": nn.ReLU}
_RELU: Kinds = (("relu", nn.ReLU),)
_MASKED_CONVOLUTION: Kinds = (*_CONVOLUTIONS, *_RELU)


class _FourConvolutions(nn.Module):
    """What has a convolution for each corner and an activation, and can call them as the published
    layer does."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.relu = _ACTIVATIONS[variant]()

    def _add_convolutions(
        self, channels: int, kernel_dim: int, dilation: int, **factory: Any
    ) -> None:
        channels = integer_at_least("channels", channels, 1)
        self.kernel_dim = integer_at_least("kernel_dim", kernel_dim, 1)
        self.dilation = integer_at_least("dilation", dilation, 0)
        self.conv1 = nn.Conv2d(channels, channels, self.kernel_dim, **factory)
        self.conv2 = nn.Conv2d(channels, channels, self.kernel_dim, **factory)
        self.conv3 = nn.Conv2d(channels, channels, self.kernel_dim, **factory)
        self.conv4 = nn.Conv2d(channels, channels, self.kernel_dim, **factory)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "relu" not in self._modules:  # pickled when activations were no modules yet
            self.relu = _ACTIVATIONS[state.get("variant", "paper")]().train(self.training)

    @property
    def pad(self) -> int:
        """k' + d: by how many pixels the published layer pads x on each side."""
        return self.kernel_dim + self.dilation

    @property
    def border_input(self) -> int:
        """k' + 2d + 1: the distance between the first rows of two sub-kernels, in pixels."""
        return self.kernel_dim + 2 * self.dilation + 1

    def _convolve_by_parts(self, x: Tensor, variant: str) -> Tensor:
        """The masked convolution, calling what can't be read; four convolutions that can are still
        one."""
        fused = variant != "tensorflow" and has_kernels(x)
        if not fused or reason_to_call(self, _CONVOLUTIONS) is not None:
            return self._call_convolutions(x, variant)
        weights, biases = read(parts(self, _CONVOLUTIONS))
        if variant == "paper" and reason_to_call(self, _RELU) is None:
            return functional.masked_conv2d(x, weights, biases, self.dilation)
        y: Tensor = self.relu(functional.masked_conv2d(x, weights, biases, self.dilation, "none"))
        return y

    # TorchScript compiles this too: what it can't say is left out.
    def _call_convolutions(self, x: Tensor, variant: str) -> Tensor:
        """The masked convolution, unfused: ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        mode = "reflect" if variant == "tensorflow" else "constant"
        corners = reference.corners(x, self.kernel_dim, self.dilation, mode)
        a1, a2 = self.conv1(corners[0]), self.conv2(corners[1])
        a3, a4 = self.conv3(corners[2]), self.conv4(corners[3])
        if variant == "tensorflow":
            y: Tensor = self.relu(a1) + self.relu(a2) + self.relu(a3) + self.relu(a4)
        else:
            y = self.relu(a1 + a2 + a3 + a4)
        return y

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
        device, dtype: of the parameters, as in PyTorch's layers.

    Parameters: ``conv1`` to ``conv4`` (top-left, bottom-left, top-right, bottom-right), each with
    a weight ``(C, C, k', k')`` and a bias ``(C,)``. ``relu`` is the activation.

    Raises:
        ValueError: an argument is no integer or too small.
    """

    def __init__(
        self,
        channels: int,
        kernel_dim: int = 1,
        dilation: int = 1,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__("paper")
        self._add_convolutions(channels, kernel_dim, dilation, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, H, W)``, in the dtype and layout of x."""
        if torch.jit.is_scripting():
            return self._call_convolutions(x, "paper")
        else:
            return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        parameters = _read(self, _CONVOLUTIONS, _MASKED_CONVOLUTION)
        if isinstance(parameters, str):
            reason = parameters
        else:
            weights, biases = parameters
            try:
                return functional.masked_conv2d(x, weights, biases, self.dilation)
            except RuntimeError:
                if has_kernels(x):
                    check_input(x, weights[0], "MaskedConv2d")
                    raise
                reason = _no_kernels(x)
        warn_once(self, reason)
        return self._convolve_by_parts(x, "paper")


class SELayer(nn.Module):
    """Squeeze and excitation: :func:`sspcab_cuda.functional.squeeze_excite`.

    Args:
        num_channels: C.
        reduction_ratio: r ≥ 1; the gate has C // r hidden units, none where C < r.
        device, dtype: of the parameters, as in PyTorch's layers.

    Parameters: ``fc1`` with weight ``(C // r, C)``, ``fc2`` with weight ``(C, C // r)``. ``relu``
    and ``sigmoid`` are the activations.

    Raises:
        ValueError: an argument is no integer or too small.
    """

    def __init__(
        self,
        num_channels: int,
        reduction_ratio: int = 8,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        num_channels = integer_at_least("num_channels", num_channels, 1)
        self.reduction_ratio = integer_at_least("reduction_ratio", reduction_ratio, 1)
        reduced = num_channels // self.reduction_ratio
        self.fc1 = nn.Linear(num_channels, reduced, device=device, dtype=dtype)
        self.fc2 = nn.Linear(reduced, num_channels, device=device, dtype=dtype)
        self.relu, self.sigmoid = nn.ReLU(), nn.Sigmoid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "relu" not in self._modules:  # pickled when activations were no modules yet
            self.relu = nn.ReLU().train(self.training)
            self.sigmoid = nn.Sigmoid().train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, H, W)``, in the dtype and layout of x."""
        if torch.jit.is_scripting():
            return self._call_layers(x)
        else:
            return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        parameters = _read(self, _LAYERS, _GATE)
        if isinstance(parameters, str):
            reason = parameters
        else:
            (fc1_weight, fc2_weight), (fc1_bias, fc2_bias) = parameters
            try:
                return functional.squeeze_excite(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
            except RuntimeError:
                if has_kernels(x):
                    check_input(x, fc1_weight, "SELayer")
                    raise
                reason = _no_kernels(x)
        warn_once(self, reason)
        return self._call_layers(x)

    def _call_layers(self, x: Tensor) -> Tensor:
        gate = self.sigmoid(self.fc2(self.relu(self.fc1(x.mean(dim=(2, 3))))))
        out: Tensor = x * gate[:, :, None, None]
        return out


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
        device, dtype: of the parameters, as in PyTorch's layers.

    Parameters: ``conv1`` to ``conv4`` (top-left, bottom-left, top-right, bottom-right), each with
    a weight ``(C, C, k', k')`` and a bias ``(C,)``; ``se.fc1`` and ``se.fc2``.

    Activations: ``relu``, ``se.relu`` and ``se.sigmoid``. In the variant ``"anomalib"`` ``relu`` is
    ``nn.Identity()``; in ``"tensorflow"`` it is called for each corner. Like the layers they are
    fused as they are made, and called where they have hooks or another module is in their place.

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
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_variant(variant)
        super().__init__(variant)
        self.variant: Variant = variant
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        # First, as in the authors' code: seeds and optimizers go by the order of parameters.
        self.se = SELayer(integer_at_least("channels", channels, 1), reduction_ratio, **factory)
        self._add_convolutions(channels, kernel_dim, dilation, **factory)

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
            reason = parameters
        else:
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
                if has_kernels(x):
                    check_input(x, weights[0], "SSPCAB")
                    raise
                reason = _no_kernels(x)
        warn_once(self, reason)
        out = self.se(self._convolve_by_parts(x, self.variant))
        return (out, reference.reconstruction_loss(out, x)) if return_loss else out

    def _read(self) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]] | str:
        """Weights and biases of the convolutions and of the gate, or why something is called."""
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        gate_weights: list[Tensor] = []
        gate_biases: list[Tensor] = []
        se: Any = self._modules.get("se")
        kinds = _BLOCK[self.variant]
        if read_plain(self, kinds, weights, biases) and read_plain(
            se, _GATE, gate_weights, gate_biases
        ):
            return weights, biases, gate_weights, gate_biases
        reason = _reason_to_call_parts(self)
        return reason or (*read(parts(self, _CONVOLUTIONS)), *read(parts(se, _LAYERS)))

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
        super().__init__(block.variant)
        self.kernel_dim, self.dilation = block.kernel_dim, block.dilation
        self.variant: str = block.variant
        self.training = block.training
        self.relu, self.se = block.relu, block.se
        self.conv1, self.conv2, self.conv3, self.conv4 = parts(block, _CONVOLUTIONS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.se(self._call_convolutions(x, self.variant))
        return out


_BLOCK: dict[str, Kinds] = {
    variant: (*_CONVOLUTIONS, ("relu", activation), ("se", SELayer))
    for variant, activation in _ACTIVATIONS.items()
}


def _read(owner: nn.Module, layers: Kinds, kinds: Kinds) -> tuple[list[Tensor], list[Tensor]] | str:
    """Weights and biases of the layers among sub-modules, or why something is called."""
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    if read_plain(owner, kinds, weights, biases):
        return weights, biases
    return reason_to_call(owner, kinds) or read(parts(owner, layers))


def _reason_to_call_parts(block: SSPCAB) -> str | None:
    se: Any = block._modules.get("se")
    return reason_to_call(block, _BLOCK[block.variant]) or reason_to_call(se, _GATE, "se.")


def why_not_fused(block: SSPCAB, x: Tensor) -> str | None:
    """Why the block calls its parts for x; None where it is fused. Runs nothing, no hook either."""
    if not has_kernels(x):
        return _no_kernels(x)
    if block.variant == "tensorflow":
        return 'the variant "tensorflow" has no fused kernels'
    return _reason_to_call_parts(block)


def _no_kernels(x: Tensor) -> str:
    device = x.device.type
    remedy = f" (FORCE_CUDA=1 {BUILD_COMMAND} builds them)" if device == "cuda" else ""
    return f"x is on {device}, for which this build has no kernels{remedy}"
