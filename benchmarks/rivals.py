"""The rivals: one problem, computed in several ways, each checked against the float64 truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sspcab_cuda
from sspcab_cuda import reference

from .cases import Case

Mode = Literal["inference", "training"]
Layout = Literal["nchw", "channels_last"]
MEMORY_FORMATS: dict[Layout, torch.memory_format] = {
    "nchw": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
LOSS_WEIGHT = 0.1  # λ

# Largest relative error (in the Euclidean norm) of the results and of the gradients. Gradients
# get more room: where a pre-activation rounds to the other side of 0, ReLU's mask flips, and one
# flipped element is as wrong as it can be.
TOLERANCES = {
    torch.float64: (1e-12, 1e-9),
    torch.float32: (1e-5, 1e-2),
    torch.float16: (2e-3, 5e-2),
    torch.bfloat16: (1e-2, 1e-1),
}


Block = TypeVar("Block", bound=nn.Module)
Truth = Callable[[Mode], tuple[Tensor, ...]]  # float64 results of a mode, as Rival.run gives them


class WrongResultError(RuntimeError):
    """A rival does not compute what it is timed for."""


@dataclass(frozen=True)
class Problem:
    """One case with its values: every rival gets the same ones."""

    case: Case
    layout: Layout
    x: Tensor  # (N, C, H, W)
    state: dict[str, Tensor]  # of reference.SSPCAB
    grad_out: Tensor  # (N, C, H, W)

    @classmethod
    def make(cls, case: Case, dtype: torch.dtype, device: torch.device, layout: Layout) -> Problem:
        shape = (case.n, case.channels, case.height, case.width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            state = reference.SSPCAB(case.channels, case.kernel_dim, case.dilation).state_dict()
            x, grad_out = torch.randn(shape), torch.randn(shape)
        return cls(case, layout, x.to(device), state, grad_out.to(device)).to(dtype)

    def to(self, dtype: torch.dtype) -> Problem:
        """The same values in another dtype."""
        return Problem(
            self.case,
            self.layout,
            self.x.to(dtype, memory_format=MEMORY_FORMATS[self.layout]),
            {name: value.to(dtype) for name, value in self.state.items()},
            self.grad_out.to(dtype, memory_format=MEMORY_FORMATS[self.layout]),
        )

    def block(self, kind: Callable[[int, int, int], Block]) -> Block:
        """A new block of this class with the problem's parameters, in its layout."""
        module = kind(self.case.channels, self.case.kernel_dim, self.case.dilation)
        module.load_state_dict(self.state)
        module.to(self.x.device, self.x.dtype)
        module.to(memory_format=MEMORY_FORMATS[self.layout])
        return module

    @property
    def grad_loss(self) -> Tensor:
        """λ·numel: the mean's 1/numel undone, so that both gradients are of one size (an error in
        either shows) and half precision does not underflow."""
        dtype = torch.promote_types(self.x.dtype, torch.float32)
        return torch.tensor(LOSS_WEIGHT * self.x.numel(), dtype=dtype, device=self.x.device)


def assemble(corners: list[Tensor]) -> Tensor:
    """Four ``(C, C, 1, 1)`` sub-kernels as one ``(C, C, 2, 2)`` filter.

    The corners come column by column (top-left, bottom-left, top-right, bottom-right), a filter
    is stored row by row.
    """
    top_left, bottom_left, top_right, bottom_right = corners
    channels = top_left.shape[0]
    rows = (top_left, top_right, bottom_left, bottom_right)
    return torch.cat(rows, dim=3).view(channels, channels, 2, 2)


