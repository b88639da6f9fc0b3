"""Pixel-level metrics of a whole test set in constant memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from .curves import check_finite
from .overlap import area_to_limit, overlap_weights


class PixelMetrics:
    """AUROC, average precision and AUPRO of score maps that come batch by batch.

    Scores are counted in bins; those of one bin pass as equal, and otherwise the metrics are exact.
    A bin is the leading bits of a float32: sign, exponent and, by default, 11 bits of fraction. So
    no range need be known, and bins are narrow where scores crowd about 0. For probabilities, which
    crowd about 1 too, the float32 is the score minus 1 from 0.5 on.

    The AUROC is off by at most half the share of pairs (a normal, an anomalous pixel) with a bin in
    common; the AUPRO by at most half that share over 0.3, where a region's pixels together have the
    weight of one; the AP by what the order of pixels within their bins can change.

    Args:
        bins: a power of 2 from 2**11 to 2**25. Each takes 24 bytes.
    """

    def __init__(self, bins: int = 2**21) -> None:
        if not 2**11 <= bins <= 2**25 or bins & (bins - 1):
            raise ValueError(f"PixelMetrics: bins must be a power of 2, 2**11 to 2**25; got {bins}")
        self._normal = np.zeros(bins, np.int64)  # pixels in each bin
        self._anomalous = np.zeros(bins, np.int64)
        self._overlap = np.zeros(bins, np.float64)  # sum of anomalous pixels' overlap weights

    def update(self, score_maps: NDArray[np.floating], masks: NDArray[np.bool_]) -> None:
        """Adds a batch of images; a call that raises adds nothing.

        Args:
            score_maps: (B, H, W), finite in float32; higher is more anomalous.
            masks: (B, H, W) bool, True is anomalous. Each connected component (8 neighbours) is a
                region of AUPRO.

        Raises:
            ValueError: with the rule that was broken and the values seen.
        """
        if score_maps.ndim != 3 or masks.shape != score_maps.shape or masks.dtype != np.bool_:
            raise ValueError(
                "PixelMetrics: score_maps must be (B, H, W) and masks (B, H, W) bool; "
                f"got {score_maps.shape} and {masks.shape} {masks.dtype}"
            )
        with np.errstate(over="ignore"):
            scores = score_maps.astype(np.float32)
        check_finite(scores, "PixelMetrics")
        bins = len(self._normal)
        of_pixels = _bins_of(scores, bins)
        self._normal += np.bincount(of_pixels[~masks], minlength=bins)
        self._anomalous += np.bincount(of_pixels[masks], minlength=bins)
        self._overlap += np.bincount(of_pixels[masks], overlap_weights(masks), minlength=bins)

    def compute(self) -> dict[str, float]:
        """``auroc``, ``ap`` and ``aupro`` (to a false positive rate of 0.3) of all pixels so far.

        Raises:
            ValueError: unless there were both normal and anomalous pixels.
        """
        normal, anomalous = np.flatnonzero(self._normal), np.flatnonzero(self._anomalous)
        if not (normal.size and anomalous.size):
            raise ValueError(
                "PixelMetrics: both classes must occur; there were "
                f"{self._normal.sum()} normal and {self._anomalous.sum()} anomalous pixels"
            )
        bins = np.concatenate((normal, anomalous))
        labels = np.repeat([False, True], (normal.size, anomalous.size))
        counts = np.concatenate((self._normal[normal], self._anomalous[anomalous]))
        weights = np.concatenate((self._normal[normal], self._overlap[anomalous]))
        fpr, overlap, _ = roc_curve(labels, bins, sample_weight=weights)
        return {
            "auroc": float(roc_auc_score(labels, bins, sample_weight=counts)),
            "ap": float(average_precision_score(labels, bins, sample_weight=counts)),
            "aupro": area_to_limit(fpr, overlap),
        }


def _bins_of(scores: NDArray[np.float32], bins: int) -> NDArray[np.int64]:
    """Bins in the order of the scores: below 0.5 the first half of them, then the second."""
    upper = scores >= 0.5
    bits = np.where(upper, scores - 1, scores + 0).view(np.uint32)  # + 0 makes 0 of -0
    # Bits order as their floats do, once those of negative ones are flipped.
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    half = bins // 2
    return half * upper + (ordered >> np.uint32(33 - half.bit_length()))
