"""Training and scoring of the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import trange

from .data import CROP, Image, random_crops
from .model import Autoencoder

LAMBDA = 0.1  # weight of the block's loss, the paper's choice
BATCH = 32
STEPS = 30  # per epoch
WINDOW = 5  # pixels: the anomaly map is the error averaged over so many rows and columns


class EpochLoss(NamedTuple):
    """Mean losses of one epoch."""

    task: float
    block: float  # λ · reconstruction loss of the block


def corrupt(x: Tensor, foreign: Tensor, generator: torch.Generator) -> Tensor:
    """Blends foreign content into about a fifth of each crop, within clouds of random noise.

    The host learns to restore the texture. These clouds are none of the shapes it is tested on.

    Args:
        x, foreign: ``(N, 1, H, W)``.
        generator: on the CPU.
    """
    cells = 4 << int(torch.randint(3, (), generator=generator))  # noise of 4, 8 or 16 cells a side
    noise = torch.randn(len(x), 1, cells, cells, generator=generator)
    clouds = F.interpolate(noise, x.shape[-2:], mode="bicubic") > 0.8
    opacity = torch.empty(len(x), 1, 1, 1).uniform_(0.3, 1, generator=generator)
    return x + (clouds * opacity).to(x.device) * (foreign - x)


def train(
    texture: Image, donors: list[Image], block: bool, epochs: int, seed: int, device: torch.device
) -> tuple[Autoencoder, list[EpochLoss]]:
    """Trains a host to restore normal crops of the texture, with a progress bar.

    The same seed gives the same initial weights, crops and corruptions with and without the block.

    Returns:
        The host and the losses of each epoch.
    """
    torch.manual_seed(seed)
    model = Autoencoder(block).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)

    def batch(images: list[Image]) -> Tensor:
        return torch.from_numpy(random_crops(images, BATCH, rng)).view(-1, 1, CROP, CROP).to(device)

    history = []
    progress = trange(epochs, desc="with block   " if block else "without block", unit="epoch")
    for _ in progress:
        sums = torch.zeros(2, device=device)
        for _ in range(STEPS):
            x = batch([texture])
            reconstruction, block_loss = model(corrupt(x, batch(donors), generator))
            task_loss = F.l1_loss(reconstruction, x)
            loss = task_loss + LAMBDA * block_loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums += torch.stack((task_loss, LAMBDA * block_loss)).detach()
        history.append(EpochLoss(*(sums / STEPS).tolist()))
        progress.set_postfix(task=f"{history[-1].task:.4f}", block=f"{history[-1].block:.4f}")
    return model, history


@torch.inference_mode()
def anomaly_maps(
    model: Autoencoder, images: NDArray[np.float32], device: torch.device
) -> NDArray[np.float32]:
    """Squared reconstruction error, averaged over a window: ``(N, H, W)`` as the images."""
    x = torch.from_numpy(images).unsqueeze(1).to(device)
    error = (model(x)[0] - x).square()
    smooth = F.avg_pool2d(error, WINDOW, 1, WINDOW // 2, count_include_pad=False)
    maps: NDArray[np.float32] = smooth.squeeze(1).cpu().numpy()
    return maps
