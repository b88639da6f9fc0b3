"""Groups of samples that stay in the cache: a pure function of sizes, and results that don't depend
on it beyond the order of sums."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

import sspcab_cuda
from sspcab_cuda import ops
from sspcab_cuda._extension import _C

from ..helpers.cases import DTYPES, NAMES, Case, arguments, forced, output_gradients
from ..helpers.tolerances import relative_error

needs_build = pytest.mark.skipif(
    not sspcab_cuda.build_info()["cuda"], reason="needs a build with CUDA"
)
MIB = 1 << 20
WITHOUT_END = 1 << 60
# Images beyond a cache take seconds: bfloat16 stands for the others.
TYPES = [
    dtype if dtype == torch.bfloat16 else pytest.param(dtype, marks=pytest.mark.slow)
    for dtype in DTYPES
]


@needs_build
def test_as_many_samples_as_half_the_cache_has_images_for() -> None:
    """bf16 samples of 8 MiB: x and y in the forward pass, two more images in the backward pass."""
    shape = 16, 64, 256, 256
    for cache, forward, backward in (
        (50, [1] * 16, [1] * 16),
        (64, [2] * 8, [1] * 16),
        (128, [4] * 4, [2] * 8),
        (96, [3, 2, 3, 3, 2, 3], [1] * 16),
        (256, [16], [4] * 4),
        (512, [16], [16]),
    ):
        plan = _C.cuda_plan(shape, "bfloat16", cache_bytes=cache * MIB)
        assert (sorted(plan["forward_groups"]), plan["backward_groups"]) == (
            sorted(forward),
            backward,
        )


@needs_build
@pytest.mark.parametrize("samples", [1, 2, 3, 7, 12, 100])
def test_sizes_are_even_and_fill_the_processors(samples: int) -> None:
    """A sample of 64 x 64 pixels is 262144 elements: 4 of them are 8192 for each of 108 processors,
    however small the cache."""
    plan = _C.cuda_plan((samples, 64, 64, 64), "float32", cache_bytes=MIB)
    for groups in (plan["forward_groups"], plan["backward_groups"]):
        assert sum(groups) == samples and max(groups) - min(groups) <= 1
        assert min(groups) >= min(samples, 4) and max(groups) <= max(7, min(samples, 7))


@needs_build
def test_every_group_has_its_launches() -> None:
    """Weights are packed once, parameters' gradients finished once."""
    options = {"kernel_dim": 3, "channels_last": True}
    whole = _C.cuda_plan((8, 64, 256, 256), "float16", cache_bytes=WITHOUT_END, **options)
    parts = _C.cuda_plan((8, 64, 256, 256), "float16", **options)
    assert whole["forward_launches"] == ["pack", "convolution", "gate", "scale"]
    assert parts["forward_launches"] == ["pack", *["convolution", "gate", "scale"] * 8]
    *stages, last = whole["backward_launches"]
    assert parts["backward_launches"] == [*stages * 8, last]
    parts = _C.cuda_plan((8, 64, 256, 256), "float16", channels_last=False)
    assert parts["forward_launches"] == ["pack", "convolution", "gate", "scale"] * 8


