"""ONNX models, run by onnxruntime, which knows no operator of ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import sspcab_cuda

from .test_export import DYNAMIC, SIZES, Everything, exported, images


def by_plain_export(model: nn.Module, path: str) -> None:
    torch.onnx.export(
        model,
        (torch.randn(SIZES[0]),),
        path,
        dynamo=True,
        dynamic_shapes=(DYNAMIC,),
        verbose=False,
    )


def by_torchscript(model: nn.Module, path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.randn(SIZES[0]),),
            path,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": [0, 2, 3]},
        )


def from_a_program(model: nn.Module, path: str) -> None:
    program = exported(model, "cpu", torch.contiguous_format)
    program = program.run_decompositions(sspcab_cuda.decompositions())
    torch.onnx.export(program, f=path, verbose=False)


@pytest.mark.parametrize("export", [by_plain_export, by_torchscript, from_a_program])
def test_results(export: Callable[[nn.Module, str], None], tmp_path: Path) -> None:
    model, path = Everything().eval(), str(tmp_path / "model.onnx")
    export(model, path)
    loaded = onnx.load(path)
    assert {opset.domain for opset in loaded.opset_import} <= {"", "ai.onnx", "pkg.onnxscript"}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    for x in images("cpu"):
        results: list[Any] = session.run(None, {entry.name: x.numpy()})
        for result, expected in zip(results, model(x), strict=True):
            torch.testing.assert_close(
                torch.from_numpy(result), expected.detach(), rtol=1e-4, atol=1e-5
            )
