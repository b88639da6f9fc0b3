"""What a call would do on a CPU: a pure function of sizes, layout, dtype and threads."""

from __future__ import annotations

import math

import pytest

from sspcab_cuda._extension import _C


def test_groups_of_about_eight_mebibytes() -> None:
    assert _C.cpu_plan((40, 64, 56, 56), "float64")["groups"] == [5] * 8
    assert _C.cpu_plan((11, 64, 56, 56), "float32")["groups"] == [10, 1]
    assert _C.cpu_plan((11, 64, 56, 56), "float16")["groups"] == [10, 1]  # computed in float32
    assert _C.cpu_plan((3, 64, 512, 512), "float32")["groups"] == [1, 1, 1]
    assert _C.cpu_plan((0, 64, 8, 8))["groups"] == []
    assert _C.cpu_plan((2, 64, 0, 8))["groups"] == []


@pytest.mark.parametrize(
    ("channels", "dtype", "channels_last", "in_place"),
    [
        (64, "float32", True, True),
        (64, "float64", True, True),
        (64, "float32", False, False),
        (64, "bfloat16", True, False),
        (1024, "float32", True, False),  # pixels 4096 bytes apart
        (512, "float64", True, False),
        (1028, "float32", True, True),
    ],
)
def test_reads_in_place(channels: int, dtype: str, channels_last: bool, in_place: bool) -> None:
    plan = _C.cpu_plan((2, channels, 64, 64), dtype, channels_last=channels_last)
    assert plan["way"] != "windows"
    assert plan["reads_in_place"] is in_place


def test_windows_read_in_place_at_any_distance() -> None:
    plan = _C.cpu_plan((1, 1024, 4, 4))
    assert plan["way"] == "windows" and plan["reads_in_place"]


@pytest.mark.parametrize(
    "wrong",
    [{"config": 3}, {"config": -2}, {"kernel_dim": 0}, {"threads": 0}, {"dilation": -1}],
)
def test_errors(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"kernel_dim and threads 1 or more, config -1"):
        _C.cpu_plan((2, 16, 32, 32), **wrong)
    with pytest.raises(ValueError, match=r"sizes and dilation must be 0 or more"):
        _C.cpu_plan((2, -16, 32, 32))


def test_the_cheapest_way() -> None:
    seen = set()
    for channels in (4, 16, 64, 256, 1024):
        for size in (4, 16, 64):
            for kernel_dim in (1, 3):
                shape = (1, channels, size, size)
                plan = _C.cpu_plan(shape, kernel_dim=kernel_dim)
                assert plan["costs"][plan["way"]] == min(plan["costs"].values())
                seen.add(plan["way"])
                for config, way in enumerate(("direct", "winograd", "windows")):
                    forced = _C.cpu_plan(shape, kernel_dim=kernel_dim, config=config)
                    assert forced["way"] == way and forced["costs"] == plan["costs"]
    assert seen == {"direct", "winograd", "windows"}


@pytest.mark.parametrize("dilation", [8, 40, 2**63 - 1])
def test_empty_windows_where_no_tap_is_inside(dilation: int) -> None:
    plan = _C.cpu_plan((2, 8, 8, 30), dilation=dilation)
    assert plan["way"] == "windows"
    assert plan["costs"] == {"direct": math.inf, "winograd": math.inf, "windows": 0}


def test_threads_and_bands() -> None:
    """One thread and one band for little work; with more threads more bands, or parts of bands."""
    little = _C.cpu_plan((1, 4, 8, 8), threads=16)
    assert (little["threads"], little["bands"], little["parts"]) == (1, 1, 1)
    large = (1, 64, 128, 128)
    assert _C.cpu_plan(large, threads=1)["bands"] == 1
    assert _C.cpu_plan(large, threads=4)["threads"] == 4
    assert _C.cpu_plan(large, threads=4)["bands"] == 8
    deep = _C.cpu_plan((1, 512, 8, 16), threads=8, config=0)
    assert deep["bands"] * deep["parts"] >= 8 and deep["parts"] > 1
    assert _C.cpu_plan((16, 16, 64, 64), threads=4)["bands"] == 1


def test_an_image_is_packed_at_once_where_bands_would_read_it_several_times() -> None:
    shape = (1, 256, 64, 64)
    assert not _C.cpu_plan(shape, channels_last=False, config=0)["packs_all"]
    assert _C.cpu_plan(shape, channels_last=False, dilation=20, config=0)["packs_all"]
    assert not _C.cpu_plan(shape, channels_last=True, dilation=20, config=0)["packs_all"]
