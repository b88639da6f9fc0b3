"""Quantised hosts: a block ends where the published layer ends."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sspcab_cuda

from ..helpers import published

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:torch.quantize_per_tensor"
)
CALLS = pytest.mark.filterwarnings("ignore:sspcab. se.fc1 .* so this SSPCAB calls")


def hosts() -> list[Any]:
    """The same with our block and with the published structure."""
    made = []
    for block in (sspcab_cuda.SSPCAB, published.SSPCAB):
        torch.manual_seed(0)
        made.append(nn.Sequential(nn.Conv2d(3, 8, 3), block(8, 1, 1, 2), nn.Conv2d(8, 4, 1)).eval())
    return made


def image() -> Tensor:
    return torch.rand(2, 3, 9, 10, generator=torch.Generator().manual_seed(1))


@CALLS
def test_dynamic() -> None:
    ours, theirs = hosts()
    results = []
    for host in (ours, theirs):
        quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(host), {nn.Linear})
        results.append(quantised(image()))
        assert "DynamicQuantizedLinear" in repr(quantised)
    torch.testing.assert_close(*results)


@CALLS
def test_weights_alone() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    ours, theirs = hosts()
    for host in (ours, theirs):
        quantization.quantize_(host, quantization.Int8WeightOnlyConfig())
    assert type(ours[1].se.fc2.weight) not in (Tensor, nn.Parameter)
    torch.testing.assert_close(ours(image()), theirs(image()))


def test_an_exported_program() -> None:
    """PyTorch's PT2E: the block stays in float, as an operator of this package."""
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    quantizers = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    ours, theirs = hosts()
    results = []
    for host in (ours, theirs):
        quantizer = quantizers.X86InductorQuantizer()
        quantizer.set_global(quantizers.get_default_x86_inductor_quantization_config())
        program = pt2e.prepare_pt2e(torch.export.export(host, (image(),)).module(), quantizer)
        program(image())
        results.append(pt2e.convert_pt2e(program)(image()))
    exact, scale = theirs(image()), theirs(image()).abs().max()
    for result in results:
        assert 0 < (result - exact).abs().max() < 0.02 * scale
