"""What a problem would get on CUDA, and where things lie; needs a build with CUDA, no device."""

from __future__ import annotations

import functools
import itertools
import timeit
from typing import Any

import pytest

import sspcab_cuda
from sspcab_cuda._extension import _C

pytestmark = pytest.mark.skipif(
    not sspcab_cuda.build_info()["cuda"], reason="needs a build with CUDA"
)

PLAIN = 3
DTYPES = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize(
    ("obstacle", "options"),
    [
        (None, {"dtype": "float16", "capability": 90}),
        (None, {"allow_tf32": True, "capability": 90}),
        ("no code with Hopper's own instructions is loaded", {"dtype": "float16"}),
        ("wgmma multiplies half precision and TF32 alone", {"capability": 90}),
        ("fewer than 64 channels", {"channels": 56, "dtype": "float16", "capability": 90}),
        ("no farther than 127", {"dilation": 127, "dtype": "float16", "capability": 90}),
        ("its channels don't fill pieces of 16 bytes", {"channels": 66, "dtype": "float16"}),
        ("compute capability 7.5", {"capability": 75}),
        ("too large for 32-bit coordinates", {"dilation": 2**30}),
        ("plain kernels are asked for", {"config": PLAIN}),
    ],
)
def test_why_faster_kernels_are_passed_over(obstacle: str | None, options: dict[str, Any]) -> None:
    if "9.0a" not in str(sspcab_cuda.build_info()["arch_list"]):
        pytest.skip("needs a build with 9.0a")
    channels = options.get("channels", 64)
    others = {name: value for name, value in options.items() if name != "channels"}
    plan = _C.cuda_plan((2, channels, 32, 32), **others)
    assert (plan["obstacle"] is None) == (obstacle is None)
    assert obstacle is None or obstacle in plan["obstacle"]
    assert plan["tiled"] == ("forward" in plan)
    if plan["tiled"]:
        assert plan["forward"]["path"] == ("sm80" if obstacle else "sm90")


def test_plan_of_launches() -> None:
    """Of one group: three forward, four or (beyond 128 channels) five and the last one backward;
    one more where something has to be packed, but weights alone are packed beside the gate's
    gradient."""
    shape = (2, 64, 32, 32)
    forward = ["convolution", "gate", "scale"]
    plan = _C.cuda_plan(shape, "float16")
    assert plan["tiled"] and plan["forward_launches"] == forward
    gradients = ["gradients"], ["input_gradient", "weight_gradient"]
    excitation = ["gate_gradient", "excitation_gradient", "activation_gradient"]
    for options in (
        {"channels_last": False},
        {"kernel_dim": 3},
        {"parameter_dtype": "float32"},
        {"channels_last": False, "kernel_dim": 2},
    ):
        plan = _C.cuda_plan(shape, "float16", **options)
        assert plan["forward_launches"] == ["pack", *forward]
        packing = [] if options.get("channels_last", True) else ["pack"]
        assert plan["backward_launches"] == [
            *packing,
            *excitation,
            *gradients[0],
            "parameter_gradients",
        ]
    for options in ({"capability": 75}, {"config": PLAIN}):
        plan = _C.cuda_plan(shape, "float16", **options)
        assert not plan["tiled"]
        assert plan["forward_launches"] == ["convolution", "channel_sums", "gate", "scale"]
        assert plan["backward_launches"] == [*excitation, *gradients[1], "parameter_gradients"]
    assert not _C.cuda_plan((2, 65, 32, 32), "float16")["tiled"]
    # The gradients of x and of the weights share a launch where there is a kernel for their tiles.
    for channels, size, dtype in itertools.product((8, 64, 96, 128), (8, 16, 56), DTYPES):
        plan = _C.cuda_plan((8, channels, size, size), dtype, cache_bytes=2**60)
        assert plan["backward_launches"] == [*excitation, *gradients[0], "parameter_gradients"]
    plan = _C.cuda_plan((16, 256, 32, 32), "bfloat16", cache_bytes=2**60)
    assert plan["backward_launches"] == [*excitation, *gradients[1], "parameter_gradients"]


def test_plan_of_tiles() -> None:
    plan = _C.cuda_plan((8, 128, 56, 56), "bfloat16")
    assert plan["forward"]["tile"] == (128, 128)
    assert plan["forward"]["blocks"] == 8 * 56 * 56 // 128
    assert plan["weight_gradient"]["splits"] > 1
    small = _C.cuda_plan((1, 64, 16, 16), "bfloat16")
    assert small["forward"]["tile"] == (64, 64) and small["forward"]["blocks"] == 4
    for config, dtype in itertools.product(range(3), ("float16", "float32", "float64")):
        plan = _C.cuda_plan((2, 64, 32, 32), dtype, config=config)
        for stage in ("forward", "input_gradient", "weight_gradient"):
            assert plan[stage]["config"] == config
            assert plan[stage]["shared_bytes"] <= 99 * 1024  # compute capability 8.6


@pytest.mark.parametrize("capability", [80, 90])
def test_a_plan_takes_no_longer_for_larger_images(capability: int) -> None:
    def seconds(size: int) -> float:
        plan = functools.partial(
            _C.cuda_plan, (8, 64, size, size), "float32", capability=capability, cache_bytes=2**60
        )
        return min(timeit.repeat(plan, number=1, repeat=20))

    assert seconds(8192) <= 10 * seconds(56)


def test_a_plan_for_nothing() -> None:
    for shape in ((0, 64, 8, 8), (2, 64, 0, 8), (2, 0, 8, 8)):
        assert _C.cuda_plan(shape, "float16")["forward"]["units"] == 0


@pytest.mark.parametrize("config", [-2, 4])
def test_unknown_config(config: int) -> None:
    text = rf"config must be -1 \(automatic\), 0 to 2 \(tiles\) or 3 .*; got {config}"
    with pytest.raises(ValueError, match=text):
        _C.cuda_plan((2, 64, 8, 8), "float16", config=config)


@pytest.mark.parametrize("channels_last", [False, True])
def test_offsets_beyond_32_bits(channels_last: bool) -> None:
    n, c, h, w = shape = (700, 64, 256, 256)
    assert n * c * h * w > 2**31
    pixel, channel = n * h * w - 1, c - 1
    assert _C.offset(shape, channels_last, pixel, channel) == n * c * h * w - 1
    pixel -= 5 * h * w
    expected_offset = pixel * c + 3 if channels_last else ((n - 6) * c + 3) * h * w + h * w - 1
    assert _C.offset(shape, channels_last, pixel, 3) == expected_offset
    assert _C.sum_slot(128, 49, 2**40) == 2**40 // 128 + 2**40 // 49
    plan = _C.cuda_plan(shape, "float16", channels_last=channels_last, cache_bytes=2**60)
    tile = plan["forward"]["tile"]
    assert plan["forward"]["blocks"] == -(-n * h * w // tile[0]) * -(-c // tile[1])


def test_every_pixel_and_sample_meet_in_a_slot_of_their_own() -> None:
    for tile, pixels in ((64, 49), (64, 64), (32, 100), (128, 1), (64, 4096)):
        seen: dict[int, tuple[int, int]] = {}
        for pixel in range(3 * pixels * tile):
            pair = (pixel // tile, pixel // pixels)
            assert seen.setdefault(_C.sum_slot(tile, pixels, pixel), pair) == pair
