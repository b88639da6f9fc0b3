"""Problem sizes, memory layouts and random arguments of all tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

import sspcab_cuda
from sspcab_cuda import ops, reference

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (*HALVES, torch.float32, torch.float64)

# Whether this build has the kernels for compute capability 9.0.
HAS_HOPPER = "9.0a" in str(sspcab_cuda.build_info()["arch_list"])

# The order of the arguments of the block as one list.
NAMES = (
    "x",
    *(f"weight{i}" for i in range(1, 5)),
    *(f"bias{i}" for i in range(1, 5)),
    "fc1_weight",
    "fc1_bias",
    "fc2_weight",
    "fc2_bias",
)


@dataclass(frozen=True)
class Case:
    n: int
    channels: int
    height: int
    width: int
    kernel_dim: int = 1
    dilation: int = 1
    reduction_ratio: int = 8

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.n, self.channels, self.height, self.width

    @property
    def hidden(self) -> int:
        return self.channels // self.reduction_ratio

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"{shape}-k{self.kernel_dim}-d{self.dilation}-r{self.reduction_ratio}"


SMALL = Case(2, 16, 8, 8)

CASES = (
    SMALL,
    # images smaller than the receptive field, down to one pixel
    Case(1, 1, 1, 1),
    Case(3, 5, 1, 1, 2, 1, 2),
    Case(2, 3, 2, 3, 3, 2, 2),
    Case(2, 8, 1, 17, 1, 0, 2),
    Case(2, 7, 19, 1, 2, 0, 3),
    Case(1, 6, 6, 7, 1, 16, 1),
    # fewer channels than the reduction ratio: no hidden units
    Case(2, 4, 5, 6),
    Case(1, 1, 7, 9, 3, 0),
    # channels around the blocks of 16 and the tiles of 32
    Case(2, 15, 6, 7, 1, 2, 4),
    Case(1, 17, 3, 12),
    Case(2, 32, 5, 5),
    Case(1, 33, 4, 6, 2, 1),
    Case(1, 48, 7, 7, 4, 1),  # panels big enough to be walked through in parts
    Case(1, 64, 16, 20),
    Case(1, 65, 5, 9),
    Case(2, 80, 6, 5, 2, 2),
    Case(1, 272, 4, 5),
    # rows around the runs of 12 pixels and the chunks of 256
    Case(1, 16, 3, 13, 1, 0, 4),
    Case(2, 9, 5, 25, 2, 1, 4),
    Case(1, 31, 2, 128),
    Case(2, 6, 3, 130, 1, 1, 2),
    Case(1, 20, 2, 257),
    Case(1, 16, 22, 130, 2, 1),
    # big sub-kernels
    Case(1, 3, 9, 8, 7, 3, 1),
    Case(2, 10, 11, 13, 5, 0, 2),
    Case(1, 8, 12, 10, 4, 2),
)

# Over channels, over the taps of big sub-kernels, over pixels.
LONG_SUMS = (Case(1, 1024, 5, 5, 1, 0), Case(1, 48, 7, 7, 5, 1), Case(1, 8, 96, 128, 1, 1, 1))

# More samples than are worked off at once (8 MB of an image's elements in float32).
MANY_SAMPLES = Case(5, 32, 128, 130)

EMPTY = (Case(0, 16, 8, 8), Case(2, 16, 0, 8), Case(2, 16, 8, 0), Case(0, 4, 0, 0, 3, 2))


def _inside_nan(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """x as a slice of a bigger tensor, which is NaN elsewhere."""
    n, c, h, w = x.shape
    bigger = torch.full((n + 1, c + 3, h + 2, w + 5), torch.nan, dtype=x.dtype, device=x.device)
    bigger = bigger.contiguous(memory_format=memory_format)
    return bigger[1:, 2 : c + 2, 1 : h + 1, 3 : w + 3].copy_(x)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: _inside_nan(x, torch.contiguous_format),
    "channels_last_sliced": lambda x: _inside_nan(x, torch.channels_last),
    "permuted": lambda x: x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
    # the one layout that changes the values
    "expanded": lambda x: x[..., :1, :1].expand_as(x) if x.numel() else x,
}


def arguments(
    case: Case,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    *,
    parameters: torch.dtype | None = None,
    seed: int = 0,
) -> list[Tensor]:
    """x and the 12 parameters, in the order of NAMES; parameters scaled as PyTorch starts them.

    Only fc1_bias is moved away from 0: every third hidden unit is idle, and none is the small
    difference of big numbers, whose relative error would be a matter of luck.
    """
    generator = torch.Generator().manual_seed(seed)
    c, k, hidden = case.channels, case.kernel_dim, case.hidden

    def uniform(*shape: int, fan_in: int) -> Tensor:
        values = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
        return values / max(fan_in, 1) ** 0.5

    x = torch.randn(case.shape, generator=generator, dtype=torch.float64)
    idle = torch.arange(hidden) % 3 == 2
    tensors = [
        *(uniform(c, c, k, k, fan_in=c * k * k) for _ in range(4)),
        *(uniform(c, fan_in=c * k * k) for _ in range(4)),
        uniform(hidden, c, fan_in=c),
        uniform(hidden, fan_in=c) + torch.where(idle, -2.0, 1.0),
        uniform(c, hidden, fan_in=hidden),
        uniform(c, fan_in=hidden),
    ]
    return [
        x.to(device, dtype),
        *(tensor.to(device, parameters or dtype) for tensor in tensors),
    ]


def integers(case: Case, dtype: torch.dtype, device: str, seed: int = 0) -> list[Tensor]:
    """Arguments of a masked convolution whose sums are exact in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(-1, 2, t.shape, generator=generator).to(device, dtype)
        for t in arguments(case)[:9]
    ]


