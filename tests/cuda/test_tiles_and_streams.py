"""What only CUDA has: tiles that can be forced, TF32, streams, graphs."""

from __future__ import annotations

import copy
import functools
import re
from typing import Any

import pytest
import torch
from torch import Tensor

import sspcab_cuda
from sspcab_cuda import functional, ops, reference
from sspcab_cuda._extension import _C

from ..helpers.cases import (
    DTYPES,
    HALVES,
    NAMES,
    SMALL,
    Case,
    arguments,
    block,
    convolution,
    double,
    exact_convolution,
    forced,
    forward_backward,
    leaves,
    output_gradients,
)
from ..helpers.tolerances import assert_accurate, assert_equal, relative_error

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not sspcab_cuda.build_info()["cuda"] or not torch.cuda.is_available(),
        reason="needs a CUDA device and a build with CUDA",
    ),
]

PLAIN = 3
CONFIGS = (0, 1, 2, PLAIN)

# More than one tile in both directions, tiles that reach over samples and beyond the last pixel,
# channels that fill neither a tile nor a step.
TILED = (Case(3, 72, 5, 11), Case(2, 136, 7, 9), Case(2, 24, 6, 5, 3, 1), Case(5, 16, 4, 4, 2, 0))

ARITHMETICS = (*HALVES, "tf32", torch.float32, torch.float64)


def arithmetic(dtype: torch.dtype | str) -> tuple[torch.dtype, bool]:
    """What tensors have, and whether TF32 is allowed."""
    return (torch.float32, True) if isinstance(dtype, str) else (dtype, False)


def capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def configs() -> tuple[int, ...]:
    return CONFIGS if capability() >= 80 else (PLAIN,)


def results(
    case: Case, dtype: torch.dtype, config: int, allow_tf32: bool = False, layout: str = "nchw"
) -> dict[str, Tensor]:
    """As forward_backward, with the tiles forced."""
    tensors = arguments(case, dtype, "cuda")
    if layout == "channels_last":
        tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
    grads = output_gradients(case, dtype, "cuda")
    return forced(tensors, case.dilation, *grads, config, allow_tf32)


