"""Tools that record a model: torch.jit, torch.fx, torch.export, make_fx."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import sspcab_cuda
from sspcab_cuda.reference import Variant

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit", "ignore:.*feature_extractor is deprecated"
)


def host(variant: Variant = "paper") -> Any:
    torch.manual_seed(0)
    block = sspcab_cuda.SSPCAB(8, 2, 1, 2, variant)
    return nn.Sequential(nn.Conv2d(3, 8, 3), block, nn.Conv2d(8, 4, 1))


def image() -> Tensor:
    return torch.randn(2, 3, 9, 10, generator=torch.Generator().manual_seed(1))


def loaded_elsewhere(path: Path, x: Tensor) -> Tensor:
    """What a file of TorchScript computes where this package isn't imported."""
    torch.save(x, path.with_suffix(".x"))
    code = (
        "import sys, torch\n"
        "model = torch.jit.load(sys.argv[1] + '.pt')\n"
        "torch.save(model(torch.load(sys.argv[1] + '.x')), sys.argv[1] + '.y')\n"
        "assert not any(name.startswith('sspcab') for name in sys.modules)\n"
    )
    stem = str(path.with_suffix(""))
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, stem], check=True, cwd=path.parent)
    result: Tensor = torch.load(path.with_suffix(".y"))
    return result


@pytest.mark.parametrize("variant", ["paper", "anomalib", "tensorflow"])
@pytest.mark.parametrize("how", ["trace", "script"])
def test_torchscript(how: str, variant: Variant, tmp_path: Path) -> None:
    model, x = host(variant), image()
    script = torch.jit.trace(model, x) if how == "trace" else torch.jit.script(model)
    torch.testing.assert_close(script(x), model(x))
    script.save(tmp_path / "model.pt")
    torch.testing.assert_close(loaded_elsewhere(tmp_path / "model.pt", x), model(x))


def test_a_scripted_block_keeps_its_parameters() -> None:
    block = sspcab_cuda.SSPCAB(8)
    script = torch.jit.script(block)
    assert list(script.state_dict()) == list(block.state_dict())
    x = torch.randn(2, 8, 5, 6, requires_grad=True)
    script(x).sum().backward()
    assert block.conv3.weight.grad is not None and x.grad is not None


@pytest.mark.parametrize("part", [sspcab_cuda.MaskedConv2d(8, 2), sspcab_cuda.SELayer(8)])
def test_scripts_of_the_parts(part: nn.Module) -> None:
    x = torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(torch.jit.script(part)(x), part(x))
    torch.testing.assert_close(torch.jit.trace(part, x)(x), part(x))


@pytest.mark.parametrize("variant", ["paper", "tensorflow"])
def test_fx_has_leaves(variant: Variant) -> None:
    """The graph keeps the fused function, and parameters that are trained and moved."""
    model, x = host(variant), image()
    traced = torch.fx.symbolic_trace(model)
    targets = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert targets == [sspcab_cuda.functional.sspcab]
    torch.testing.assert_close(traced(x), model(x))
    assert {n for n, _ in traced.named_parameters()} == {n for n, _ in model.named_parameters()}
    wide = copy.deepcopy(traced).double()(x.double())
    torch.testing.assert_close(wide.float(), model(x))


@pytest.mark.parametrize(
    "make", [lambda: sspcab_cuda.MaskedConv2d(8, 2), lambda: sspcab_cuda.SELayer(8)]
)
def test_fx_of_the_parts(make: Callable[[], nn.Module]) -> None:
    part, x = make(), torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(torch.fx.symbolic_trace(part)(x), part(x))


@pytest.mark.parametrize("variant", ["paper", "tensorflow"])
def test_fx_of_the_block_itself(variant: Variant) -> None:
    """return_loss stays an argument of what is traced."""
    block, x = sspcab_cuda.SSPCAB(8, 2, variant=variant), torch.randn(2, 8, 9, 10)
    traced = torch.fx.symbolic_trace(block)
    torch.testing.assert_close(traced(x), block(x))
    torch.testing.assert_close(traced(x, return_loss=True), block(x, return_loss=True))
    without = torch.fx.symbolic_trace(block, concrete_args={"return_loss": False})
    torch.testing.assert_close(without(x), block(x))


def test_fx_of_a_block_that_is_called() -> None:
    model, x = host(), image()
    model[1].conv1.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.warns(UserWarning, match="conv1 has the forward hook"):
        torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))


def test_feature_extractor() -> None:
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model, x = host(), image()
    extractor = extraction.create_feature_extractor(model, {"0": "features", "1": "block"})
    features = extractor(x)
    torch.testing.assert_close(features["features"], model[0](x))
    torch.testing.assert_close(features["block"], model[:2](x))


# Captured where nothing was differentiated, and differentiated afterwards.


def exported_without_gradients(block: nn.Module, x: Tensor) -> Any:
    return torch.export.export(block.requires_grad_(False), (x,)).module()


def exported_under_no_grad(block: nn.Module, x: Tensor) -> Any:
    with torch.no_grad():
        return torch.export.export(block, (x,)).module()


def traced_under_no_grad(block: nn.Module, x: Tensor) -> Any:
    with torch.no_grad():
        return make_fx(block)(x)


def compiled_program(block: nn.Module, x: Tensor) -> Any:
    program = exported_without_gradients(block, x)
    return torch.compile(program, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize(
    "capture",
    [exported_without_gradients, exported_under_no_grad, traced_under_no_grad, compiled_program],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda: sspcab_cuda.SSPCAB(8),
        lambda: sspcab_cuda.MaskedConv2d(8, 2),
        lambda: sspcab_cuda.SELayer(8),
    ],
)
def test_differentiated_after_it_was_captured(
    capture: Callable[[nn.Module, Tensor], Any], make: Callable[[], nn.Module]
) -> None:
    torch.compiler.reset()
    block, x = make().eval(), torch.randn(2, 8, 5, 6)
    captured = capture(block, x)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    captured(leaves[0]).square().sum().backward()
    block(leaves[1]).square().sum().backward()
    assert leaves[0].grad is not None
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sspcab_cuda.SSPCAB(8),
        lambda: sspcab_cuda.MaskedConv2d(8, 2),
        lambda: sspcab_cuda.SELayer(8),
    ],
)
def test_a_captured_backward_pass(make: Callable[[], nn.Module]) -> None:
    """It runs, in grad mode too, and raises where it is differentiated."""
    block, x = make(), torch.randn(2, 8, 5, 6)

    def gradients(x: Tensor, weights: list[Tensor]) -> tuple[Tensor, ...]:
        out = torch.func.functional_call(block, dict(zip(names, weights, strict=True)), (x,))
        return torch.autograd.grad(out.square().sum(), [x, *weights])

    names, weights = zip(*block.named_parameters(), strict=True)
    x.requires_grad_()
    captured = make_fx(gradients)(x, list(weights))
    assert any(str(node.target).startswith("sspcab") for node in captured.graph.nodes)
    results = captured(x, list(weights))
    torch.testing.assert_close(
        [r.detach() for r in results], list(gradients(x, list(weights))), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(RuntimeError, match="has no derivative; got an argument that is different"):
        sum(result.sum() for result in results).backward()
