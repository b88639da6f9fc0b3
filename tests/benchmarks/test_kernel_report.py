"""The report on kernels: names, occupancy and ratios of made-up inputs, calculated by hand."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kernel_report import (
    ARITHMETICS,
    HOPPER_SHARED_BYTES,
    HOPPER_THREADS,
    HOPPER_TILES,
    main,
    occupancy,
    read_resources,
    read_work,
    stage_of,
)

pytestmark = pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs binutils")

FORWARD = (
    "_ZN6sspcab4cuda14forward_kernelINS0_8MainLoopINS0_13TensorCores16ILNS0_10ArithmeticE0E6__half"
    "N7cutlass6half_tEN4cute28SM80_16x8x16_F32F16F16F32_TNEEELi0ELNS0_7ProductE0EEEEEvNS0_8Geometry"
    "ENS0_7FiltersENS0_5ImageENS0_7ForwardE"
)
DOUBLE = (
    "_ZN6sspcab4cuda16gradients_kernelINS0_8MainLoopINS0_17DoubleTensorCoresELi0ELNS0_7ProductE1EEE"
    "NS2_IS3_Li0ELS4_2EEEEEvNS0_8GeometryENS0_7FiltersENS0_5ImageENS0_13InputGradientENS0_14Weight"
    "GradientENS0_12WeightSharesEjb"
)
HOPPER = (
    "_ZN6sspcab4cuda21hopper_forward_kernelINS0_10HopperLoopILNS0_10ArithmeticE1ELi0ELNS0_7Product"
    "E0EEEEEvNS0_8GeometryENS0_16PixelsAndFiltersENS0_5ImageENS0_7ForwardEii"
)
HOPPER_GRADIENTS = (
    "_ZN6sspcab4cuda23hopper_gradients_kernelINS0_10HopperLoopILNS0_10ArithmeticE0ELi2ELNS0_7Product"
    "E1EEENS2_ILS3_0ELi2ELS4_2EEEEEvNS0_8GeometryE"
)
PACK = (
    "_ZN6sspcab4cuda11pack_kernelI6__halffLi8ELi1EEEvNS0_7PackingENS0_13TranspositionElNS0_12Weight"
    "TilingE"
)
LOG = f"""
  ptxas info    : 0 bytes gmem
  ptxas info    : Compiling entry function '{FORWARD}' for 'sm_80'
  ptxas info    : Function properties for helper
      8 bytes stack frame, 800 bytes spill stores, 800 bytes spill loads
  ptxas info    : Function properties for {FORWARD}
      16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
  ptxas info    : Used 168 registers, used 1 barriers, 512 bytes smem, 616 bytes cmem[0]
  ptxas info    : Compile time = 132.503 ms
  ptxas info    : Compiling entry function '{FORWARD}' for 'sm_90a'
  ptxas info    : Function properties for {FORWARD}
      0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
  ptxas info    : Used 168 registers, used 1 barriers, 512 bytes smem
  [2/9] nvcc -c pack.cu
  ptxas info    : Compiling entry function '{PACK}' for 'sm_80'
  ptxas info    : Function properties for {PACK}
      0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
  ptxas info    : Used 33 registers, 576 bytes cmem[0]
  ptxas info    : Compiling entry function '{DOUBLE}' for 'sm_80'
  ptxas info    : Function properties for {DOUBLE}
      0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
  ptxas info    : Used 128 registers
