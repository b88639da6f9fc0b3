"""``python -m benchmarks.detection``: anomaly detection with and without the block.

See README.md in the folder above.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import report
from .blocks import KINDS
from .data import make_mini
from .data.layout import DataError
from .hosts import HOSTS
from .run import DATA, MINIATURE, Settings, SettingsError, make_deterministic, processes, run

_DEFAULT_HOST = {"images": "draem", "videos": "future-frame"}
_FROM_HOST = ("size", "width", "epochs", "batch", "learning_rate")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detection",
        description="Anomaly detection on published data sets, with and without the block.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    mini = commands.add_parser("make-mini", help="write miniature data sets in the real layouts")
    mini.add_argument("folder", type=Path, metavar="DIR")
    mini.add_argument("--seed", type=int, default=0)
    tables = commands.add_parser("table", help="compare results with what was published")
    tables.add_argument("folders", type=Path, nargs="+", metavar="OUTPUT", help="of runs")

    formatter = argparse.ArgumentDefaultsHelpFormatter
    runner = commands.add_parser("run", help="train and evaluate", formatter_class=formatter)
    add = runner.add_argument
    add("--data", choices=DATA, required=True, help="data set")
    add("--root", type=Path, required=True, help="its folder, as its publisher distributes it")
    add("--category", nargs="+", default=[], help="of mvtec: one or more")
    add("--host", choices=HOSTS, help="unset: draem for images, future-frame for videos")
    add("--block", nargs="+", choices=KINDS, default=["fused"], help="what is in the slot")
    add("--seeds", type=int, default=3, help="how many, from 0 on")
    add("--output", type=Path, help="unset: detection-output/DATA-HOST; go on with it if it exists")
    for name in _FROM_HOST:
        kind = float if name == "learning_rate" else int
        values = ", ".join(f"{getattr(spec, name)} for {host}" for host, spec in HOSTS.items())
        add(_option(name), type=kind, help=f"unset: {values}")
    add("--loss-weight", type=float, default=0.1, help="λ of the block's loss")
    add("--kernel-dim", type=int, default=1, help="k' of the block")
    add("--dilation", type=int, default=1, help="d of the block")
    add("--reduction-ratio", type=int, default=8, help="r of the block")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--amp", action="store_true", help="autocast to bfloat16")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--workers", type=int, default=0, help="processes that read training data")
    add("--checkpoint-every", type=int, default=200, help="steps")
    add("--dtd-dir", type=Path, help="textures for draem; unset: Perlin noise")
    add("--flow-loss", action="store_true", help="optical-flow loss in future-frame")
    add("--flow-weights", type=Path, help="torchvision's file of RAFT (small)")
    return parser.parse_args(argv)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def settings_of(args: argparse.Namespace) -> Settings:
    """Fills in what depends on the data set and the host."""
    values = {name: value for name, value in vars(args).items() if name != "command"}
    host = args.host or _DEFAULT_HOST[DATA[args.data]]
    values["host"] = host
    for name in _FROM_HOST:
        if values[name] is None:
            values[name] = getattr(HOSTS[host], name)
    values["categories"] = tuple(values.pop("category"))
    values["blocks"] = tuple(values.pop("block"))
    values["output"] = args.output or Path("detection-output") / f"{args.data}-{host}"
    return Settings(**values)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command with the arguments of the command line, or with ``argv``."""
    args = parse(argv)
    try:
        if args.command == "make-mini":
            make_mini(args.folder, args.seed)
            for name in DATA:
                (args.folder / name / MINIATURE).touch()
            print(f"miniatures: {', '.join(str(args.folder / name) for name in DATA)}")
        elif args.command == "table":
            results = [r for folder in args.folders for r in report.read_results(folder)]
            print(report.comparison_with_published(results))
        else:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable cuBLAS
            make_deterministic()
            settings = settings_of(args)
            with processes(settings.device):
                results = run(settings)
            if results:
                print(report.summary(results))
                print(f"\nresults, checkpoints and figures: {settings.output}")
    except (SettingsError, DataError) as error:
        sys.exit(f"benchmarks.detection: {error}")


if __name__ == "__main__":
    main()
