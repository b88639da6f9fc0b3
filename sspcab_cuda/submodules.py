"""Sub-modules whose parameters the fused kernels read, without calling them.

What a call would have run must not be lost in silence: hooks that only recompute a parameter are
run here, everything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

_RECOMPUTING = (WeightNorm.__call__, SpectralNorm.__call__, BasePruningMethod.__call__)
_HOOKS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_pre_hooks": "backward pre-hook",
    "_backward_hooks": "backward hook",
}
_UNIT = ((1, 1), (0, 0), (1, 1))


def parts(owner: nn.Module, names: Sequence[str]) -> list[Any]:
    """Sub-modules of owner, None where there is none.

    As attributes they take ten times as long: PyTorch looks for them in three dictionaries, from
    Python, and a small block has few microseconds.
    """
    return [owner._modules.get(name) for name in names]


def check_readable(
    owner: nn.Module, kind: type[nn.Module], names: Sequence[str], modules: Sequence[nn.Module]
) -> None:
    """Nothing is lost if these sub-modules are read instead of called.

    Args:
        owner: the module that reads them.
        kind: the class whose computation is fused: ``nn.Conv2d``, ``nn.Linear`` or ``SELayer``.
        names: of the sub-modules within owner, for messages.

    Raises:
        RuntimeError: a sub-module isn't computed by kind, has a hook that does more than recompute
            a parameter, has no bias, or is a convolution with stride, padding or dilation.
    """
    for module in modules:
        # All that ordinary sub-modules pay for, at every call.
        if (
            type(module) is not kind
            or "forward" in (state := module.__dict__)
            or state["_forward_pre_hooks"]
            or state["_forward_hooks"]
            or state["_backward_pre_hooks"]
            or state["_backward_hooks"]
            or ("bias" in state["_parameters"] and state["_parameters"]["bias"] is None)
            or (
                kind is nn.Conv2d
                and (state["stride"], state["padding"], state["dilation"]) != _UNIT
            )
        ):
            for name, module in zip(names, modules, strict=True):
                _check(type(owner).__name__, kind, name, module)
            return


def read(modules: Iterable[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of sub-modules that :func:`check_readable` has let pass."""
    weights, biases = [], []
    for module in modules:
        for hook in module._forward_pre_hooks.values():
            hook(module, ())
        # What is recomputed is no parameter, but an attribute. See parts for why not all are.
        parameters = module._parameters
        weight, bias = parameters.get("weight"), parameters.get("bias")
        weights.append(module.weight if weight is None else weight)
        biases.append(module.bias if bias is None else bias)
    return weights, biases  # type: ignore[return-value]


def _check(owner: str, kind: type[nn.Module], name: str, module: nn.Module) -> None:
    rule = f"sspcab: {owner} reads the parameters of {name} and doesn't call it, so it must"
    foreign = _foreign(kind, module)
    if foreign is not None:
        raise RuntimeError(
            f"{rule} compute what {kind.__name__} does; got {foreign}. Please merge what that adds "
            f"into weight and bias, or put it there by torch.nn.utils.parametrize"
        )
    for attribute, sort in _HOOKS.items():
        for hook in getattr(module, attribute).values():
            if attribute != "_forward_pre_hooks" or type(hook).__call__ not in _RECOMPUTING:
                raise RuntimeError(
                    f"{rule} have no hooks but those of weight_norm, spectral_norm and prune; got "
                    f"the {sort} {_name(hook)}. Please put it on the whole {owner}"
                )
    if module._parameters.get("bias", module) is None:
        raise RuntimeError(f"{rule} have a bias, of zeros if need be; got None")
    if isinstance(module, nn.Conv2d):
        geometry = (module.stride, module.padding, module.dilation)
        if geometry != _UNIT:
            raise RuntimeError(f"{rule} have stride, padding and dilation {_UNIT}; got {geometry}")


def _foreign(kind: type[nn.Module], module: nn.Module) -> str | None:
    """What computes a sub-module, unless it is kind: subclasses (parametrised ones are) may be."""
    if not isinstance(module, kind):
        return f"{type(module).__module__}.{type(module).__qualname__}"
    for method in ("forward", "_conv_forward"):
        own = module.__dict__.get(method, getattr(type(module), method, None))
        if own is not getattr(kind, method, None):
            return _name(own)
    return None


def _name(function: Any) -> str:
    """Of a function, a method or an object that is called."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
