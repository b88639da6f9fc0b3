"""Sub-modules whose parameters the fused kernels read, without calling them.

What a call would have run must not be lost: hooks that only recompute a parameter are run here;
where there is anything else, the owner calls its sub-modules.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .torch_private import FakeTensor, FunctionalTensor

# Names of sub-modules, and the classes whose computation is fused.
Kinds = Sequence[tuple[str, type[nn.Module]]]

_RECOMPUTING = (WeightNorm.__call__, SpectralNorm.__call__, BasePruningMethod.__call__)
_HOOKS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_pre_hooks": "backward pre-hook",
    "_backward_hooks": "backward hook",
}
_PLAIN_FUNCTIONS = (
    Tensor.__torch_function__.__func__,  # type: ignore[attr-defined]
    nn.Parameter.__torch_function__,
)
# What nn.Conv2d must be to add one tap a weight to each pixel.
_GEOMETRY = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def parts(owner: nn.Module, kinds: Kinds) -> list[Any]:
    """Sub-modules of owner, None where there is none."""
    return [owner._modules.get(name) for name, _ in kinds]


def read_plain(owner: nn.Module, kinds: Kinds, weights: list[Tensor], biases: list[Tensor]) -> bool:
    """Appends the parameters of layers among sub-modules; False at the first that isn't as it was
    made.

    All that ordinary sub-modules pay for, at every call, and a small block has few microseconds:
    as an attribute a sub-module takes ten times as long as in its dictionary.
    """
    modules, convolution, linear, parameter = owner._modules, nn.Conv2d, nn.Linear, nn.Parameter
    try:
        for name, kind in kinds:
            module = modules[name]
            if type(module) is not kind:
                return False
            state = module.__dict__
            if (
                state["_forward_hooks"]
                or state["_forward_pre_hooks"]
                or state["_backward_hooks"]
                or state["_backward_pre_hooks"]
                or "forward" in state
            ):
                return False
            if kind is convolution:
                if (
                    state["stride"] != (1, 1)
                    or state["padding"] != (0, 0)
                    or state["dilation"] != (1, 1)
                    or state["groups"] != 1
                ):
                    return False
            elif kind is not linear:
                continue
            parameters = state["_parameters"]
            weight, bias = parameters["weight"], parameters["bias"]
            if type(weight) is not parameter or type(bias) is not parameter:
                return False
            weights.append(weight)
            biases.append(bias)
    except KeyError:  # one is missing, or a parameter is computed
        return False
    return True


def read(modules: Iterable[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of sub-modules for which there is no :func:`reason_to_call`."""
    weights, biases = [], []
    for module in modules:
        for hook in module._forward_pre_hooks.values():
            hook(module, ())
        weights.append(module.weight)  # not always a parameter: what is recomputed is an attribute
        biases.append(module.bias)
    return weights, biases  # type: ignore[return-value]


def reason_to_call(owner: nn.Module, kinds: Kinds, prefix: str = "") -> str | None:
    """Why sub-modules have to be called: what of the first such one would be lost by reading it.

    Args:
        owner: whose sub-modules they are.
        kinds: which, and the class of each.
        prefix: of their names, for the words.

    Raises:
        RuntimeError: there is nothing in the place of a sub-module.
    """
    for name, kind in kinds:
        module = owner._modules.get(name)
        if module is None:
            raise RuntimeError(f"sspcab: {prefix}{name} must be a module; got None")
        reason = _reason(kind, module)
        if reason is not None:
            return f"{prefix}{name} {reason}"
    return None


def warn_once(owner: nn.Module, reason: str) -> None:
    """Once for each owner, and for the parts that it calls."""
    if torch.compiler.is_compiling() or owner.__dict__.get("_has_warned"):
        return
    for module in owner.modules():
        if type(module).__module__.startswith(__package__):
            module.__dict__["_has_warned"] = True
    kind = type(owner).__name__
    warnings.warn(
        f"sspcab: {reason}, so this {kind} calls its sub-modules, as the published layer does: the "
        "same numbers, in up to the published layer's time and memory. Once that is gone it goes "
        "back to the fused kernels",
        stacklevel=4,
    )


def _reason(kind: type[nn.Module], module: nn.Module) -> str | None:
    if not isinstance(module, kind):
        return f"is a {_name(type(module))}"
    if type(module).__call__ is not kind.__call__:
        return f"has another __call__, {_name(type(module).__call__)}"
    # Subclasses may read as kind does: parametrised layers do.
    for method in ("forward", "_conv_forward"):
        own = module.__dict__.get(method, getattr(type(module), method, None))
        if own is not getattr(kind, method, None):
            return f"has another {method}, {_name(own)}"
    for attribute, sort in _HOOKS.items():
        for hook in getattr(module, attribute).values():
            if attribute != "_forward_pre_hooks" or type(hook).__call__ not in _RECOMPUTING:
                return f"has the {sort} {_name(hook)}"
    parameters = module._parameters
    for name in ("weight", "bias"):
        if name in parameters:
            parameter = parameters[name]
            if parameter is None:
                return f"has no {name}"
            if not _holds_values(parameter):
                return f"has a {name} of {_name(type(parameter))}"
    if isinstance(module, nn.Conv2d):
        geometry = {name: getattr(module, name) for name in _GEOMETRY}
        if geometry != _GEOMETRY:
            return "has " + ", ".join(f"{name} {value}" for name, value in geometry.items())
    return None


def _holds_values(tensor: Tensor) -> bool:
    """As tensors do, and what PyTorch traces with in their place: not quantised, not sharded, not
    with functions of its own."""
    kind = type(tensor)
    function = kind.__torch_function__
    return (
        kind in (Tensor, nn.Parameter)
        or (
            kind.__torch_dispatch__ is Tensor.__torch_dispatch__
            and getattr(function, "__func__", function) in _PLAIN_FUNCTIONS
        )
        or isinstance(tensor, (FakeTensor, FunctionalTensor))
    )


def _name(function: Any) -> str:
    """Of a function, a method, a class or an object that is called."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
