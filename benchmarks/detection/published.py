"""What Ristea et al. (CVPR 2022) report for the block in other hosts."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One figure, in percent. The names of metrics are those of :mod:`.evaluate`."""

    data: str
    host: str
    metric: str
    without: float | None  # None: not quoted here
    with_block: float


FIGURES = (
    Published("mvtec", "draem", "image AUROC", None, 98.9),
    Published("mvtec", "draem", "pixel AUROC", None, 97.2),
    Published("mvtec", "draem", "pixel AP", None, 69.9),
    Published("mvtec", "cutpaste", "image AUROC", 95.2, 96.1),
    Published("avenue", "future-frame", "micro AUC", 85.1, 87.3),
    Published("avenue", "future-frame", "macro AUC", 81.7, 84.5),
    Published("shanghaitech", "future-frame", "micro AUC", 72.8, 74.5),
    Published("shanghaitech", "future-frame", "macro AUC", 80.6, 82.9),
)
