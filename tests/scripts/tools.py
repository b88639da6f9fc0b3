"""``python -m tests.scripts.tools``: tools on a host with our block and with the published one.

Each tool takes both hosts, which have the same weights, and must find the same: numbers of
parameters and operations, results, names. Prints docs/tools.md's table. What it needs is in the
extra ``tools``; it is too much for every run of the tests.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sspcab_cuda

from ..helpers import published

Tool = Callable[[Any, Tensor], Any]
TOOLS: dict[str, tuple[str, Tool]] = {}


def host(kind: type[nn.Module], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), kind(16, 1, 1, 4), nn.ReLU(), nn.Conv2d(16, 3, 1)
    ).eval()


def image() -> Tensor:
    return torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(1))


def tool(package: str, what: str) -> Callable[[Tool], Tool]:
    def add(function: Tool) -> Tool:
        TOOLS[f"{package}: {what}"] = package, function
        return function

    return add


@tool("thop", "MACs, parameters")
def _(model: Any, x: Tensor) -> Any:
    import thop

    counts = thop.profile(model, (x,), verbose=False)
    return counts, model(x)  # with what it leaves on the model


@tool("ptflops", "MACs, parameters")
def _(model: Any, x: Tensor) -> Any:
    import ptflops

    return ptflops.get_model_complexity_info(
        model, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False, verbose=False,
        backend="pytorch",
    )  # fmt: skip


@tool("fvcore", "FLOPs")
def _(model: Any, x: Tensor) -> Any:
    import fvcore.nn

    analysis = fvcore.nn.FlopCountAnalysis(model, x)
    return analysis.unsupported_ops_warnings(False).total()


@tool("torch", "flop_counter")
def _(model: Any, x: Tensor) -> Any:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    return counter.get_total_flops()


@tool("torchinfo", "summary")
def _(model: Any, x: Tensor) -> Any:
    import torchinfo

    found = torchinfo.summary(model, input_data=x, verbose=0)
    return found.total_params, found.total_mult_adds, model(x)


@tool("torchsummary", "summary")
def _(model: Any, x: Tensor) -> Any:
    import torchsummary

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        torchsummary.summary(model, tuple(x.shape[1:]), device="cpu")
    lines = [line for line in text.getvalue().splitlines() if "-" in line and "[" in line]
    return [line for line in lines if "SSPCAB" not in line and "SELayer" not in line]


@tool("torch-pruning", "half of the channels")
def _(model: Any, x: Tensor) -> Any:
    import torch_pruning

    pruner = torch_pruning.pruner.MagnitudePruner(
        model, x, torch_pruning.importance.MagnitudeImportance(), pruning_ratio=0.5,
        ignored_layers=[model[3]],
    )  # fmt: skip
    pruner.step()
    return model[1].conv1.weight.shape, model(x)


@tool("accelerate", "cpu_offload")
def _(model: Any, x: Tensor) -> Any:
    import accelerate

    return accelerate.cpu_offload(model, execution_device=torch.device("cpu"))(x)


@tool("accelerate", "disk_offload")
def _(model: Any, x: Tensor) -> Any:
    import accelerate

    with tempfile.TemporaryDirectory() as folder:
        device = torch.device("cpu")
        return accelerate.disk_offload(model, folder, execution_device=device)(x)


@tool("torch", "quantize_dynamic")
def _(model: Any, x: Tensor) -> Any:
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})(x)


@tool("torchao", "quantize_, int8 weights")
def _(model: Any, x: Tensor) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig())
    return model(x)


@tool("optimum-quanto", "int8 weights")
def _(model: Any, x: Tensor) -> Any:
    from optimum import quanto

    quanto.quantize(model, weights=quanto.qint8)
    quanto.freeze(model)
    return model(x)


@tool("peft", "LoRA on every convolution of the block and its gate")
def _(model: Any, x: Tensor) -> Any:
    import peft

    layers = ["1.conv1", "1.conv2", "1.conv3", "1.conv4", "1.se.fc1", "1.se.fc2"]
    torch.manual_seed(2)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=layers, init_lora_weights=False)
    )
    return adapted(x)


@tool("tensorboard", "add_graph")
def _(model: Any, x: Tensor) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            writer.add_graph(model, x)
        (file,) = Path(folder).iterdir()
        return file.stat().st_size > 1000


@tool("openvino", "exported program")
def _(model: Any, x: Tensor) -> Any:
    import openvino

    program = torch.export.export(model, (x,))
    program = program.run_decompositions(sspcab_cuda.decompositions())
    compiled = openvino.compile_model(openvino.convert_model(program), "CPU",
                                      {"INFERENCE_PRECISION_HINT": "f32"})  # fmt: skip
    return torch.from_numpy(compiled(x.numpy())[0])


@tool("ema-pytorch", "EMA")
def _(model: Any, x: Tensor) -> Any:
    from ema_pytorch import EMA

    average = EMA(model, beta=0.5, update_after_step=0, update_every=1)
    for _ in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        average.update()
    return average(x)


@tool("timm", "ModelEmaV3")
def _(model: Any, x: Tensor) -> Any:
    from timm.utils import ModelEmaV3

    average = ModelEmaV3(model, decay=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    average.update(model)
    return average(x)


@tool("torchvision", "create_feature_extractor")
def _(model: Any, x: Tensor) -> Any:
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(model, {"1": "block", "2": "relu"})(x)


def differs(ours: Any, theirs: Any) -> str:
    """In words; nothing where they are equal within float32's rounding."""
    try:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    except (AssertionError, TypeError, ValueError):
        return "" if ours == theirs else f"{ours} instead of {theirs}"
    return ""


def trial(function: Tool, kind: type[nn.Module]) -> tuple[Any, set[str]]:
    """What a tool finds, and whether our block says that it calls its parts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(copy.deepcopy(host(kind)), image())
        except Exception as error:
            result = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return result, {str(w.message) for w in caught if str(w.message).startswith("sspcab")}


def main() -> None:
    print("| tool | version | same as the published layer | the block |\n|---|---|---|---|")
    for name, (package, function) in TOOLS.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            print(f"| {name} | not installed | | |")
            continue
        ours, said = trial(function, sspcab_cuda.SSPCAB)
        theirs, _ = trial(function, published.SSPCAB)
        difference = differs(ours, theirs)
        if not difference and isinstance(theirs, str):
            difference = f"both fail: {theirs}"
        way = "calls its parts" if said else ""
        print(f"| {name} | {version} | {difference or 'yes'} | {way} |", flush=True)


if __name__ == "__main__":
    main()
