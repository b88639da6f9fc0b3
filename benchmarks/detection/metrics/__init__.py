"""The published metrics of anomaly detection: arrays in, numbers out.

Images: :func:`roc_auc`, :func:`average_precision`. Their pixels: :class:`PixelMetrics`. Frames of
videos: :func:`micro_auc`, :func:`macro_auc`. Regions and tracks: :func:`rbdc`, :func:`tbdc`.
A higher score is more anomalous, everywhere.
"""

from .curves import average_precision, roc_auc
from .frames import macro_auc, micro_auc, normalise
from .pixels import PixelMetrics
from .regions import Detections, TrueRegion, region_detections
from .tracks import rbdc, tbdc

__all__ = [
    "Detections",
    "PixelMetrics",
    "TrueRegion",
    "average_precision",
    "macro_auc",
    "micro_auc",
    "normalise",
    "rbdc",
    "region_detections",
    "roc_auc",
    "tbdc",
]
