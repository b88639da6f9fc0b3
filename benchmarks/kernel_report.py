"""``python -m benchmarks.kernel_report``: what the CUDA kernels need, and what they do.

``--resources``: the log of a build with ``-Xptxas=-v`` (setup.py asks for it, ``make`` keeps it in
.venv/build.log): registers, spills, shared memory and occupancy of the kernels compiled in it. The
tiled convolutions are not launched below sm_80; Hopper's are empty but on sm_90a, and left out.

``--counters``: JSON files of counters, one for each problem and named after it
(``python -m benchmarks.one_step`` is what to count), with an object for each kernel under its
mangled name, sums over launches. Kernels of other libraries are left out. Keys that are read:

- ``launches``; ``warp_instructions``: of PTX, one for each warp
- ``classes``: ``{"fp32": {"thread": N}, "fp32_fma": {"thread": N}}``, float32 instructions off the
  tensor cores, one for each thread; absent: none
- ``mma``: ``{"m16n8k16.f32.f16": {"warp": N, "flops": N}}`` by shape, sums' and operands' type;
  wgmma is ``"wgmma.m64n256k16.f32.f16"`` and counts once for each of its four warps
- ``global_load``, ``global_store``, ``global_atomic``: ``bytes`` asked for, by bulk copies too,
  32-byte ``sectors`` summed over requests, ``ideal_sectors`` = bytes / 32
- ``bulk_bytes``: of boxes of bulk copies, parts outside an image too; absent: none
- ``dram_read_bytes``, ``dram_write_bytes``: behind an L2 cache; absent where none was modelled
- ``unique_load_bytes``, ``unique_store_bytes``: of the sectors touched at least once in a launch
- ``shared_load``, ``shared_store``, ``ldmatrix``: ``wavefronts``, the ``excess`` over those needed
  without bank conflicts

The time that they imply is a lower bound that is modelled, not measured: the arithmetic at the peak
rate, or all unique bytes once through DRAM, whichever takes longer.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .report import as_table, load_pyplot


class ReportError(Exception):
    """An input that the report cannot be made from."""


# What an SM holds: warps, blocks, KB of shared memory; and the KB that each block takes besides.
ARCHITECTURES = {
    75: (32, 16, 64, 0),
    80: (64, 32, 164, 1),
    86: (48, 16, 100, 1),
    89: (48, 24, 100, 1),
    90: (64, 32, 228, 1),
    100: (64, 32, 228, 1),
    120: (48, 24, 100, 1),
}
REGISTERS, REGISTER_UNIT = 16384, 256  # of each quarter of an SM; allocated to a warp at a time

# TFLOP/s by the tensor cores' operands, and of float32 off them, and TB/s. From the datasheets; but
# mma.sync reaches 62.9 % of what wgmma does on an H100 (arXiv:2402.13499).
PEAKS = {
    "a100": {"f16": 312, "bf16": 312, "tf32": 156, "f64": 19.5, "fp32": 19.5, "dram": 2.04},
    "h100": {
        **{"wgmma.f16": 989, "wgmma.bf16": 989, "wgmma.tf32": 494},
        **{"f16": 622, "bf16": 622, "tf32": 311, "f64": 67, "fp32": 67, "dram": 3.35},
    },
}
WGMMA = "wgmma."

# As in csrc/cuda/convolution/convolution.h: name, bytes of a wide value, tiles by config.
_HALF = (4, ((128, 128), (128, 64), (64, 64)))
_FLOAT = (4, ((128, 64), (64, 64), (64, 32)))
ARITHMETICS = {
    "TensorCores16<(sspcab::cuda::Arithmetic)0": ("half", *_HALF),
    "TensorCores16<(sspcab::cuda::Arithmetic)1": ("bfloat16", *_HALF),
    "Tf32TensorCores": ("tf32", *_HALF),
    "CudaCores": ("float", *_FLOAT),
    "DoubleTensorCores": ("double", 8, ((64, 64), (64, 32), (32, 32))),
}
STAGES, DEPTH_BYTES = 4, 64
HOPPER_TILES = ((128, 256), (128, 128), (128, 64))  # of half, bfloat16 and tf32
HOPPER_THREADS, HOPPER_SHARED_BYTES = 384, 227 << 10
HOPPER = "hopper_"  # what the names of these kernels begin with


@dataclass(frozen=True)
class Kernel:
    """A kernel by its short name, and how it is launched."""

    name: str
    threads: int
    dynamic_bytes: int

    @classmethod
    def of(cls, demangled: str) -> Kernel:
        stage = re.search(r"sspcab::cuda::(?:\(anonymous namespace\)::)?(\w+)_kernel", demangled)
        if stage is None:
            raise ReportError(f"not a kernel of sspcab_cuda: {demangled}")
        loop = re.search(r"MainLoop<sspcab::cuda::(TensorCores16<\S+?\d|\w+).*?, (\d),", demangled)
        if loop:
            arithmetic, wide_bytes, tiles = ARITHMETICS[loop[1]]
            m, n = tiles[int(loop[2])]
            dynamic_bytes = shared_bytes(m, n, wide_bytes)
            return cls(f"{stage[1]} {arithmetic} {m}x{n}", 128, dynamic_bytes)
        loop = re.search(r"HopperLoop<\(sspcab::cuda::Arithmetic\)(\d), (\d),", demangled)
        if loop:
            arithmetic, *_ = [*ARITHMETICS.values()][int(loop[1])]
            m, n = HOPPER_TILES[int(loop[2])]
            name = f"{stage[1]} {arithmetic} {m}x{n}"
            return cls(name, HOPPER_THREADS, HOPPER_SHARED_BYTES)
        arguments = re.match(r"<(.*?)>\(", demangled[stage.end() :])
        words = arguments[1].replace("sspcab::cuda::", "").split(", ") if arguments else []
        short = (word.removeprefix("__").removeprefix("nv_") for word in words)
        threads = 1024 if stage[1] in ("gate", "excitation_gradient") else 256
        return cls(" ".join([stage[1], *short]), threads, dynamic_bytes=0)


def stage_of(kernel: str) -> str:
    """What a kernel does, by its short name: forward, scale, … on whichever architecture."""
    return kernel.split()[0].removeprefix(HOPPER)


def shared_bytes(m: int, n: int, wide_bytes: int) -> int:
    """Dynamic shared memory of a tile: the pipeline and NCHW results take turns in it."""
    pipeline = STAGES * (m + n) * DEPTH_BYTES
    return max(pipeline, n * (m + 16 // wide_bytes) * wide_bytes)


def occupancy(arch: str, registers: int, shared: int, threads: int) -> float | None:
    """Share of an SM's warps that can be resident; None on an architecture not in the table."""
    number = int(re.sub(r"\D", "", arch))
    if number not in ARCHITECTURES:
        return None
    sm_warps, sm_blocks, sm_shared, reserved = ARCHITECTURES[number]
    warps = threads // 32
    warp_registers = -(-registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
    blocks = min(sm_blocks, sm_warps // warps, 4 * (REGISTERS // warp_registers) // warps)
    if shared:
        blocks = min(blocks, (sm_shared << 10) // (shared + (reserved << 10)))
    return blocks * warps / sm_warps


@dataclass(frozen=True)
class Resources:
    """What a kernel needs on an architecture."""

    kernel: str
    arch: str
    registers: int
    spill_bytes: int
    static_bytes: int
    dynamic_bytes: int
    threads: int
    occupancy: float | None


# ptxas also lists functions that a kernel calls: the name tells which figures are the kernel's.
_PTXAS = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>sm_\w+)'"
    r"(?:(?!Compiling entry).)*?Function properties for (?P=name)\s+"
    r"\d+ bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r"(?:(?!Compiling entry).)*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def read_resources(log: Path) -> list[Resources]:
    """The kernels of a build's log, in the order of their names."""
    found = list(_PTXAS.finditer(log.read_text(errors="replace")))
    if not found:
        raise ReportError(f"{log}: no output of ptxas -v in it; it takes a build with CUDA")
    rows = []
    for match, demangled in zip(found, demangle(match["name"] for match in found), strict=True):
        kernel, arch, registers = Kernel.of(demangled), match["arch"], int(match["registers"])
        if kernel.name.startswith(HOPPER) and arch != "sm_90a":
            continue
        smem = re.search(r"(\d+) bytes smem", match["rest"])
        static, dynamic = int(smem[1]) if smem else 0, kernel.dynamic_bytes
        spills = int(match["stores"]) + int(match["loads"])
        share = occupancy(arch, registers, static + dynamic, kernel.threads)
        needs = (registers, spills, static, dynamic, kernel.threads, share)
        rows.append(Resources(kernel.name, arch, *needs))
    return sorted(rows, key=lambda row: (row.kernel, row.arch))


@dataclass(frozen=True)
class Work:
    """What a kernel did in all its launches, and the time that implies on a GPU."""

    problem: str
    kernel: str
    gpu: str
    launches: int
    tensor_flops: int
    wgmma_percent: float | None  # of them
    sector_ratio: float | None
    shared_excess_percent: float | None  # of all wavefronts
    flops_per_byte: float | None  # tensor FLOPs, bytes asked for from global memory
    instructions_per_mma: float | None  # both for each warp, which does a quarter of a wgmma
    unique_bytes: int
    bulk_bytes: int
    dram_read_bytes: int | None
    dram_write_bytes: int | None
    limit: str
    modelled_us: float

    @classmethod
    def of(cls, problem: str, kernel: str, counters: dict[str, Any], gpu: str) -> Work:
        peaks, mma = PEAKS[gpu], counters["mma"]
        memory = [counters[f"global_{kind}"] for kind in ("load", "store", "atomic")]
        shared = [counters[kind] for kind in ("shared_load", "shared_store", "ldmatrix")]
        flops = _sum(mma.values(), "flops")
        wgmma_flops = _sum((one for kind, one in mma.items() if kind.startswith(WGMMA)), "flops")
        unique_bytes = counters["unique_load_bytes"] + counters["unique_store_bytes"]
        classes = counters["classes"]
        fp32 = _sum((classes[kind] for kind in ("fp32", "fp32_fma") if kind in classes), "thread")
        times = {  # in 1e-12 s
            "tensor": sum(one["flops"] / peaks[_operands(kind)] for kind, one in mma.items()),
            "fp32": 2 * fp32 / peaks["fp32"],  # the peak counts each instruction as two
            "DRAM": unique_bytes / peaks["dram"],
        }
        limit = max(times, key=lambda kind: times[kind])
        return cls(
            problem,
            kernel,
            gpu,
            counters["launches"],
            flops,
            _ratio(100 * wgmma_flops, flops),
            _ratio(_sum(memory, "sectors"), _sum(memory, "ideal_sectors")),
            _ratio(100 * _sum(shared, "excess"), _sum(shared, "wavefronts")),
            _ratio(flops, counters["global_load"]["bytes"]),
            _ratio(counters["warp_instructions"], _sum(mma.values(), "warp")),
            unique_bytes,
            counters.get("bulk_bytes", 0),
            counters.get("dram_read_bytes"),
            counters.get("dram_write_bytes"),
            limit,
            1e-6 * times[limit],
        )


def read_work(file: Path, gpu: str) -> list[Work]:
    """The kernels of a file of counters, in the order of their names."""
    try:
        counters = json.loads(file.read_text())
        names = zip(counters, demangle(counters), strict=True)
        ours = {mangled: Kernel.of(name) for mangled, name in names if "sspcab::cuda::" in name}
        rows = [Work.of(file.stem, kernel.name, counters[key], gpu) for key, kernel in ours.items()]
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{file}: not counters per kernel in JSON: {error!r}") from error
    if not rows:
        raise ReportError(f"{file}: no counters of a kernel of sspcab_cuda in it")
    return sorted(rows, key=lambda row: row.kernel)


def demangle(names: Iterable[str]) -> list[str]:
    return subprocess.check_output(["c++filt"], input="\n".join(names), text=True).splitlines()


def _operands(mma: str) -> str:
    """A key of PEAKS."""
    operands = mma.split(".")[-1]
    return WGMMA + operands if mma.startswith(WGMMA) else operands


def _sum(parts: Iterable[dict[str, int]], key: str) -> int:
    return sum(part[key] for part in parts)


def _ratio(over: float, under: float) -> float | None:
    return over / under if under else None


def table(rows: Sequence[Resources | Work]) -> str:
    records = [asdict(row) for row in rows]
    body = ([_text(value) for value in record.values()] for record in records)
    return as_table([list(records[0]), *body])


def _text(value: str | float | None) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)


def write_csv(path: Path, rows: Sequence[Resources | Work]) -> None:
    """A line per row; columns of the other kind are empty."""
    records = [asdict(row) for row in rows]
    columns = list(dict.fromkeys(key for record in records for key in record))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(records)


def write_plot(path: Path, resources: Sequence[Resources], work: Sequence[Work]) -> None:
    """Occupancy of the tiled convolutions, and beside it the modelled time, a bar per kernel."""
    pyplot = load_pyplot()
    tiled = (row for row in resources if row.dynamic_bytes)
    panels = {"occupancy": {f"{row.kernel} {row.arch}": row.occupancy or 0 for row in tiled}}
    if work:
        panels["µs, modelled, not measured"] = {
            f"{row.kernel} at {row.problem}": row.modelled_us for row in work
        }
    height = max(map(len, panels.values()))  # of all panels, for bars of one thickness
    size = 8 * len(panels), 1 + 0.2 * height
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False)
    for ax, (title, bars) in zip(axes.flat, panels.items(), strict=True):
        ax.barh(list(bars), list(bars.values()))
        ax.set(xlabel=title, ylim=(height, -1))  # the first on top
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernel_report")
    parser.add_argument("--resources", type=Path, required=True, metavar="BUILD_LOG")
    counters_help = "JSON, see the module's text"
    parser.add_argument(
        "--counters", type=Path, nargs="+", default=[], metavar="FILE", help=counters_help
    )
    parser.add_argument("--gpu", choices=PEAKS, default="a100", help="whose time to model")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write both tables here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a figure here")
    args = parser.parse_args(argv)
    try:
        resources = read_resources(args.resources)
        work = [row for file in args.counters for row in read_work(file, args.gpu)]
    except (OSError, ReportError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"resources\n{table(resources)}")
    if work:
        print(f"\ncounters, and the time on {args.gpu}: modelled, not measured\n{table(work)}")
    if args.csv:
        write_csv(args.csv, [*resources, *work])
    if args.plot:
        write_plot(args.plot, resources, work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