class Expert(reference.SSPCAB):
    """What an expert would write for k' = 1: one 2×2 convolution with dilation 2d + 2."""

    def forward(self, x: Tensor, return_loss: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        convs = (self.conv1, self.conv2, self.conv3, self.conv4)
        weight = assemble([conv.weight for conv in convs])
        bias = sum(conv.bias for conv in convs if conv.bias is not None)
        assert isinstance(bias, Tensor)
        d = self.dilation
        y = F.relu(F.conv2d(x, weight, bias, padding=d + 1, dilation=2 * d + 2), inplace=True)
        squeezed = y.mean(dim=(2, 3))
        hidden = F.relu(self.se.fc1(squeezed), inplace=True)
        out = y * torch.sigmoid(self.se.fc2(hidden))[:, :, None, None]
        return (out, reference.reconstruction_loss(out, x)) if return_loss else out


class ConvolutionOnly(nn.Module):
    """The floor for k' = 1: ATen's convolution alone, on a filter that is already assembled."""

    def __init__(self, block: reference.SSPCAB) -> None:
        super().__init__()
        self.dilation = block.dilation
        state = block.state_dict()
        self.weight = nn.Parameter(assemble([state[f"conv{i}.weight"] for i in (1, 2, 3, 4)]))
        biases = torch.stack([state[f"conv{i}.bias"] for i in (1, 2, 3, 4)])
        self.bias = nn.Parameter(biases.sum(dim=0))

    def forward(self, x: Tensor) -> Tensor:
        d = self.dilation
        return F.conv2d(x, self.weight, self.bias, padding=d + 1, dilation=2 * d + 2)


class CornerConvolution(ConvolutionOnly):
    """The truth for :class:`ConvolutionOnly`: its filter taken apart, corner by corner."""

    def forward(self, x: Tensor) -> Tensor:
        places = ((0, 0), (1, 0), (0, 1), (1, 1))  # (row, column) of each corner
        weights = [self.weight[:, :, r : r + 1, c : c + 1] for r, c in places]
        zero = torch.zeros_like(self.bias)
        biases = [self.bias, zero, zero, zero]
        return reference.masked_conv2d(x, weights, biases, self.dilation, activation="none")


class Rival:
    """One way to compute a problem.

    Args:
        name: as in the report.
        problem: the values.
        module: of the problem's dtype and device, with the problem's parameters.
        outputs: names of what ``call`` returns: ``("out", "loss")`` for the block.
        call: computes the outputs from x; by default the module with ``return_loss=True``.
        autocast: the dtype of a region in which it is called, and of its first output.
    """

    def __init__(
        self,
        name: str,
        problem: Problem,
        module: nn.Module,
        outputs: tuple[str, ...] = ("out", "loss"),
        call: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.name = name
        self.dtype = problem.x.dtype if autocast is None else autocast
        self.parameters = list(module.parameters())
        self._call = partial(module, return_loss=True) if call is None else call
        if autocast is not None:
            self._call = torch.autocast(problem.x.device.type, autocast)(self._call)
        self._x = problem.x
        self._leaves = (problem.x.detach().requires_grad_(), *self.parameters)
        self._grads = (problem.grad_out.to(self.dtype), problem.grad_loss)[: len(outputs)]
        gradients = ("x", *(name for name, _ in module.named_parameters()))
        self._names = (*outputs, *(f"the gradient of {name}" for name in gradients))
        self._outputs = len(outputs)

    def forward(self, mode: Mode) -> tuple[Tensor, ...]:
        """The outputs; in training with their graph."""
        return self._call(self._x if mode == "inference" else self._leaves[0])

    def run(self, mode: Mode) -> tuple[Tensor, ...]:
        """The outputs; in training followed by the gradients of x and of every parameter.

        The caller sets the grad mode (:func:`grad_mode`), so that setting it is not timed.
        """
        outputs = self.forward(mode)
        if mode == "inference":
            return outputs
        return outputs + torch.autograd.grad(outputs, self._leaves, self._grads)

    def names(self, mode: Mode) -> tuple[str, ...]:
        """What :meth:`run` returns, in words."""
        return self._names[: self._outputs] if mode == "inference" else self._names


def grad_mode(mode: Mode) -> torch.set_grad_enabled:
    """The context in which :meth:`Rival.run` computes what the mode needs."""
    return torch.set_grad_enabled(mode == "training")


def verify(rival: Rival, truth: Sequence[Tensor], mode: Mode) -> float:
    """Check a rival's results against the float64 truth.

    Returns:
        The largest relative error in the Euclidean norm, over all results.

    Raises:
        WrongResultError: a result has another shape, or is farther off than its dtype allows.
    """
    with grad_mode(mode):
        results = rival.run(mode)
    worst = 0.0
    for name, result, true in zip(rival.names(mode), results, truth, strict=True):
        if result.shape != true.shape:
            raise WrongResultError(
                f"{rival.name}: {name} must be {tuple(true.shape)}; got {tuple(result.shape)}"
            )
        tolerance = TOLERANCES[_arithmetic(rival)]["gradient" in name]
        size = true.norm().clamp(min=torch.finfo(true.dtype).tiny)  # a gradient may be all zero
        error = ((result.double() - true).norm() / size).item()
        if not error <= tolerance:  # a NaN must not pass
            raise WrongResultError(
                f"{rival.name}: the relative error of {name} must be at most {tolerance:g} in "
                f"{rival.dtype}; got {error:.3g}"
            )
        worst = max(worst, error)
    return worst


def allow_tf32(allowed: bool) -> None:
    """Whether float32 convolutions on CUDA may round their operands to TF32."""
    precision = "tf32" if allowed else "ieee"
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def _arithmetic(rival: Rival) -> torch.dtype:
    """The dtype whose rounding a rival may show: TF32 rounds its operands as float16 does."""
    tf32 = torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    on_cuda = rival.parameters[0].device.type == "cuda"
    return torch.float16 if rival.dtype == torch.float32 and on_cuda and tf32 else rival.dtype


def rivals_of(problem: Problem, compiled: bool) -> dict[Rival, Truth]:
    """Every rival that can compute the problem, with its truth.

    Args:
        compiled: with torch.compile of the reference, which takes its time.

    The 2×2 forms exist for k' = 1. Half precision on a CPU goes without them (ATen's dilated
    convolution takes seconds there); half precision anywhere adds our own float32 time.
    """
    half = problem.x.dtype in (torch.float16, torch.bfloat16)
    wide = problem.to(torch.float64)
    block = wide.block(reference.SSPCAB)
    truth = truth_of(Rival("truth", wide, block))
    eager = problem.block(reference.SSPCAB)
    rivals = {Rival("reference", problem, eager): truth}
    if compiled:
        torch.compiler.reset()
        call = partial(torch.compile(eager, dynamic=False), return_loss=True)
        rivals[Rival("compile", problem, eager, call=call)] = truth
    if problem.case.kernel_dim == 1 and not (half and problem.x.device.type == "cpu"):
        rivals[Rival("expert", problem, problem.block(Expert))] = truth
        floor, corners = ConvolutionOnly(eager), CornerConvolution(block)
        rivals[_convolution("conv only", problem, floor)] = truth_of(
            _convolution("truth", wide, corners)
        )
    rivals[Rival("ours", problem, problem.block(sspcab_cuda.SSPCAB))] = truth
    if half:
        single = problem.to(torch.float32)
        rivals[Rival("ours float32", single, single.block(sspcab_cuda.SSPCAB))] = truth
    return rivals


def _convolution(name: str, problem: Problem, module: ConvolutionOnly) -> Rival:
    module.to(memory_format=MEMORY_FORMATS[problem.layout])
    return Rival(name, problem, module, outputs=("out",), call=lambda x: (module(x),))


def truth_of(rival: Rival) -> Truth:
    """A rival's results, computed once per mode."""

    @cache
    def results(mode: Mode) -> tuple[Tensor, ...]:
        with grad_mode(mode):
            return tuple(result.detach() for result in rival.run(mode))

    return results
