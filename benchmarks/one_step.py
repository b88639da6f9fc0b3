"""``python -m benchmarks.one_step``: one training step of the block on CUDA, for tools that count.

Both outputs have gradients, and all parameters and the input need theirs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

import sspcab_cuda


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_step")
    parser.add_argument("--shape", type=int, nargs=4, required=True, metavar=("N", "C", "H", "W"))
    parser.add_argument("--kernel-dim", type=int, default=1)
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--layout", choices=("nchw", "channels_last"), default="channels_last")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    options = {"device": "cuda", "dtype": getattr(torch, args.dtype)}
    block = sspcab_cuda.SSPCAB(args.shape[1], args.kernel_dim).to(**options)
    x = torch.randn(args.shape).to(**options)
    if args.layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    out, loss = block(x.requires_grad_(), return_loss=True)
    torch.autograd.backward([out, loss], [torch.ones_like(out), torch.ones_like(loss)])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
