"""``python -m benchmarks.gpu``: everything that can be proved and measured on this GPU.

Builds the extension for it, runs the CUDA tests, times the block and its rivals, its kernels and
its tiles, and looks for races. Results are written after every part; see README.md in benchmarks.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from . import report
from .parts import SHARES
from .runner import Results, child, run_parts

RESULTS = Path(__file__).parents[1] / "results"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10, help="for all parts (default: 10)")
    parser.add_argument("--only", nargs="+", choices=SHARES, metavar="PART",
                        help=f"of {', '.join(SHARES)}; the others keep their results")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="default: benchmarks/results/<gpu>")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="tiny problems: tests the command")
    parser.add_argument("--report", type=Path, metavar="DIR",
                        help="write tables and plots of a folder of results anew")  # fmt: skip
    parser.add_argument("--part", choices=SHARES, help=argparse.SUPPRESS)  # the process of a part
    parser.add_argument("--seconds", type=float, default=600, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.report:
        report.write(Results(args.report).parts, args.report)
        return 0
    output = args.output or RESULTS / gpu_name()
    if args.part:
        code = child(args.part, output, args.seconds, args.quick)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # PyTorch's threads may abort a process that ends by itself
    signal.signal(signal.SIGTERM, _interrupt)
    parts = [part for part in SHARES if args.only is None or part in args.only]
    results = run_parts(parts, output, 60 * args.minutes, args.quick,
                        lambda results: report.write(results.parts, output))  # fmt: skip
    print(report.markdown(results.parts))
    print(f"written to {output}")
    return int(any(results.parts[part]["status"] == "failed" for part in parts))


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """As Ctrl-C: the running part ends too, and its rows are kept."""
    raise KeyboardInterrupt


def gpu_name() -> str:
    """For a folder: h100-80gb-hbm3. Asked for in another process, whose GPU memory goes with it."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    name = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    words = re.sub(r"[^a-z0-9]+", "-", name.strip().lower()).strip("-")
    return words.removeprefix("nvidia-") or "no-gpu"


if __name__ == "__main__":
    sys.exit(main())