"""
NONE = {"bytes": 0, "sectors": 0, "ideal_sectors": 0}
COUNTERS: dict[str, Any] = {
    "launches": 2,
    "warp_instructions": 5000,
    "classes": {"fp32": {"thread": 600}, "fp32_fma": {"thread": 400}},
    "mma": {"m16n8k16.f32.f16": {"warp": 1000, "flops": 4096000}},
    "global_load": {"bytes": 64000, "sectors": 2500, "ideal_sectors": 2000},
    "global_store": {"bytes": 16000, "sectors": 500, "ideal_sectors": 500},
    "global_atomic": NONE,
    "unique_load_bytes": 30000,
    "unique_store_bytes": 10800,
    "shared_load": {"wavefronts": 100, "excess": 5},
    "shared_store": {"wavefronts": 60, "excess": 0},
    "ldmatrix": {"wavefronts": 40, "excess": 3},
}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_hopper_s_resources(tmp_path: Path) -> None:
    log = "".join(
        f"ptxas info : Compiling entry function '{name}' for '{arch}'\n"
        f"ptxas info : Function properties for {name}\n"
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        f"ptxas info : Used {registers} registers, used 1 barriers\n"
        for name in (HOPPER, HOPPER_GRADIENTS)
        for arch, registers in (("sm_80", 8), ("sm_90", 8), ("sm_90a", 168))  # empty on the others
    )
    rows = read_resources(write(tmp_path / "log", log))
    assert [(row.kernel, row.arch) for row in rows] == [
        ("hopper_forward bfloat16 128x256", "sm_90a"),
        ("hopper_gradients half 128x64", "sm_90a"),
    ]
    for row in rows:
        # All that a block can have of 228 KB, and so 12 of 64 warps.
        assert (row.registers, row.threads, row.dynamic_bytes) == (168, 384, 227 * 1024)
        assert row.occupancy == 12 / 64


def test_stages_by_name() -> None:
    assert stage_of("hopper_input_gradient tf32 128x64") == "input_gradient"
    assert stage_of("scale half 8 true") == "scale"


def test_resources(tmp_path: Path) -> None:
    rows = read_resources(write(tmp_path / "log", LOG))
    assert [(row.kernel, row.arch) for row in rows] == [
        ("forward half 128x128", "sm_80"),
        ("forward half 128x128", "sm_90a"),
        ("gradients double 64x64", "sm_80"),
        ("pack half float 8 1", "sm_80"),
    ]
    forward, hopper, double, pack = rows
    assert (forward.registers, forward.spill_bytes, forward.threads) == (168, 32, 128)
    # Results: 128 rows of 132 floats; 2 blocks of 67584 + 512 + 1024 in 164 KB, 3 in 228 KB.
    assert (forward.static_bytes, forward.dynamic_bytes) == (512, 67584)
    assert forward.occupancy == 2 * 4 / 64
    assert hopper.occupancy == 3 * 4 / 64
    # 33 registers are 1280 a warp: 12 warps in a quarter, 6 blocks of 8.
    assert (pack.threads, pack.static_bytes, pack.dynamic_bytes) == (256, 0, 0)
    assert pack.occupancy == 6 * 8 / 64
    # Results: 64 rows of 66 doubles; 4 blocks of them as of 128 registers.
    assert (double.dynamic_bytes, double.occupancy) == (33792, 4 * 4 / 64)


@pytest.mark.parametrize(
    ("arch", "registers", "shared", "threads", "expected"),
    [
        ("sm_80", 32, 0, 32, 32 / 64),  # blocks
        ("sm_86", 32, 0, 256, 1),  # warps: 6 blocks of 8
        ("sm_86", 32, 33 << 10, 128, 2 * 4 / 48),  # 34 KB with the reserved one, of 100
        ("sm_75", 32, 32 << 10, 128, 2 * 4 / 32),  # nothing is reserved, of 64
        ("sm_75", 32, 65 << 10, 128, 0),
        ("sm_80", 255, 0, 1024, 0),
        ("sm_999", 32, 0, 128, None),
    ],
)
def test_occupancy(
    arch: str, registers: int, shared: int, threads: int, expected: float | None
) -> None:
    assert occupancy(arch, registers, shared, threads) == expected


def test_tiles_are_those_of_the_source() -> None:
    source = Path(__file__).parents[2] / "csrc/cuda/convolution/convolution.h"
    table = re.findall(r"\{(\{\d.*\})\},\s+// (\w+)", source.read_text())
    tiles = [re.findall(r"\{(\d+), (\d+)\}", line) for line, _ in table]
    assert [tuple((int(m), int(n)) for m, n in line) for line in tiles] == [
        tiles for _, _, tiles in ARITHMETICS.values()
    ]
    assert [name.lower() for _, name in table] == [name for name, _, _ in ARITHMETICS.values()]


def test_hopper_s_launches_are_those_of_the_source() -> None:
    source = (Path(__file__).parents[2] / "csrc/cuda/convolution/convolution.h").read_text()
    constants = dict(re.findall(r"(kHopper\w+) = (\d[^,;]*)", source))
    tiles = re.search(r"kHopperTiles\[kConfigs\] = \{(.*)\};", source)
    assert tiles
    m = int(constants["kHopperM"])
    assert [(m, int(n)) for n in re.findall(r"kHopperM, (\d+)", tiles[1])] == [*HOPPER_TILES]
    assert 128 * (1 + int(constants["kHopperConsumers"])) == HOPPER_THREADS
    assert constants["kHopperSharedBytes"] == "227 << 10" and HOPPER_SHARED_BYTES == 227 << 10


@pytest.mark.parametrize(
    ("gpu", "limit", "us"),
    [("a100", "DRAM", 40800 / 2.04e6), ("h100", "DRAM", 40800 / 3.35e6)],
)
def test_work(gpu: str, limit: str, us: float, tmp_path: Path) -> None:
    file = write(tmp_path / "counters.json", {"at_kernel": {}, FORWARD: COUNTERS})
    (row,) = read_work(file, gpu)
    assert row.problem == "counters"
    assert (row.kernel, row.launches, row.tensor_flops) == ("forward half 128x128", 2, 4096000)
    assert row.sector_ratio == 3000 / 2500
    assert row.shared_excess_percent == 4  # 8 of 200
    assert row.flops_per_byte == 64
    assert row.instructions_per_mma == 5
    assert row.unique_bytes == 40800
    assert (row.wgmma_percent, row.bulk_bytes) == (0, 0)
    assert row.dram_read_bytes is None and row.dram_write_bytes is None
    assert (row.limit, row.modelled_us) == (limit, pytest.approx(us))


@pytest.mark.parametrize(
    ("changes", "limit", "us"),
    [
        ({"mma": {"m16n8k16.f32.f16": {"warp": 1, "flops": 312e6}}}, "tensor", 1),
        ({"mma": {"m8n8k4.f64.f64": {"warp": 1, "flops": 39e6}}}, "tensor", 2),
        ({"mma": {}, "classes": {"fp32_fma": {"thread": 19.5e6}}}, "fp32", 2),
    ],
)
def test_limits(changes: dict[str, Any], limit: str, us: float, tmp_path: Path) -> None:
    (row,) = read_work(write(tmp_path / "counters.json", {FORWARD: COUNTERS | changes}), "a100")
    assert (row.limit, row.modelled_us) == (limit, pytest.approx(us))
    assert (row.instructions_per_mma is None) == (not changes["mma"])


def test_work_on_hopper(tmp_path: Path) -> None:
    """Three quarters of the FLOPs by wgmma, the rest by mma.sync; an L2 cache was modelled."""
    mma = {
        "wgmma.m64n256k16.f32.bf16": {"warp": 600, "flops": 3 * 989e6},
        "m16n8k16.f32.bf16": {"warp": 400, "flops": 989e6},
    }
    more = {"mma": mma, "bulk_bytes": 70000, "dram_read_bytes": 512, "dram_write_bytes": 0}
    file = write(tmp_path / "counters.json", {HOPPER: COUNTERS | more})
    (row,) = read_work(file, "h100")
    assert row.kernel == "hopper_forward bfloat16 128x256"
    assert (row.tensor_flops, row.wgmma_percent) == (4 * 989e6, 75)
    assert (row.bulk_bytes, row.dram_read_bytes, row.dram_write_bytes) == (70000, 512, 0)
    assert row.instructions_per_mma == 5
    # 3 µs by wgmma; mma.sync has 62.9 % of its rate.
    assert (row.limit, row.modelled_us) == ("tensor", pytest.approx(3 + 1 / 0.629, rel=1e-3))


@pytest.mark.parametrize(("operands", "us"), [("f16", 1), ("bf16", 1), ("tf32", 2)])
def test_wgmma_s_peaks(operands: str, us: float, tmp_path: Path) -> None:
    mma = {f"wgmma.m64n64k8.f32.{operands}": {"warp": 4, "flops": 989e6}}
    file = write(tmp_path / "counters.json", {HOPPER: COUNTERS | {"mma": mma}})
    (row,) = read_work(file, "h100")
    assert (row.limit, row.wgmma_percent) == ("tensor", 100)
    assert row.modelled_us == pytest.approx(us, rel=2e-3)


def test_main_writes_tables_csv_and_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    log = write(tmp_path / "log", LOG)
    counters = [str(write(tmp_path / name, {FORWARD: COUNTERS})) for name in ("a.json", "b.json")]
    arguments = ["--resources", str(log), "--counters", *counters]
    outputs = ["--csv", str(tmp_path / "out.csv"), "--plot", str(tmp_path / "out.png")]
    assert main([*arguments, *outputs]) == 0
    output = capsys.readouterr().out
    assert "modelled, not measured" in output and "pack half float 8 1" in output
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["arch"] for row in rows] == ["sm_80", "sm_90a", "sm_80", "sm_80", "", ""]
    assert [row["problem"] for row in rows[-2:]] == ["a", "b"]
    assert rows[-1]["modelled_us"] and not rows[0]["modelled_us"]
    assert (tmp_path / "out.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("log", "counters", "message"),
    [
        (None, None, "No such file"),
        ("", None, "no output of ptxas -v"),
        (LOG, "{", "not counters per kernel in JSON"),
        (LOG, "{}", "no counters of a kernel"),
        (LOG, {FORWARD: {"mma": {}}}, "KeyError"),
    ],
)
def test_unusable_inputs_are_named(
    log: str | None,
    counters: object,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--resources", str(tmp_path / "log")]
    if log is not None:
        write(tmp_path / "log", log)
    if counters is not None:
        arguments += ["--counters", str(write(tmp_path / "counters", counters))]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and str(tmp_path) in error