@functools.cache
def expected(case: Case, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The eager reference's in this dtype, and the truth."""
    tensors, grads = arguments(case, dtype), output_gradients(case, dtype)
    eager = forward_backward(reference, tensors, case.dilation, *grads)
    truth = forward_backward(reference, double(tensors), case.dilation, *double(grads))
    return eager, truth


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", TILED, ids=str)
def test_every_config(case: Case, dtype: torch.dtype, layout: str) -> None:
    eager, truth = expected(case, dtype)
    for config in configs():
        ours = {k: t.cpu() for k, t in results(case, dtype, config, layout=layout).items()}
        # one seed: errors as if of one tensor, with twice the allowance of one rounding
        for name, result in ours.items():
            limit = 4 * relative_error(eager[name], truth[name]) + 8 * torch.finfo(dtype).eps
            assert relative_error(result, truth[name]) <= limit, (config, name)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("case", TILED, ids=str)
def test_tf32(case: Case, layout: str) -> None:
    """Gradients without ReLU: whether it lets a value near 0 pass may differ in any precision."""
    _, truth = expected(case, torch.float32)
    tensors, grad = arguments(case), output_gradients(case, torch.float32)[0]
    inputs = leaves(double(tensors[:9]))
    y = convolution(reference, inputs, case.dilation, "none")
    true_gradients = torch.autograd.grad(y, inputs, grad.double())
    for config in configs():
        ours = results(case, torch.float32, config, True, layout)
        for name in ("out", "loss"):
            assert relative_error(ours[name].cpu(), truth[name]) <= 2e-3, (config, name)
        on_device = leaves([t.cuda() for t in tensors[:9]])
        y = ops.masked_conv2d(*on_device, case.dilation, False, True, config)
        gradients = torch.autograd.grad(y, on_device, grad.cuda())
        for name, result, true in zip(NAMES, gradients, true_gradients, strict=False):
            assert relative_error(result.cpu(), true) <= 2e-3, (config, name)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("operand", ["x", "weights", "grad"])
def test_tf32_rounds_to_nearest(operand: str, layout: str) -> None:
    """Tensor cores cut bits off: of numbers in 1..2 the sums would be 3e-4 too small."""
    x, weight, grad = torch.ones(1, 64, 24, 24), torch.ones(4, 64, 64, 1, 1), torch.ones(())
    grad = grad.expand_as(x).clone()
    varied = {"x": x, "weights": weight, "grad": grad}[operand]
    varied += torch.rand_like(varied)
    inputs = leaves(double([x, *weight, *torch.zeros(4, 64)]))
    true_y = convolution(reference, inputs, 1, "none")
    true = [true_y, *torch.autograd.grad(true_y, inputs[:5], grad.double())]
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    on_device = leaves(
        [x.cuda().contiguous(memory_format=memory_format)]
        + [t.float().detach().cuda() for t in inputs[1:]]
    )
    for config in configs():
        y = ops.masked_conv2d(*on_device, 1, False, True, config)
        ours = [y, *torch.autograd.grad(y, on_device[:5], grad.cuda())]
        for name, result, truth in zip(("y", *NAMES), ours, true, strict=False):
            error = result.double().sum().cpu() / truth.sum() - 1
            assert abs(error) <= 3e-5, (config, name)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("operand", ["x", "weights", "grad"])
def test_tf32_rounds_ties_alike(operand: str, layout: str) -> None:
    """By whatever an operand is rounded, to even from 9.0 on, before away from zero: bit for bit,
    as all sums of rounded ones are exact."""
    to_even = torch.cuda.get_device_capability() >= (9, 0)
    values, grad, _ = exact_convolution(Case(1, 64, 8, 8), torch.float32, "cuda", layout)
    for varied in {"x": values[:1], "weights": values[1:5], "grad": [grad]}[operand]:
        varied += varied.sign() * torch.randint(1024, varied.shape, device="cuda") / 1024
        varied += varied.sign() / 2048  # half a unit in the last place of what is from 1 to 2
    scaled = [t.double() * 1024 for t in (*values, grad)]
    rounded = [
        (t.round() if to_even else t.sign() * (t.abs() + 0.5).floor()) / 1024 for t in scaled
    ]
    inputs = leaves(rounded[:-1])
    true = convolution(reference, inputs, 1, "none")
    truth = [true, *torch.autograd.grad(true, inputs[:5], rounded[-1])]
    on_device = leaves(values)
    for config in configs()[:-1]:  # plain kernels don't round
        y = ops.masked_conv2d(*on_device, 1, False, True, config)
        ours = [y, *torch.autograd.grad(y, on_device[:5], grad)]
        for result, expected_result in zip(ours, truth, strict=True):
            assert_equal(result.detach(), expected_result.detach().float())


@pytest.mark.parametrize("dtype", ARITHMETICS, ids=str)
@pytest.mark.parametrize("case", TILED, ids=str)
def test_integers_are_exact(case: Case, dtype: torch.dtype | str) -> None:
    """Forward and gradients, bit for bit: every product and sum is a small integer."""
    element, allow_tf32 = arithmetic(dtype)
    values, grad, truth = exact_convolution(case, element, "cuda")
    for config in configs():
        inputs = leaves(values)
        y = ops.masked_conv2d(*inputs, case.dilation, False, allow_tf32, config)
        for ours, true in zip([y, *torch.autograd.grad(y, inputs, grad)], truth, strict=True):
            assert_equal(ours.detach(), true)


@pytest.mark.parametrize("dtype", ARITHMETICS, ids=str)
@pytest.mark.parametrize("case", TILED, ids=str)
def test_gradients_apart(case: Case, dtype: torch.dtype | str) -> None:
    """Those of x and of the weights share a launch where both are needed: the same bits."""
    element, allow_tf32 = arithmetic(dtype)
    tensors = arguments(case, element, "cuda")
    grads = output_gradients(case, element, "cuda")
    for config in configs():
        together = forced(tensors, case.dilation, *grads, config, allow_tf32)
        for names in (NAMES[:1], NAMES[1:5]):
            inputs = [t.detach() for t in tensors]
            wanted = [inputs[NAMES.index(name)].requires_grad_() for name in names]
            out, loss = ops.sspcab(*inputs, case.dilation, True, True, allow_tf32, config)[:2]
            gradients = torch.autograd.grad([out, loss], wanted, grads)
            for name, gradient in zip(names, gradients, strict=True):
                assert_equal(gradient, together[f"grad_{name}"])


def test_tf32_follows_the_setting_of_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    operator = ops.sspcab_inference

    def record(*args: Any) -> Any:
        calls.append(args)
        return operator(*args)

    monkeypatch.setattr(ops, "sspcab_inference", record)
    tensors = arguments(SMALL, device="cuda")
    for allowed in (True, False):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        block(functional, tensors, 1)
    assert [args[16:] for args in calls] == [(True,), ()]


@pytest.mark.parametrize("config", [-2, 4])
def test_unknown_config(config: int) -> None:
    tensors = arguments(SMALL, device="cuda")
    text = f"config must be -1 (automatic), 0 to 2 (tiles) or 3 (plain kernels); got {config}"
    with pytest.raises(RuntimeError, match=re.escape(text)):
        ops.sspcab_inference(*tensors, 1, True, True, False, config)


def test_config_that_the_channels_do_not_fit() -> None:
    tensors = arguments(Case(1, 5, 4, 4), torch.float16, "cuda")
    text = r"config 1 needs compute capability 8\.0 .* channels .*; got x of \(1, 5, 4, 4\)"
    with pytest.raises(RuntimeError, match=text):
        ops.sspcab_inference(*tensors, 1, True, True, False, 1)


@pytest.mark.parametrize("dilation", [2**27 - 2, 2**27 - 1, 2**63 - 1])
def test_distances_beyond_32_bits(dilation: int) -> None:
    """The farthest that tiles take in an image 8 pixels wide; one more; the farthest of all."""
    shape = 2, 16, 9, 8
    assert _C.cuda_plan(shape, "float16", dilation=dilation)["tiled"] == (dilation < 2**27 - 1)
    tensors = leaves(arguments(Case(*shape), torch.float16, "cuda")[:9])
    y = ops.masked_conv2d(*tensors, dilation, True, False, -1)
    gradients = torch.autograd.grad(y.sum(), tensors[:5])
    bias = torch.stack([t.float() for t in tensors[5:]]).sum(0)
    torch.testing.assert_close(
        y.float(), bias.relu()[:, None, None].expand(shape), rtol=1e-3, atol=0
    )
    assert not any(gradient.any() for gradient in gradients)


def test_side_stream() -> None:
    expected_results = results(SMALL, torch.float32, -1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ours = results(SMALL, torch.float32, -1)
    torch.cuda.current_stream().wait_stream(stream)
    for name, result in ours.items():
        assert_equal(result, expected_results[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_captured_by_a_graph(dtype: torch.dtype) -> None:
    model = sspcab_cuda.SSPCAB(16).to("cuda", dtype)
    x = torch.randn(2, 16, 8, 8, device="cuda", dtype=dtype)

    def step() -> tuple[Tensor, Tensor]:
        out, loss = model(x, return_loss=True)
        (out.float().square().mean() + 0.1 * loss).backward()
        return out, loss

    def gradients() -> list[Tensor]:
        return [p.grad for p in model.parameters() if p.grad is not None]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
        model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        captured = step()
    of_graph = [*(t.detach() for t in captured), *gradients()]
    x.copy_(torch.randn_like(x))
    graph.replay()
    replayed = [t.clone() for t in of_graph]
    model.zero_grad(set_to_none=True)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        again = [*(t.detach() for t in step()), *gradients()]
    torch.cuda.current_stream().wait_stream(stream)
    assert len(again) == 14
    for ours, true in zip(replayed, again, strict=True):
        assert_equal(ours, true)


# PyTorch warns of the side stream on which its own helper makes the graphs.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_graphed_callable(dtype: torch.dtype) -> None:
    """Graphs of forward and backward, replayed for other images, beside an eager copy."""

    class WithLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = sspcab_cuda.SSPCAB(16, reduction_ratio=4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            out, loss = self.block(x, return_loss=True)
            return out, loss

    model = WithLoss().to("cuda", dtype)
    eager = copy.deepcopy(model)
    example = torch.randn(2, 16, 8, 8, device="cuda", dtype=dtype, requires_grad=True)
    graphed = torch.cuda.make_graphed_callables(model, (example,))

    def step(function: Any, module: torch.nn.Module, image: Tensor) -> list[Tensor]:
        module.zero_grad()
        x = image.clone().requires_grad_()
        out, loss = function(x)
        (out.float().square().mean() + 0.1 * loss).backward()
        gradients = [t.grad.clone() for t in (x, *module.parameters()) if t.grad is not None]
        return [out.detach().clone(), loss.detach().clone(), *gradients]

    for _ in range(2):
        image = torch.randn_like(example)
        ours, expected = step(graphed, model, image), step(eager, eager, image)
        assert len(ours) == 15
        for result, truth in zip(ours, expected, strict=True):
            assert_equal(result, truth)


def test_memory_that_begins_between_borders_of_16_bytes() -> None:
    tensors = arguments(SMALL, torch.float16, "cuda")
    expected_out = block(functional, tensors, 1)[0]
    moved = torch.empty(tensors[0].numel() + 1, dtype=torch.float16, device="cuda")[1:]
    tensors[0] = moved.view(tensors[0].shape).copy_(tensors[0])
    assert tensors[0].is_contiguous() and tensors[0].data_ptr() % 16
    assert_equal(block(functional, tensors, 1)[0], expected_out)


def test_training_with_a_gradient_scaler() -> None:
    model = sspcab_cuda.SSPCAB(16).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cuda")
    x = torch.rand(2, 16, 8, 8, device="cuda")
    losses = []
    for _ in range(10):
        with torch.autocast("cuda", dtype=torch.float16):
            _, loss = model(x, return_loss=True)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and all(p.isfinite().all() for p in model.parameters())


def test_accurate_with_the_tiles_that_are_chosen() -> None:
    case = Case(2, 64, 12, 12)
    eager, truth = expected(case, torch.float16)
    ours = {k: t.cpu() for k, t in results(case, torch.float16, -1).items()}
    assert_accurate(torch.float16, [(ours, eager, truth)])
