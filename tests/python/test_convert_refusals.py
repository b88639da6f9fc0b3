"""What the converters refuse, in words: other structures, hooks, arrays of other shapes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import sspcab_cuda
from sspcab_cuda import reference
from sspcab_cuda.convert import from_anomalib, from_tensorflow, from_upstream, to_anomalib
from sspcab_cuda.reference import Variant

from ..helpers import upstream
from .test_convert import SIZES, tensorflow_arrays


def add_scales(block: upstream.SSPCAB) -> None:
    block.scale = nn.Parameter(torch.ones(1))
    block.se.register_buffer("shift", torch.ones(1))


CONV = "Conv2d(16, 16, kernel_size=(2, 2), stride=(1, 1))"
NEEDED = "conv1, conv2, conv3, conv4, se.fc1, se.fc2, pad, border_input"

UNFIT: dict[str, tuple[Callable[[upstream.SSPCAB], object], str]] = {
    "no gate": (
        lambda b: delattr(b, "se"),
        f"block must have {NEEDED}; got SSPCAB without se.fc1, se.fc2",
    ),
    "one dimension": (
        lambda b: setattr(b, "conv1", nn.Conv1d(16, 16, 2)),
        "block.conv1 must be a Conv2d; got Conv1d(16, 16, kernel_size=(2,), stride=(1,))",
    ),
    "gate of convolutions": (
        lambda b: setattr(b.se, "fc1", nn.Conv2d(16, 2, 1)),
        "block.se.fc1 must be a Linear; got Conv2d(16, 2, kernel_size=(1, 1), stride=(1, 1))",
    ),
    "other distance": (
        lambda b: setattr(b, "border_input", 4),
        "block.pad and block.border_input must be k' + d and k' + 2d + 1, with k' = 2 and d ≥ 0; "
        "got 3 and 4",
    ),
    "negative dilation": (
        lambda b: vars(b).update(pad=1, border_input=1),
        "block.pad and block.border_input must be k' + d and k' + 2d + 1, with k' = 2 and d ≥ 0; "
        "got 1 and 1",
    ),
    "padding by a layer": (
        lambda b: setattr(b, "pad", nn.ReflectionPad2d(3)),
        "with k' = 2 and d ≥ 0; got ReflectionPad2d((3, 3, 3, 3)) and 5",
    ),
    "other hidden size": (
        lambda b: setattr(b.se, "fc1", nn.Linear(16, 6)),
        "the gate must have C // r hidden units for an integer r; got 6 for C = 16",
    ),
    "more hidden units than channels": (
        lambda b: setattr(b.se, "fc1", nn.Linear(16, 17)),
        "the gate must have C // r hidden units for an integer r; got 17 for C = 16",
    ),
    "fewer outputs": (
        lambda b: setattr(b, "conv3", nn.Conv2d(16, 8, 2)),
        f"block.conv3 must be {CONV}; got Conv2d(16, 8, kernel_size=(2, 2), stride=(1, 1))",
    ),
    "stride": (
        lambda b: setattr(b, "conv4", nn.Conv2d(16, 16, 2, stride=2)),
        f"block.conv4 must be {CONV}; got Conv2d(16, 16, kernel_size=(2, 2), stride=(2, 2))",
    ),
    "padding": (
        lambda b: setattr(b, "conv1", nn.Conv2d(16, 16, 2, padding=1)),
        f"block.conv1 must be {CONV}; got Conv2d(16, 16, kernel_size=(2, 2), stride=(1, 1), "
        "padding=(1, 1))",
    ),
    "no bias": (
        lambda b: setattr(b, "conv2", nn.Conv2d(16, 16, 2, bias=False)),
        f"block.conv2 must be {CONV}; got Conv2d(16, 16, kernel_size=(2, 2), stride=(1, 1), "
        "bias=False)",
    ),
    "convolution of another class": (
        lambda b: setattr(b, "conv2", nn.LazyConv2d(16, 2)),
        f"block.conv2 must be {CONV}; got LazyConv2d(0, 16, kernel_size=(2, 2), stride=(1, 1))",
    ),
    "other gate": (
        lambda b: setattr(b.se, "fc2", nn.Linear(2, 16, bias=False)),
        "block.se.fc2 must be Linear(in_features=2, out_features=16, bias=True); got "
        "Linear(in_features=2, out_features=16, bias=False)",
    ),
    "normalisation": (
        lambda b: setattr(b, "norm", nn.BatchNorm2d(16)),
        "block must have no parts but conv1, conv2, conv3, conv4, se.fc1, se.fc2 and activations; "
        "got norm",
    ),
    "scales of its own": (
        add_scales,
        "and activations; got scale, se.shift",
    ),
    "hooks": (
        lambda b: (
            b.conv3.register_forward_hook(lambda *_: None),
            b.conv3.register_full_backward_pre_hook(lambda *_: None),
        ),
        "block.conv3 must have no such hooks and no "
        "forward of its own to be converted; got forward_hooks, backward_pre_hooks",
    ),
    "hooks of an activation": (
        lambda b: b.se.sigmoid.register_forward_pre_hook(lambda *_: None),
        "block.se.sigmoid must have no such hooks and "
        "no forward of its own to be converted; got forward_pre_hooks",
    ),
    "hooks of the gate": (
        lambda b: b.se.register_state_dict_post_hook(lambda *_: None),
        "block.se must have no such hooks and no "
        "forward of its own to be converted; got state_dict_hooks",
    ),
    "weight_norm of old": (
        lambda b: nn.utils.weight_norm(b.conv1),
        "block.conv1 must have no such hooks and no "
        "forward of its own to be converted; got forward_pre_hooks",
    ),
    "forward of the block": (
        lambda b: setattr(b, "forward", lambda x: x),
        "block must have no such hooks and no forward of its own to be converted; got forward",
    ),
    "forward of a layer": (
        lambda b: setattr(b.conv1, "forward", lambda x: x),
        "block.conv1 must have no such hooks and no "
        "forward of its own to be converted; got forward",
    ),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(("change", "message"), UNFIT.values(), ids=UNFIT)
def test_another_structure(change: Callable[[upstream.SSPCAB], object], message: str) -> None:
    block = upstream.SSPCAB(16, 2)
    change(block)
    with pytest.raises(ValueError, match=f"^sspcab: .*{re.escape(message)}$"):
        from_upstream(block)


def test_activations_that_anomalib_doesn_t_have(anomalib: ModuleType) -> None:
    block = sspcab_cuda.SSPCAB(16, variant="anomalib")
    block.se.relu.register_forward_hook(lambda *_: None)
    with pytest.raises(
        ValueError, match=r"block\.se\.relu must have no such hooks .* forward_hooks$"
    ):
        to_anomalib(block)
    block = sspcab_cuda.SSPCAB(16, variant="anomalib")
    block.relu = nn.ReLU()
    with (
        pytest.warns(UserWarning, match=r"relu is a torch\.nn\.modules\.activation\.ReLU"),
        pytest.raises(ValueError, match=r"must compute what the block that takes its place does"),
    ):
        to_anomalib(block)


def test_strangers() -> None:
    with pytest.raises(TypeError, match=r"^sspcab: block must be a torch.nn.Module; got dict$"):
        from_upstream({})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got Linear without conv1, .*, pad, border_input$"):
        from_upstream(nn.Linear(2, 2))
    message = (
        "block must have attention_module.fc1, attention_module.fc2, masked_conv1, masked_conv2, "
        "masked_conv3, masked_conv4, pad, crop; got SSPCAB without"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        from_anomalib(upstream.SSPCAB(16))
    with pytest.raises(ValueError, match=r"got SSPCAB without pad, border_input$"):
        from_upstream(reference.SSPCAB(16))


def test_to_anomalib_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    others: tuple[Variant, ...] = ("paper", "tensorflow")
    for variant in others:
        message = rf"must be of the variant 'anomalib'; got '{variant}'$"
        with pytest.raises(ValueError, match=message):
            to_anomalib(sspcab_cuda.SSPCAB(16, variant=variant))
    with pytest.raises(TypeError, match=r"must be a sspcab_cuda.SSPCAB; got Linear$"):
        to_anomalib(nn.Linear(2, 2))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "anomalib.models.components.layers", None)
    with pytest.raises(ImportError, match="to_anomalib needs anomalib: pip install anomalib"):
        to_anomalib(sspcab_cuda.SSPCAB(16, variant="anomalib"))


def test_other_tensorflow_arrays() -> None:
    arrays = tensorflow_arrays(SIZES[1])

    def refused(changes: dict[int, np.ndarray], message: str) -> None:
        other = [changes.get(i, array) for i, array in enumerate(arrays)]
        with pytest.raises(ValueError, match=re.escape(message) + "$"):
            from_tensorflow(other, 1)

    with pytest.raises(ValueError, match=r"1 dimensions; got \[4, 1, 4, 1, 4, 1, 4, 1, 2, 1, 2\]$"):
        from_tensorflow(arrays[:-1], 1)
    refused({0: arrays[1], 1: arrays[0]}, "got [1, 4, 4, 1, 4, 1, 4, 1, 2, 1, 2, 1]")
    refused(
        {4: arrays[4][:1]},
        "arrays[4] must be (2, 2, 6, 6), going by arrays[0] and arrays[8]; got (1, 2, 6, 6)",
    )
    refused(
        {0: arrays[0][..., :3]},
        "arrays[0] must be (2, 2, 3, 3), going by arrays[0] and arrays[8]; got (2, 2, 6, 3)",
    )
    refused({8: arrays[8].T, 9: np.zeros(6), 10: arrays[10].T}, "got (2, 6)")
    refused(
        {8: np.zeros((6, 4)), 9: np.zeros(4), 10: np.zeros((4, 6))},
        "the gate must have C // r hidden units for an integer r; got 4 for C = 6",
    )
    refused(
        {1: arrays[1].astype("float32")},
        "arrays must be of one floating dtype; got torch.float32, torch.float64",
    )
    with pytest.raises(ValueError, match=r"of one floating dtype; got torch.int64$"):
        from_tensorflow([array.astype("int64") for array in arrays], 1)
    with pytest.raises(ValueError, match="dilation must be an integer ≥ 0; got -1"):
        from_tensorflow(arrays, -1)