def exact_convolution(
    case: Case, dtype: torch.dtype, device: str, layout: str = "nchw"
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Of integers, without ReLU: inputs, a gradient of the output and, expected bit for bit, the
    output and the gradients of all inputs."""
    values = integers(case, dtype, device)
    if layout == "channels_last":
        values[0] = values[0].contiguous(memory_format=torch.channels_last)
    grad = torch.randint(-1, 2, case.shape, device=device).to(dtype)
    inputs = leaves(double(values))
    y = convolution(reference, inputs, case.dilation, "none")
    truth = [y, *torch.autograd.grad(y, inputs, grad.double())]
    return values, grad, [t.detach().to(dtype) for t in truth]


def output_gradients(
    case: Case, dtype: torch.dtype, device: str = "cpu", seed: int = 1
) -> tuple[Tensor, Tensor]:
    """Gradients of out and of the loss that weigh about the same in the gradient of x."""
    generator = torch.Generator().manual_seed(seed)
    grad_out = torch.randn(case.shape, generator=generator, dtype=torch.float64) + 0.5
    wide = torch.promote_types(dtype, torch.float32)
    return grad_out.to(device, dtype), torch.tensor(grad_out.numel() / 4, dtype=wide, device=device)


def block(
    library: ModuleType,
    tensors: Sequence[Tensor],
    dilation: int,
    return_loss: bool = True,
    variant: str = "paper",
) -> tuple[Tensor, ...]:
    """library.sspcab on the tensors of NAMES: (out, loss), or (out,)."""
    result = library.sspcab(
        tensors[0], tensors[1:5], tensors[5:9], *tensors[9:], dilation, return_loss, variant
    )
    return result if return_loss else (result,)


def convolution(
    library: ModuleType, tensors: Sequence[Tensor], dilation: int, activation: str = "relu"
) -> Tensor:
    """library.masked_conv2d on the first nine tensors of NAMES."""
    y: Tensor = library.masked_conv2d(tensors[0], tensors[1:5], tensors[5:9], dilation, activation)
    return y


def leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors, strides and all, as leaves that want gradients."""
    return [tensor.detach().requires_grad_() for tensor in tensors]


def forward_backward(
    library: ModuleType,
    tensors: Sequence[Tensor],
    dilation: int,
    grad_out: Tensor | None,
    grad_loss: Tensor | None,
    *,
    variant: str = "paper",
) -> dict[str, Tensor]:
    """out, loss and the gradients of all 13 arguments, by name."""
    inputs = leaves(tensors)
    out, loss = block(library, inputs, dilation, variant=variant)
    pairs = [(o, g) for o, g in ((out, grad_out), (loss, grad_loss)) if g is not None]
    gradients = torch.autograd.grad([o for o, _ in pairs], inputs, [g for _, g in pairs])
    return _named(out, loss, gradients)


def forced(
    tensors: Sequence[Tensor],
    dilation: int,
    grad_out: Tensor,
    grad_loss: Tensor,
    config: int,
    allow_tf32: bool = False,
    *,
    relu: bool = True,
) -> dict[str, Tensor]:
    """As forward_backward, ours, with the way convolutions are computed (csrc/registration.cpp)."""
    inputs = leaves(tensors)
    out, loss = ops.sspcab(*inputs, dilation, relu, True, allow_tf32, config)[:2]
    return _named(out, loss, torch.autograd.grad([out, loss], inputs, [grad_out, grad_loss]))


def _named(out: Tensor, loss: Tensor, gradients: Sequence[Tensor]) -> dict[str, Tensor]:
    names = [f"grad_{name}" for name in NAMES]
    return {"out": out.detach(), "loss": loss.detach(), **dict(zip(names, gradients, strict=True))}


def double(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]
