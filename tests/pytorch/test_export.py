"""torch.export: dynamic sizes, files, ahead-of-time compilation, programs without our operators."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import sspcab_cuda
from sspcab_cuda import functional, ops

from ..helpers.cases import Case, arguments
from ..helpers.tolerances import assert_equal

SIZES = [(2, 6, 8, 9), (3, 6, 12, 7), (1, 6, 6, 20)]
DYNAMIC = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}


class Everything(nn.Module):
    """Every operator that a program can have."""

    def __init__(self) -> None:
        super().__init__()
        self.block = sspcab_cuda.SSPCAB(6, 2, reduction_ratio=2)
        self.plain = sspcab_cuda.SSPCAB(6, reduction_ratio=2, variant="anomalib")
        self.convolution = sspcab_cuda.MaskedConv2d(6)
        self.excitation = sspcab_cuda.SELayer(6, 2)
        for gate in (self.block.se, self.plain.se, self.excitation):
            nn.init.ones_(gate.fc1.bias)  # no hidden unit is idle: every parameter has a gradient

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, loss = self.block(x, return_loss=True)
        y = self.excitation(self.convolution(x))
        return self.plain(out), loss, functional.reconstruction_loss(y, x)


def exported(model: nn.Module, device: str, layout: torch.memory_format) -> ExportedProgram:
    example = torch.randn(SIZES[0], device=device).contiguous(memory_format=layout)
    return torch.export.export(model, (example,), dynamic_shapes=(DYNAMIC,))


def operators(program: ExportedProgram) -> set[str]:
    """Ours in a program."""
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    return {name for name in names if name.startswith("sspcab")}


def images(device: str, layout: torch.memory_format = torch.contiguous_format) -> list[Tensor]:
    return [torch.randn(n, device=device).contiguous(memory_format=layout) for n in SIZES]


def saved_and_loaded(program: ExportedProgram) -> ExportedProgram:
    stream = io.BytesIO()
    torch.export.save(program, stream)
    stream.seek(0)
    return torch.export.load(stream)


# torch 2.10 says so when it reads a program's file.
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("with_grad", [False, True])
def test_sizes_and_files(with_grad: bool, layout: torch.memory_format, device: str) -> None:
    model = Everything().to(device).eval()
    with torch.set_grad_enabled(with_grad):
        program = saved_and_loaded(exported(model, device, layout))
        assert len(operators(program)) == 4
        for x in images(device, layout):
            results = program.module()(x)
            for result, expected in zip(results, model(x), strict=True):
                assert_equal(result.detach(), expected.detach())
                assert result.stride() == expected.stride()


def test_training_of_a_program(device: str) -> None:
    model = Everything().to(device)
    program = exported(model, device, torch.contiguous_format).module()
    x = torch.randn(SIZES[1], device=device)
    for function in (model, program):
        sum(part.square().mean() for part in function(x)).backward()
    ours = dict(program.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any()
        torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=0, atol=0)


@pytest.mark.parametrize("with_grad", [False, True])
def test_decompositions(with_grad: bool) -> None:
    model = Everything().eval()
    with torch.set_grad_enabled(with_grad):
        program = exported(model, "cpu", torch.contiguous_format)
    program = program.run_decompositions(sspcab_cuda.decompositions())
    assert not operators(program)
    for x in images("cpu"):
        for result, expected in zip(program.module()(x), model(x), strict=True):
            torch.testing.assert_close(result, expected)


def test_every_forward_operator_has_a_decomposition() -> None:
    schemas = {schema.name for schema in torch._C._jit_get_all_schemas()}
    forward = {n for n in schemas if n.startswith("sspcab::") and not n.endswith("_backward")}
    assert {operator.name() for operator in sspcab_cuda.decompositions()} == forward


CASE = Case(2, 6, 5, 7, 2, 1, 2)
CALLS: list[tuple[Any, Callable[[list[Tensor]], tuple[Any, ...]]]] = [
    (ops.masked_conv2d, lambda tensors: (*tensors[:9], 1, True)),
    (ops.masked_conv2d, lambda tensors: (*tensors[:9], 0, False, True, -1)),
    (ops.squeeze_excite, lambda tensors: (tensors[0], *tensors[9:])),
    (ops.reconstruction_loss, lambda tensors: (tensors[0].sin(), tensors[0])),
    (ops.sspcab, lambda tensors: (*tensors, 1, True, True)),
    (ops.sspcab, lambda tensors: (*tensors, 2, False, False, False)),
    (ops.sspcab_inference, lambda tensors: (*tensors, 1, False, True, True, -1)),
]


@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float16", "float32"),
                                    ("bfloat16", "bfloat16"), ("float64", "float64")])  # fmt: skip
@pytest.mark.parametrize(("operator", "call"), CALLS, ids=[str(o) for o, _ in CALLS])
def test_every_result_of_an_operator(
    operator: Any, call: Callable[..., Any], dtypes: tuple[str, str], device: str
) -> None:
    """What is kept for backward, too, and dtypes."""
    x, parameters = (getattr(torch, name) for name in dtypes)
    inputs = call(arguments(CASE, x, device, parameters=parameters))
    expected = operator(*inputs)
    tolerance = 2e-2 if x.itemsize == 2 else None
    torch.testing.assert_close(
        sspcab_cuda.decompositions()[operator](*inputs),
        expected,
        rtol=tolerance,
        atol=tolerance,
        equal_nan=True,
    )


def test_compiled_ahead_of_time(tmp_path: Path) -> None:
    """To a file, with dynamic sizes, between operations that the compiler fuses."""

    class Surrounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = sspcab_cuda.SSPCAB(6, 2, reduction_ratio=2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            out, loss = self.block(2 * x, return_loss=True)
            return out + x, loss

    model = Surrounded().eval()
    with torch.no_grad():
        program = exported(model, "cpu", torch.channels_last)
        package = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "model.pt2")
        )
        run = torch._inductor.aoti_load_package(package)
        for x in images("cpu", torch.channels_last):
            for result, expected in zip(run(x), model(x), strict=True):
                torch.testing.assert_close(result, expected)
