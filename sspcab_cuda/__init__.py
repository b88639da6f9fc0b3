"""Fused kernels for SSPCAB, the Self-Supervised Predictive Convolutional Attentive Block.

Ristea et al., CVPR 2022. :class:`SSPCAB` takes the place of the published layer: same constructor,
same parameter names, same numbers.
"""

from . import convert, flops, functional, reference
from ._extension import build_info
from .convert import replace
from .decompositions import decompositions
from .explain import explain
from .explanation import Explanation
from .losses import collect_reconstruction_losses, total_loss
from .modules import SSPCAB, MaskedConv2d, SELayer

assert flops  # importing it registers what each operator counts

__version__: str = str(build_info()["version"])

__all__ = [
    "SSPCAB",
    "Explanation",
    "MaskedConv2d",
    "SELayer",
    "__version__",
    "build_info",
    "collect_reconstruction_losses",
    "convert",
    "decompositions",
    "explain",
    "functional",
    "reference",
    "replace",
    "total_loss",
]
