"""explain: what it says of a call is what the call does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from sspcab_cuda import (
    SSPCAB,
    collect_reconstruction_losses,
    explain,
    functional,
    reference,
)
from sspcab_cuda._extension import _C

WAYS = {"direct": (2, 8, 32, 32), "winograd": (2, 64, 56, 56), "windows": (1, 256, 8, 8)}


@pytest.mark.parametrize("path", WAYS)
def test_the_path_on_a_cpu(path: str) -> None:
    """As the operator's, whose results differ from those of other ways in their last bits."""
    x = torch.rand(WAYS[path])
    block = SSPCAB(x.shape[1])
    explained = explain(block, x)
    assert explained.fused and explained.path == path
    assert sum(explained.groups) == len(x)
    weights = [c.weight.detach() for c in (block.conv1, block.conv2, block.conv3, block.conv4)]
    biases = [torch.zeros(x.shape[1])] * 4
    tail = (block.dilation, True, False)
    results = [
        torch.ops.sspcab.masked_conv2d(x, *weights, *biases, *tail, config) for config in range(3)
    ]
    automatic = torch.ops.sspcab.masked_conv2d(x, *weights, *biases, *tail)
    equal = [name for name, y in zip(WAYS, results, strict=True) if torch.equal(y, automatic)]
    assert equal == [path]


@pytest.mark.parametrize("shape", [(2, 5, 9, 7), (1, 3, 4, 12)])
@pytest.mark.parametrize(("kernel_dim", "dilation"), [(1, 1), (3, 0), (2, 4)])
def test_products_of_taps_inside(
    shape: tuple[int, ...], kernel_dim: int, dilation: int, device: str
) -> None:
    x = torch.ones(shape, device=device)
    channels = shape[1]
    ones = [torch.ones(channels, channels, kernel_dim, kernel_dim, device=device)] * 4
    none = [torch.zeros(channels, device=device)] * 4
    products = reference.masked_conv2d(x, ones, none, dilation, "none").sum()
    block = SSPCAB(channels, kernel_dim, dilation, 2, device=device)
    assert explain(block, x, training=False).flops == 2 * int(products)
    assert explain(block, x, training=True).flops == 6 * int(products)


@pytest.mark.parametrize("shape", [(0, 8, 8, 8), (2, 8, 0, 3)])
def test_empty_images(shape: tuple[int, ...], device: str) -> None:
    explained = explain(SSPCAB(8, device=device), torch.ones(shape, device=device))
    assert explained.fused and explained.flops == 0 and "nothing runs" in str(explained)