def _more_than_the_cache(dtype: torch.dtype, samples: int = 3, channels: int = 32) -> Case:
    """An image that takes several groups, of samples that fill the processors."""
    device = torch.cuda.get_device_properties(0)
    bytes_of_sample = max(
        device.L2_cache_size // 6 + 1,
        device.multi_processor_count * 8192 * dtype.itemsize,
    )
    pixels = -(-bytes_of_sample // (channels * dtype.itemsize))
    return Case(samples, channels, -(-pixels // 250), 250)


def _groups(case: Case, dtype: torch.dtype) -> tuple[list[int], list[int]]:
    device = torch.cuda.get_device_properties(0)
    plan = _C.cuda_plan(
        case.shape,
        str(dtype).removeprefix("torch."),
        processors=device.multi_processor_count,
        cache_bytes=device.L2_cache_size,
    )
    return plan["forward_groups"], plan["backward_groups"]


@functools.cache
def _sample_by_sample(case: Case, dtype: torch.dtype, layout: str) -> dict[str, Tensor]:
    """Of calls with one sample each: what groups must agree with."""
    return _one_by_one(_inputs(case, dtype, layout), *_gradients(case, dtype), case)


def _inputs(case: Case, dtype: torch.dtype, layout: str) -> list[Tensor]:
    tensors = arguments(case, dtype, "cuda")
    if layout == "channels_last":
        tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
    return tensors


def _gradients(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Those of the bias are sums over so many pixels that float16 couldn't hold them."""
    grad_out, grad_loss = output_gradients(case, dtype, "cuda")
    return grad_out / 16, grad_loss / 16


def _one_by_one(
    tensors: list[Tensor], grad_out: Tensor, grad_loss: Tensor, case: Case
) -> dict[str, Tensor]:
    parts = [
        forced(
            [tensors[0][n : n + 1], *tensors[1:]],
            case.dilation,
            grad_out[n : n + 1],
            grad_loss / case.n,
            -1,
        )
        for n in range(case.n)
    ]
    together = {}
    for name in parts[0]:
        of_samples = [part[name].double() for part in parts]
        if name in ("out", "grad_x"):
            together[name] = torch.cat(of_samples)
        else:
            together[name] = torch.stack(of_samples).sum(0) / (case.n if name == "loss" else 1)
    return together


@pytest.mark.cuda
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_groups_agree_with_single_samples(dtype: torch.dtype, layout: str) -> None:
    case = _more_than_the_cache(dtype)
    forward, backward = _groups(case, dtype)
    assert len(forward) > 1 and len(backward) > 1
    ours = forced(_inputs(case, dtype, layout), case.dilation, *_gradients(case, dtype), -1)
    truth = _sample_by_sample(case, dtype, layout)
    for name in ("out", "loss", *(f"grad_{name}" for name in NAMES)):
        # Of parameters' gradients, three parts are rounded to the type before they are added up.
        assert relative_error(ours[name], truth[name]) <= 4 * torch.finfo(dtype).eps, name


@pytest.mark.cuda
def test_inference_and_the_convolution_alone() -> None:
    dtype = torch.float16
    case = _more_than_the_cache(dtype)
    tensors = _inputs(case, dtype, "channels_last")
    trained = ops.sspcab(*tensors, case.dilation, True, True, False, -1)
    for ours, true in zip(ops.sspcab_inference(*tensors, 1, True, True), trained, strict=False):
        assert torch.equal(ours, true)
    inputs = [t.detach().requires_grad_() for t in tensors[:9]]
    y = ops.masked_conv2d(*inputs, 1, True, False, -1)
    grad = _gradients(case, dtype)[0]
    gradients = torch.autograd.grad(y, inputs, grad)
    summed = [torch.zeros_like(t, dtype=torch.float64) for t in inputs[1:]]
    for n in range(case.n):
        one = [t.detach().requires_grad_() for t in (tensors[0][n : n + 1], *tensors[1:9])]
        y = ops.masked_conv2d(*one, 1, True, False, -1)
        grad_x, *of_sample = torch.autograd.grad(y, one, grad[n : n + 1])
        assert torch.equal(grad_x, gradients[0][n : n + 1])
        for total, part in zip(summed, of_sample, strict=True):
            total += part
    for ours, true in zip(gradients[1:], summed, strict=True):
        assert relative_error(ours, true) <= 4 * torch.finfo(dtype).eps


@pytest.mark.cuda
def test_scratch_memory_is_that_of_one_group() -> None:
    """grad_a beside the results: that of all samples would be as large as grad_x."""
    dtype = torch.float16
    case = _more_than_the_cache(dtype)
    tensors = [t.requires_grad_() for t in _inputs(case, dtype, "channels_last")]
    y = ops.masked_conv2d(*tensors[:9], 1, True, False, -1)
    grad = torch.zeros_like(y)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    if before == 0:
        pytest.skip("needs an allocator with statistics")
    torch.autograd.grad(y, tensors[0], grad)
    peak = torch.cuda.max_memory_allocated() - before
    image = tensors[0].numel() * dtype.itemsize
    assert image < peak < 1.5 * image


@pytest.mark.cuda
def test_groups_captured_by_a_graph() -> None:
    dtype = torch.float16
    case = _more_than_the_cache(dtype)
    tensors = _inputs(case, dtype, "channels_last")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.sspcab_inference(*tensors, 1, True, True)
    tensors[0].copy_(tensors[0].flip(0))
    graph.replay()
    for ours, true in zip(captured, ops.sspcab_inference(*tensors, 1, True, True), strict=True):
        assert torch.equal(ours, true)
