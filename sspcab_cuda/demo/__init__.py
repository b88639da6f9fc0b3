"""Finds defects in photographs of textures, with and without the block.

``python -m sspcab_cuda.demo`` trains a small autoencoder twice on one texture, each time from the
same seed: once with :class:`sspcab_cuda.SSPCAB` in the place of its penultimate convolution, once
with that convolution. It prints how well each finds defects in a part of the photograph that
neither has seen, and writes a figure. Brick is regular enough to be restored in minutes; gravel
and above all grass are nearly random to so small a host. It needs
``pip install 'sspcab_cuda[demo]'``.

The block enters a training loop with one more term, L_total = L_F + λ · L_SSPCAB::

    block = SSPCAB(channels)                                  # a layer of the host model F

    for x in batches:
        features = encoder(x)
        features, block_loss = block(features, return_loss=True)
        task_loss = criterion(decoder(features), x)           # L_F, whatever the host minimises
        loss = task_loss + 0.1 * block_loss                   # λ = 0.1, the paper's choice
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

Here L_F is the mean absolute error of restoring normal crops into which foreign content was
blended, as DRAEM does; :mod:`sspcab_cuda.demo.train` has the loop in full.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

TEST_CROPS = 64  # with each kind of defect


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the demo with the arguments of the command line, or with ``argv``."""
    try:
        import torch

        from . import data, report, train
    except ModuleNotFoundError as error:
        sys.exit(f"sspcab_cuda.demo needs {error.name}: pip install 'sspcab_cuda[demo]'")

    parser = argparse.ArgumentParser(
        prog="python -m sspcab_cuda.demo",
        description="Finds defects in photographs of textures, with and without the block.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--texture", choices=data.TEXTURES, default="brick", help="photograph")
    parser.add_argument("--epochs", type=int, default=20, help="training epochs of each host")
    parser.add_argument("--seed", type=int, default=0, help="of weights, crops and defects")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder")
    parser.add_argument("--device", type=torch.device, default="cpu", help="where to train")
    args = parser.parse_args(argv)
    if args.epochs < 1:
        parser.error(f"argument --epochs: must be at least 1; got {args.epochs}")
    torch.backends.cudnn.deterministic = True

    texture, held_out = data.split(data.photograph(args.texture))
    donors = [data.photograph(name) for name in data.TRAIN_DONORS]
    others = [name for name in (*data.TEXTURES, *data.TEST_DONORS) if name != args.texture]
    crops = data.make_test_crops(
        held_out, [data.photograph(name) for name in others], TEST_CROPS, args.seed
    )
    results = []
    for name, block in (("without block", False), ("with block", True)):
        model, history = train.train(texture, donors, block, args.epochs, args.seed, args.device)
        maps = train.anomaly_maps(model, crops.images, args.device)
        results.append(report.Result(name, maps, history))

    print(report.table(results, crops))
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"{args.texture}.png"
    report.draw_figure(path, f"Defects in {args.texture}, seed {args.seed}", results, crops)
    print(f"figure: {path}")
