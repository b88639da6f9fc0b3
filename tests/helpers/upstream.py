"""The authors' PyTorch block: its names and numbers, in code of our own.

Independent of sspcab_cuda.reference: the four corners are read one pixel of a sub-kernel at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SELayer(nn.Module):
    def __init__(self, num_channels: int, reduction_ratio: int = 8) -> None:
        super().__init__()
        self.reduction_ratio = reduction_ratio
        self.fc1 = nn.Linear(num_channels, num_channels // reduction_ratio)
        self.fc2 = nn.Linear(num_channels // reduction_ratio, num_channels)
        self.relu = nn.ReLU()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.fc1(x.mean((2, 3))))
        return torch.einsum("nchw,nc->nchw", x, self.sigmoid(self.fc2(hidden)))


class SSPCAB(nn.Module):
    def __init__(
        self, channels: int, kernel_dim: int = 1, dilation: int = 1, reduction_ratio: int = 8
    ) -> None:
        super().__init__()
        self.pad = kernel_dim + dilation
        self.border_input = kernel_dim + 2 * dilation + 1
        self.relu = nn.ReLU()
        self.se = SELayer(channels, reduction_ratio)
        self.conv1 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv2 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv3 = nn.Conv2d(channels, channels, kernel_dim)
        self.conv4 = nn.Conv2d(channels, channels, kernel_dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded = nn.functional.pad(x, (self.pad,) * 4)
        total = torch.zeros_like(x)
        for conv, top, left in (
            (self.conv1, 0, 0),
            (self.conv2, self.border_input, 0),
            (self.conv3, 0, self.border_input),
            (self.conv4, self.border_input, self.border_input),
        ):
            assert conv.bias is not None
            total = total + conv.bias[:, None, None]
            for i in range(conv.kernel_size[0]):
                for j in range(conv.kernel_size[1]):
                    tap = padded.narrow(2, top + i, height).narrow(3, left + j, width)
                    total = total + torch.einsum("oc,nchw->nohw", conv.weight[:, :, i, j], tap)
        out: Tensor = self.se(self.relu(total))
        return out
