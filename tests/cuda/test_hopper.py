"""Hopper's kernels: which problems take them, more tiles than blocks, tiles of two blocks."""

from __future__ import annotations

import pytest
import torch

from sspcab_cuda import ops
from sspcab_cuda._extension import _C

from ..helpers.cases import HALVES, HAS_HOPPER, Case, exact_convolution, leaves
from ..helpers.tolerances import assert_equal

needs_build = pytest.mark.skipif(not HAS_HOPPER, reason="needs a build for compute capability 9.0")
needs_device = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not HAS_HOPPER
        or not torch.cuda.is_available()
        or torch.cuda.get_device_capability() != (9, 0),
        reason="needs a Hopper GPU and a build for it",
    ),
]

HOPPER = {"capability": 90, "processors": 132, "cache_bytes": 1 << 40}
STAGES = ("forward", "input_gradient", "weight_gradient")


@needs_build
@pytest.mark.parametrize(
    ("shape", "dtype", "options", "paths"),
    [
        ((8, 64, 16, 16), "float16", {}, "sm90 sm90 sm90"),
        ((8, 256, 16, 16), "bfloat16", {"kernel_dim": 3}, "sm90 sm90 sm90"),
        # In TF32 both operands of the sub-kernels' gradient lie the wrong way round.
        ((8, 64, 16, 16), "float32", {"allow_tf32": True}, "sm90 sm90 sm80"),
        ((8, 64, 16, 16), "float32", {}, "sm80 sm80 sm80"),
        ((8, 64, 16, 16), "float64", {}, "sm80 sm80 sm80"),
        ((8, 56, 16, 16), "float16", {}, "sm80 sm80 sm80"),
        ((8, 64, 16, 16), "float16", {"dilation": 126}, "sm90 sm90 sm90"),
        ((8, 64, 16, 16), "float16", {"dilation": 127}, "sm80 sm80 sm80"),
        ((8, 64, 16, 16), "float16", {"capability": 100}, "sm80 sm80 sm80"),
        ((8, 64, 16, 16), "float16", {"capability": 89}, "sm80 sm80 sm80"),
    ],
)
def test_paths(shape: tuple[int, ...], dtype: str, options: dict[str, object], paths: str) -> None:
    plan = _C.cuda_plan(shape, dtype, **{**HOPPER, **options})
    assert " ".join(plan[stage]["path"] for stage in STAGES) == paths


@needs_build
def test_plan_of_units() -> None:
    """A persistent grid; a cluster's blocks share a tile where there are few; gradients share a
    launch."""
    many = _C.cuda_plan((8, 256, 64, 64), "bfloat16", **HOPPER)["forward"]
    assert many["tile"] == (128, 256) and many["splits"] == 1
    assert (many["units"], many["blocks"]) == (256, 132)
    few = _C.cuda_plan((8, 1024, 16, 16), "bfloat16", **HOPPER)
    assert few["forward"]["tile"] == (128, 256) and few["forward"]["splits"] == 2
    assert (few["forward"]["units"], few["forward"]["blocks"]) == (128, 128)
    assert "gradients" in few["backward_launches"]
    odd = _C.cuda_plan((25, 1024, 8, 16), "bfloat16", **{**HOPPER, "processors": 67}, config=0)
    assert odd["forward"]["splits"] == 2 and odd["forward"]["blocks"] == 66  # whole clusters


# A tile for each of 132 processors and some more; all columns shared by two blocks; channels that
# fill neither a tile nor a box; samples that end inside a tile.
CASES = (Case(1, 64, 130, 132), Case(1, 256, 8, 16), Case(3, 200, 5, 9, 2, 0), Case(2, 64, 1, 1))


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
class TestOnTheDevice:
    pytestmark = needs_device

    def test_integers_are_exact(self, case: Case, dtype: torch.dtype, layout: str) -> None:
        """Forward and gradients, bit for bit: every product and sum is a small integer."""
        values, grad, truth = exact_convolution(case, dtype, "cuda", layout)
        for config in range(3):
            inputs = leaves(values)
            y = ops.masked_conv2d(*inputs, case.dilation, False, True, config)
            for ours, true in zip([y, *torch.autograd.grad(y, inputs, grad)], truth, strict=True):
                assert_equal(ours.detach(), true)


class TestSharedTiles:
    pytestmark = needs_device

    def test_clusters_take_several_tiles(self) -> None:
        """Forward and the gradient of x; blocks exchange sums more than once."""
        processors = torch.cuda.get_device_properties("cuda").multi_processor_count
        case = Case(1, 128, 16, 23 * processors // 2)  # 23/16 tiles for each processor
        launch = _C.cuda_plan(case.shape, "float16", config=1, capability=90, processors=processors)
        assert launch["forward"]["splits"] == 2
        assert launch["forward"]["units"] > launch["forward"]["blocks"]
        values, grad, truth = exact_convolution(case, torch.float16, "cuda", "channels_last")
        x, *parameters = values
        y = ops.masked_conv2d(x.requires_grad_(), *parameters, case.dilation, False, False, 1)
        for ours, true in zip([y, *torch.autograd.grad(y, [x], grad)], truth, strict=False):
            assert_equal(ours.detach(), true)
