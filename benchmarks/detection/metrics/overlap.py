"""Area under the per-region overlap curve (AUPRO).

Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021: at each threshold the share of
every true region that is found, averaged over regions, against the false positive rate of all
normal pixels; integrated up to a rate of 0.3 and divided by it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FPR_LIMIT = 0.3

# Neighbours of a pixel in a stack of images (B, H, W): the eight around it in its own image.
NEIGHBOURS = np.zeros((3, 3, 3), np.bool_)
NEIGHBOURS[1] = True


def overlap_weights(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What each anomalous pixel adds to the sum of overlaps: 1 / size of its connected component.

    Weighted so, the true positive rate of pixels is the mean overlap of regions.

    Args:
        masks: (B, H, W).

    Returns:
        (anomalous pixels,), in the order of ``masks[masks]``.
    """
    regions, _ = ndimage.label(masks, NEIGHBOURS)
    of_pixels = regions[masks]
    sizes = np.bincount(of_pixels)
    return 1 / sizes[of_pixels]


def area_to_limit(fpr: NDArray[np.float64], overlap: NDArray[np.float64]) -> float:
    """Area under the curve through these points up to ``FPR_LIMIT``, divided by the limit.

    Args:
        fpr, overlap: (points,), from (0, 0) rising to (1, 1).
    """
    inside = fpr <= FPR_LIMIT
    x = np.append(fpr[inside], FPR_LIMIT)
    y = np.append(overlap[inside], np.interp(FPR_LIMIT, fpr, overlap))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / FPR_LIMIT)