def kept_bytes(block: SSPCAB, x: Tensor) -> int:
    """That autograd keeps of a call with the loss, besides the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in block.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _ = block(x, return_loss=True)
    return sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_for_backward(dtype: torch.dtype, device: str) -> None:
    """In both modes of the block; nothing without a gradient."""
    block = SSPCAB(16, device=device, dtype=dtype)
    x = torch.rand(2, 16, 8, 8, device=device, dtype=dtype, requires_grad=True)
    expected = kept_bytes(block, x)
    assert explain(block, x).saved_bytes == expected > 0
    assert explain(block.eval(), x).saved_bytes == expected
    with torch.no_grad():
        assert explain(block.train(), x).saved_bytes == 0
    assert explain(block.requires_grad_(False), x.detach()).saved_bytes == 0


def test_sub_kernels_that_are_computed_are_kept() -> None:
    block = SSPCAB(64)
    x = torch.rand(2, 64, 8, 8)
    before = explain(block, x).saved_bytes
    for layer in (block.conv1, block.conv2):
        weight_norm(layer)
    assert explain(block, x).saved_bytes == before + 2 * 4 * 64 * 64


def test_inside_autocast(device: str) -> None:
    """In the dtype of the region; float64 stays."""
    block = SSPCAB(16, device=device)
    x = torch.rand(2, 16, 8, 8, device=device)
    with torch.autocast(device, torch.bfloat16):
        explained = explain(block, x)
        double = explain(block.double(), x.double())
    assert "bfloat16" in str(explained) and "float64" in str(double)
    assert explained.stages[0].name == "copy x"
    assert explained.saved_bytes == explain(block.bfloat16(), x.bfloat16()).saved_bytes


def test_what_is_not_dense_is_copied() -> None:
    block = SSPCAB(16)
    big = torch.rand(2, 64, 8, 8).contiguous(memory_format=torch.channels_last)
    assert explain(block, big[:, :16]).stages[0].name == "copy x"
    assert explain(block, big[:, :16].contiguous().transpose(2, 3)).stages[0].name == "copy x"
    dense = big[:, :16].contiguous(memory_format=torch.channels_last)
    assert "copy x" not in str(explain(block, dense))


def test_the_loss_is_computed_where_it_is_collected() -> None:
    block, x = SSPCAB(8).eval().requires_grad_(False), torch.rand(1, 8, 8, 8)
    assert "loss" not in str(explain(block, x))
    with collect_reconstruction_losses():
        assert "inference with the loss" in str(explain(block, x))


def test_bytes_of_the_stages() -> None:
    """channels_last float32 images of 16 channels are read where they lie, others packed first."""
    x = torch.rand(2, 16, 32, 32).contiguous(memory_format=torch.channels_last)
    block = SSPCAB(16)
    image, weights = x.nbytes, 4 * block.conv1.weight.nbytes
    explained = explain(block, x, training=False)
    assert explained.path == "direct" and explained.least_bytes == 2 * image + weights
    assert explained.bytes == 4 * image + 3 * weights  # panels are written and read
    assert explain(block, x.contiguous(), training=False).bytes == 6 * image + 3 * weights
    half = explain(block.to(torch.float16), x.to(torch.float16), training=False)
    assert half.bytes == image // 2 + 2 * image + image // 2 * 3 + weights // 2 + 2 * weights
    names = [stage.name for stage in explain(block.float(), x, training=True).stages]
    assert names[:2] == ["pack sub-kernels", "convolution, ReLU, sums"] and len(names) == 10
    deep = explain(SSPCAB(256, 3), torch.rand(1, 256, 8, 8), training=False)
    (gathered,) = (stage for stage in deep.stages if stage.name == "gather the windows")
    assert deep.path == "windows" and gathered.written == 4 * 256 * 9 * 80 * 4  # 36 pixels, padded
    assert "bands" not in str(deep)


def hooked(block: SSPCAB) -> str:
    block.conv2.register_forward_hook(lambda *_: None)
    return "conv2 has the forward hook"


def replaced(block: SSPCAB) -> str:
    block.se.sigmoid = nn.Hardsigmoid()  # type: ignore[assignment]
    return "se.sigmoid is a torch.nn.modules.activation.Hardsigmoid"


def overridden(block: SSPCAB) -> str:
    block.__class__ = Residual
    return "Residual has another forward"


class Residual(SSPCAB):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        out: Tensor = x + super().forward(x)
        return out


@pytest.mark.parametrize("change", [hooked, replaced])
def test_why_parts_are_called(change: Any) -> None:
    block = SSPCAB(8)
    x = torch.rand(1, 8, 8, 8)
    reason = change(block)
    explained = explain(block, x)
    assert not explained.fused and explained.path is None
    assert reason in str(explained)
    with pytest.warns(UserWarning, match=reason):
        block(x)


def test_a_forward_of_its_own() -> None:
    block = SSPCAB(8)
    reason = overridden(block)
    explained = explain(block, torch.rand(1, 8, 8, 8))
    assert not explained.fused and reason in str(explained)


def test_a_device_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sspcab_cuda.checks._DEVICES", ("cuda",))
    explained = explain(SSPCAB(8), torch.rand(1, 8, 8, 8))
    assert not explained.fused and "for which this build has no kernels" in str(explained)


def test_parameters_that_are_plain_attributes() -> None:
    block = SSPCAB(8)
    weight, bias = block.conv1.weight.detach(), block.conv1.bias
    del block.conv1.weight, block.conv1.bias
    block.conv1.weight, block.conv1.bias = weight, bias
    assert explain(block, torch.rand(1, 8, 8, 8)).fused


def test_meta() -> None:
    explained = explain(SSPCAB(8, device="meta"), torch.rand(1, 8, 8, 8, device="meta"))
    assert explained.fused and explained.path is None and not explained.stages


def test_the_variant_that_is_not_fused() -> None:
    explained = explain(SSPCAB(8, variant="tensorflow"), torch.rand(1, 8, 8, 8))
    assert not explained.fused and 'the variant "tensorflow" has no fused kernels' in str(explained)
    assert explained.flops == 3 * 2 * 4 * 8 * 8 * 64  # mirrored borders: every tap


def test_hooks_do_not_run() -> None:
    block = SSPCAB(8)
    spectral_norm(block.conv1)
    state = {name: value.clone() for name, value in block.state_dict().items()}
    assert explain(block, torch.rand(1, 8, 8, 8)).fused
    for name, value in block.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_the_page() -> None:
    block = SSPCAB(64, kernel_dim=2, dtype=torch.float64)
    x = torch.rand(40, 64, 56, 56, dtype=torch.float64)
    page = str(explain(block, x, training=False))
    assert page.startswith(
        "SSPCAB(64, kernel_dim=2, dilation=1) on (40, 64, 56, 56) float64, contiguous, cpu ("
    )
    for words in (
        ": inference\n",
        "relative costs by the model: ",
        "groups of samples: 8 of 5\n",
        "it isn't in channels_last",
        " GFLOP",
    ):
        assert words in page, page
    assert "kept for the backward pass" in str(explain(block, x, training=True))


def test_errors() -> None:
    with pytest.raises(TypeError, match=r"block must be an SSPCAB; got Conv2d"):
        explain(nn.Conv2d(3, 3, 1), torch.rand(1, 3, 8, 8))
    with pytest.raises(RuntimeError, match=r"x must have 8 channels, as this SSPCAB has; got 4"):
        explain(SSPCAB(8), torch.rand(1, 4, 8, 8))
    with pytest.raises(RuntimeError, match=r"x must be \(N, C, H, W\); got \(8, 8, 8\)"):
        explain(SSPCAB(8), torch.rand(8, 8, 8))
    with pytest.raises(TypeError, match=r"x must be a tensor; got list"):
        explain(SSPCAB(8), [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dtype must be float16, .* got int32"):
        _C.cpu_plan((1, 8, 8, 8), "int32")


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("channels", "dtype", "reason"),
    [
        (64, torch.bfloat16, "by the kernels of sm"),
        (12, torch.float16, "its channels don't fill pieces of 16 bytes"),
    ],
)
def test_the_path_on_cuda(channels: int, dtype: torch.dtype, reason: str) -> None:
    block = SSPCAB(channels, device="cuda", dtype=dtype)
    x = torch.rand(2, channels, 16, 16, device="cuda", dtype=dtype)
    explained = explain(block, x)
    if torch.cuda.get_device_capability() < (8, 0):
        reason = "the code that is loaded is for compute capability 7.5"
    assert explained.fused and reason in str(explained)
    assert functional.uses_tf32(x) is False
