"""A block with the structure of the authors' PyTorch code, whose layers are called.

Beside :mod:`.upstream`, which computes from the layers' parameters, this is what hooks and tools
see of the published layer.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class SELayer(nn.Module):
    def __init__(self, channels: int, reduction_ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction_ratio)
        self.fc2 = nn.Linear(channels // reduction_ratio, channels)
        self.relu = nn.ReLU()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.sigmoid(self.fc2(self.relu(self.fc1(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


class SSPCAB(nn.Module):
    def __init__(
        self, channels: int, kernel_dim: int = 1, dilation: int = 1, reduction_ratio: int = 8
    ) -> None:
        super().__init__()
        self.kernel_dim, self.dilation = kernel_dim, dilation
        self.relu = nn.ReLU()
        self.se = SELayer(channels, reduction_ratio)
        self.conv1 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv2 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv3 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv4 = nn.Conv2d(channels, channels, kernel_dim)

    def forward(self, x: Tensor, return_loss: bool = False) -> Any:
        """return_loss is ours: the authors take the loss outside."""
        height, width = x.shape[2:]
        near, far = self.kernel_dim - 1, self.kernel_dim + 2 * self.dilation + 1
        padded = F.pad(x, (self.kernel_dim + self.dilation,) * 4)
        top, bottom = padded[:, :, : height + near], padded[:, :, far:]
        y = self.conv1(top[..., : width + near]) + self.conv2(bottom[..., : width + near])
        out = self.se(self.relu(y + self.conv3(top[..., far:]) + self.conv4(bottom[..., far:])))
        return (out, (out - x).square().mean()) if return_loss else out
