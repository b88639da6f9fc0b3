"""A host model with blocks in it, and its losses by the context and by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sspcab_cuda import SSPCAB, collect_reconstruction_losses, total_loss
from sspcab_cuda.reference import Variant

from .tolerances import assert_equal

VARIANTS: tuple[Variant, ...] = ("paper", "anomalib", "tensorflow")
RUNS = 3  # of blocks, in one forward of Host


class Host(nn.Module):
    """Knows nothing of the loss. Runs its first block once and its second, lying deeper, twice."""

    def __init__(self, variant: Variant = "paper") -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = SSPCAB(16, variant=variant)
        self.second = SSPCAB(16, 2, variant=variant)
        self.deeper = nn.Sequential(nn.Sequential(self.second, nn.Softplus()))
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.deeper(self.deeper(self.first(self.stem(x)))))
        return out

    def by_hand(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What forward returns, and the losses."""
        h, loss1 = self.first(self.stem(x), return_loss=True)
        h, loss2 = self.second(h, return_loss=True)
        h, loss3 = self.second(nn.functional.softplus(h), return_loss=True)
        return self.head(nn.functional.softplus(h)), [loss1, loss2, loss3]


def images(device: str = "cpu") -> Tensor:
    return torch.randn(4, 3, 9, 10, device=device)


def with_gradients(host: nn.Module, losses: Sequence[Tensor], total: Tensor) -> list[Tensor]:
    """The losses, their total and its gradients, one list."""
    return [*losses, total, *torch.autograd.grad(total, list(host.parameters()))]


def by_context(host: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    with collect_reconstruction_losses() as losses:
        out = run(x)
    return with_gradients(host, losses, total_loss(out.square().mean(), losses))


def by_hand(host: Host, x: Tensor) -> list[Tensor]:
    out, losses = host.by_hand(x)
    total = out.square().mean() + 0.1 * (losses[0] + losses[1] + losses[2])
    return with_gradients(host, losses, total)


def assert_as_by_hand(host: Host, results: Sequence[Tensor], x: Tensor) -> None:
    """Bit for bit, but where PyTorch's gradient of mirrored borders adds in any order."""
    in_any_order = x.is_cuda and host.first.variant == "tensorflow"
    for result, expected in zip(results, by_hand(host, x), strict=True):
        if in_any_order:
            torch.testing.assert_close(result, expected)
        else:
            assert_equal(result.detach(), expected.detach())
