"""``python -m tests.scripts.random_problems``: every operator on problems that hypothesis draws,
forward and backward, for whatever watches over memory or threads meanwhile.

A problem is printed before it runs: the last line names the one that has ended the process.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import hypothesis
import torch
from hypothesis import strategies as st
from torch import Tensor

import sspcab_cuda
from sspcab_cuda import ops

from ..helpers.cases import DTYPES, HALVES, LAYOUTS, Case, arguments, leaves, output_gradients


def _slice(x: Tensor, memory_format: torch.memory_format, last: bool) -> Tensor:
    """x as the last or the first slice of a bigger tensor, which is NaN elsewhere."""
    n, c, h, w = x.shape
    bigger = x.new_full((n + 1, c + 3, h + 2, w + 5), torch.nan).contiguous(
        memory_format=memory_format
    )
    return (bigger[1:, 3:, 2:, 5:] if last else bigger[:n, :c, :h, :w]).copy_(x)


IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    **LAYOUTS,
    "first": lambda x: _slice(x, torch.contiguous_format, last=False),
    "last": lambda x: _slice(x, torch.contiguous_format, last=True),
    "channels_last_first": lambda x: _slice(x, torch.channels_last, last=False),
    "channels_last_last": lambda x: _slice(x, torch.channels_last, last=True),
}
# Least and most samples, channels, height, width, kernel_dim. In the last, all stages have several
# threads, and samples are worked off in groups.
SIZES = (
    *[((1, 3), (1, 72), (1, 20), (1, 36), (1, 3))] * 3,
    *[((1, 3), (1, 18), (1, 20), (1, 36), (1, 7))] * 2,
    ((3, 6), (3, 6), (100, 160), (200, 300), (1, 2)),
)
SUB_KERNELS = ("contiguous", "channels_last", "last")


@dataclass(frozen=True)
class Problem:
    case: Case
    dtype: torch.dtype
    parameters: torch.dtype
    layout: str
    layout_of_grad: str
    layout_of_weights: str
    config: int
    relu: bool
    needs: tuple[bool, ...]  # a gradient, in the order of cases.NAMES


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    bounds = draw(st.sampled_from(SIZES))
    n, channels, height, width, kernel_dim = (draw(st.integers(*bound)) for bound in bounds)
    dilation, reduction_ratio = draw(st.integers(0, 3)), draw(st.sampled_from([1, 2, 3, 8, 16]))
    case = Case(n, channels, height, width, kernel_dim, dilation, reduction_ratio)
    dtype = draw(st.sampled_from(DTYPES))
    return Problem(
        case,
        dtype,
        draw(st.sampled_from([dtype, torch.float32])) if dtype in HALVES else dtype,
        draw(st.sampled_from(["contiguous", "channels_last", *IMAGES])),
        draw(st.sampled_from(list(IMAGES))),
        draw(st.sampled_from(SUB_KERNELS)),
        draw(st.integers(-1, 2)),
        draw(st.booleans()),
        draw(st.just((True,) * 13) | st.tuples(*[st.booleans()] * 13)),
    )


def _forward_backward(
    operator: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    needs: Sequence[bool],
    options: Sequence[object],
    grads: Sequence[Tensor],
) -> list[Tensor]:
    """The results, and the gradients of the inputs that want one."""
    inputs = leaves(inputs)
    for tensor, needed in zip(inputs, needs, strict=True):
        tensor.requires_grad_(needed)
    results = operator(*inputs, *options)
    results = (results,) if isinstance(results, Tensor) else results
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    if not wanted:
        return [*results]
    return [*results, *torch.autograd.grad(results[: len(grads)], wanted, grads)]


def run(problem: Problem, tensors: Sequence[Tensor], grads: tuple[Tensor, Tensor]) -> None:
    """Every operator. Only memory that nothing was written to makes NaN of them."""
    needs, (grad_out, grad_loss) = problem.needs, grads
    x, excitation = tensors[0], [tensors[0], *tensors[9:]]
    kernels = (False, problem.config)
    dilation, relu = problem.case.dilation, problem.relu
    images, of_images = [x, grad_out], [needs[0], needs[1]]
    results = [
        *_forward_backward(ops.sspcab, tensors, needs, (dilation, relu, True, *kernels), grads),
        *ops.sspcab_inference(*tensors, dilation, relu, True, *kernels),
        *_forward_backward(
            ops.masked_conv2d, tensors[:9], needs[:9], (dilation, relu, *kernels), grads[:1]
        ),
        *_forward_backward(ops.squeeze_excite, excitation, [needs[0], *needs[9:]], (), grads[:1]),
        *_forward_backward(ops.reconstruction_loss, images, of_images, (), (grad_loss,)),
    ]
    for result in results:
        assert not result.isnan().any()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="run every problem at once")
    parser.add_argument("--guarded", help="library of guarded_memory.cpp: run on both its sides")
    options = parser.parse_args()
    guard = ctypes.CDLL(options.guarded).guard_tensors if options.guarded else None
    print("kernels:", sspcab_cuda.build_info()["cpu_capability"])
    pool = ThreadPoolExecutor(options.threads)

    @hypothesis.seed(options.seed)
    @hypothesis.settings(
        max_examples=options.problems,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(problems())
    def check(problem: Problem) -> None:
        for side in ("end", "begin") if guard else ("",):
            print(problem, side, flush=True)
            if guard:
                guard(side == "end")
            tensors = arguments(problem.case, problem.dtype, parameters=problem.parameters)
            grad_out, grad_loss = output_gradients(problem.case, problem.dtype)
            tensors[0] = IMAGES[problem.layout](tensors[0])
            tensors[1:5] = [IMAGES[problem.layout_of_weights](t) for t in tensors[1:5]]
            grads = IMAGES[problem.layout_of_grad](grad_out), grad_loss
            runs = [pool.submit(run, problem, tensors, grads) for _ in range(options.threads)]
            for each in runs:
                each.result()

    check()


if __name__ == "__main__":
    main()
