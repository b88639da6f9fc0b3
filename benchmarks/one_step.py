"""``python -m benchmarks.one_step``: one training step of the block on CUDA, for tools that count.

Both outputs have gradients, and all parameters and the input need theirs. float32 is TF32 where
PyTorch's convolutions use it, which is its default; with ``--config`` it is exact.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch

import sspcab_cuda
from sspcab_cuda import ops

from .rivals import allow_tf32

DTYPES = ("float16", "bfloat16", "tf32", "float32", "float64")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_step")
    parser.add_argument("--shape", type=int, nargs=4, required=True, metavar=("N", "C", "H", "W"))
    parser.add_argument("--kernel-dim", type=int, default=1)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--layout", choices=("nchw", "channels_last"), default="channels_last")
    config_help = "tiles from large (0) to small, 3: plain kernels; unset: chosen by size"
    parser.add_argument("--config", type=int, choices=range(4), help=config_help)
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    dtype = torch.float32 if args.dtype == "tf32" else getattr(torch, args.dtype)
    block = sspcab_cuda.SSPCAB(args.shape[1], args.kernel_dim).to("cuda", dtype)
    x = torch.randn(args.shape).to("cuda", dtype)
    if args.layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    if args.config is None:
        if args.dtype == "tf32":
            allow_tf32(True)
        out, loss = block(x, return_loss=True)
    else:
        out, loss = forced(block, x, args.dtype == "tf32", args.config)
    torch.autograd.backward([out, loss], [torch.ones_like(out), torch.ones_like(loss)])
    return 0


def forced(
    block: sspcab_cuda.SSPCAB, x: torch.Tensor, tf32: bool, config: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and loss of a block by its operator, which takes the configuration of tiles."""
    out, loss, *_ = ops.sspcab(x, *_operands(block), block.dilation, True, True, tf32, config)
    return out, loss


def convolutions_alone(
    block: sspcab_cuda.SSPCAB,
    x: torch.Tensor,
    grads: tuple[torch.Tensor, torch.Tensor],
    tf32: bool,
    config: int,
) -> Callable[[], None]:
    """A call of the forward pass, of the gradients of x and of the sub-kernels each in a launch of
    its own, and of both in one, with a configuration of tiles.

    By the operators of the whole block: there the gradient of x has that of the loss added.
    """
    parameters = [parameter.detach() for parameter in _operands(block)]
    weights, (fc1_weight, _, fc2_weight, _) = parameters[:4], parameters[8:]
    rest = block.dilation, True

    def forward() -> tuple[torch.Tensor, ...]:
        return ops.sspcab(x, *parameters, *rest, True, tf32, config)

    _, _, *saved = forward()

    def backward(of_x: bool, of_weights: bool) -> None:
        needs = [of_x, *[of_weights] * 4, *[False] * 5]
        ops.sspcab_backward(
            *grads, x, *saved, weights, fc1_weight, fc2_weight, *rest, needs, tf32, config
        )

    def call() -> None:
        forward()
        backward(of_x=True, of_weights=False)
        backward(of_x=False, of_weights=True)
        backward(of_x=True, of_weights=True)

    return call


def _operands(block: sspcab_cuda.SSPCAB) -> list[torch.Tensor]:
    """The parameters in the order of the operators: four weights, four biases, those of the SE."""
    named = dict(block.named_parameters())
    convolutions = [f"conv{i}.{kind}" for kind in ("weight", "bias") for i in (1, 2, 3, 4)]
    dense = [f"se.fc{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")]
    return [named[name] for name in (*convolutions, *dense)]


if __name__ == "__main__":
    raise SystemExit(main())
