"""Blocks of other implementations as :class:`sspcab_cuda.SSPCAB`, one by one or all in a model.

They differ in names, in the order of the corners and in the activation; ``variant`` keeps the
numbers. PyTorch blocks are recognised by their structure; where they come from isn't imported. A
converted block takes over the very convolutions, linear layers and activations of the old one (also
another activation in the place of a ReLU): parameters (so optimizers stay valid), device, dtype,
``requires_grad``, training mode and the order of ``parameters()`` stay, and the keys of the
``state_dict`` become those of :class:`sspcab_cuda.SSPCAB`. For a block apart from the old one
convert ``copy.deepcopy(block)``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from .equivalence import difference
from .implementations import ACTIVATIONS, ANOMALIB, LAYERS, UPSTREAM, Names
from .modules import SSPCAB

_Block = TypeVar("_Block", bound=nn.Module)

_CALL_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_STATE_HOOKS = (
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
# What Module keeps about _CALL_HOOKS.
_HOOK_FLAGS = (
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_is_full_backward_hook",
)


def from_upstream(block: nn.Module) -> SSPCAB:
    """The block of the authors' PyTorch code, with the layers of ``block``.

    Args:
        block: a module with the structure of the authors' ``SSPCAB``: ``conv1`` to ``conv4``,
            ``se.fc1``, ``se.fc2``, ``pad`` and ``border_input``.

    Returns:
        A block of the variant ``"paper"`` that computes the same. Hooks on ``block`` itself stay
        behind.

    Raises:
        TypeError: ``block`` is no module.
        ValueError: its structure is another, parts of it have hooks, which aren't tried out, or
            it computes something else, as tried out on copies of it and a small random image.
    """
    return _checked(block, UPSTREAM)


def from_anomalib(block: nn.Module) -> SSPCAB:
    """The block of anomalib, with the layers of ``block``.

    Args:
        block: a module with the structure of anomalib's ``SSPCAB``: ``masked_conv1`` to
            ``masked_conv4`` (top-left, top-right, bottom-left, bottom-right),
            ``attention_module.fc1``, ``attention_module.fc2``, ``pad`` and ``crop``.

    Returns:
        A block of the variant ``"anomalib"`` that computes the same. Hooks on ``block`` itself stay
        behind.

    Raises:
        TypeError: ``block`` is no module.
        ValueError: its structure is another, parts of it have hooks, which aren't tried out, or
            it computes something else, as tried out on copies of it and a small random image.
    """
    return _checked(block, ANOMALIB)


def to_anomalib(block: SSPCAB) -> nn.Module:
    """anomalib's ``SSPCAB`` with the layers of ``block``, a block of the variant ``"anomalib"``.

    Raises:
        TypeError: ``block`` is no :class:`sspcab_cuda.SSPCAB`.
        ValueError: it is of another variant, or computes something else.
        ImportError: anomalib isn't installed.
    """
    if not isinstance(block, SSPCAB):
        raise TypeError(f"sspcab: block must be a sspcab_cuda.SSPCAB; got {type(block).__name__}")
    if block.variant != "anomalib":
        raise ValueError(
            "sspcab: anomalib's block has no activation, so block must be of the variant "
            f"'anomalib'; got {block.variant!r}"
        )
    try:
        from anomalib.models.components.layers import SSPCAB as AnomalibSSPCAB
    except ImportError as error:
        raise ImportError("sspcab: to_anomalib needs anomalib: pip install anomalib") from error
    for path in ("se", *ACTIVATIONS):
        _check_unhooked(f"block.{path}", block.get_submodule(path), (*_CALL_HOOKS, *_STATE_HOOKS))
    channels, kernel_dim = block.conv1.in_channels, block.conv1.kernel_size[0]
    ratio = _reduction_ratio(channels, block.se.fc1.out_features)

    def convert(block: nn.Module) -> nn.Module:
        with torch.device("meta"):
            new: nn.Module = AnomalibSSPCAB(channels, kernel_dim, block.dilation, ratio)
        return _take_over(block, LAYERS, new, ANOMALIB.layers)

    _check_same("block", block, convert, channels, kernel_dim + block.dilation)
    return convert(block)


def from_tensorflow(arrays: Sequence[Any], dilation: int) -> SSPCAB:
    """The block of the authors' TensorFlow code, from its variables.

    Args:
        arrays: twelve numpy arrays in the order in which the variables are created and Keras lists
            them, each kernel before its bias: four convolutions (top-left, bottom-left, top-right,
            bottom-right) with kernels ``(k', k', C, C)``, input channels before output channels;
            two dense layers with kernels ``(C, C // r)`` and ``(C // r, C)``. They are copied and
            keep their dtype.
        dilation: d ≥ 0, in pixels; no variable tells it.

    Returns:
        A block of the variant ``"tensorflow"`` that computes the same from ``(N, C, H, W)``.

    Raises:
        ValueError: the arrays aren't of these shapes or not of one floating dtype, or ``dilation``
            is no integer ≥ 0.
    """
    tensors = [torch.tensor(array) for array in arrays]
    dimensions = [tensor.dim() for tensor in tensors]
    if dimensions != [4, 1] * 4 + [2, 1] * 2:
        raise ValueError(
            "sspcab: arrays must be kernel and bias of four convolutions and two dense layers, "
            f"with 4, 1, 4, 1, 4, 1, 4, 1, 2, 1, 2, 1 dimensions; got {dimensions}"
        )
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) > 1 or not tensors[0].is_floating_point():
        names = ", ".join(sorted(map(str, dtypes)))
        raise ValueError(f"sspcab: arrays must be of one floating dtype; got {names}")
    kernel_dim, channels, hidden = len(tensors[0]), tensors[0].shape[-1], tensors[8].shape[-1]
    expected = [(kernel_dim, kernel_dim, channels, channels), (channels,)] * 4
    expected += [(channels, hidden), (hidden,), (hidden, channels), (channels,)]
    for index, (tensor, shape) in enumerate(zip(tensors, expected, strict=True)):
        if tensor.shape != shape:
            raise ValueError(
                f"sspcab: arrays[{index}] must be {shape}, going by arrays[0] and arrays[8]; "
                f"got {tuple(tensor.shape)}"
            )
    ratio = _reduction_ratio(channels, hidden)
    with torch.device("meta"):
        block = SSPCAB(channels, kernel_dim, dilation, ratio, "tensorflow")
    # (rows, columns, in, out) and (in, out) become (out, in, rows, columns) and (out, in).
    kernels = [k.permute(3, 2, 0, 1) if k.dim() == 4 else k.t() for k in tensors[::2]]
    state = {f"{name}.weight": k.contiguous() for name, k in zip(LAYERS, kernels, strict=True)}
    state |= {f"{name}.bias": b for name, b in zip(LAYERS, tensors[1::2], strict=True)}
    block.load_state_dict(state, assign=True)
    return block


def replace(model: nn.Module, classes: Collection[type[nn.Module]] = ()) -> dict[str, nn.Module]:
    """Swaps every upstream and anomalib block in ``model`` for a :class:`sspcab_cuda.SSPCAB`.

    Blocks are recognised by the class name ``SSPCAB``, or by ``classes``, and must be what
    :func:`.from_upstream` or :func:`.from_anomalib` take; one of that name with another structure
    is left as it is, with a warning. A block that occurs in several places is converted once.
    Forward and backward hooks on a block stay, with their handles. An optimizer of the model stays
    valid. A second call finds nothing to swap.

    Args:
        model: any module that holds blocks, at any depth; not a block itself, which can't be
            swapped in place. Load old checkpoints of anomalib's blocks before: the keys change.
        classes: classes whose instances are blocks too, such as a copy of the authors' code under
            another name.

    Returns:
        The old blocks by name, in the order of ``model.named_modules()``. They share layers and
        hooks with the new ones: ``model.set_submodule(name, old)`` puts one back.

    Raises:
        TypeError: ``model`` is no module, or ``classes`` are no classes of modules.
        ValueError: ``model`` is a block, or a block can't be converted; nothing is changed then.
    """
    _check_module("model", model)
    kinds = _checked_classes(classes)
    found = {
        name: (module, names)
        for name, module in model.named_modules(remove_duplicate=False)
        if (names := _recognise(name, module, kinds)) is not None
    }
    if "" in found:
        origin = "from_upstream" if found[""][1] is UPSTREAM else "from_anomalib"
        raise ValueError(
            "sspcab: replace swaps the blocks in a model; this model is a block: use "
            f"sspcab_cuda.convert.{origin}"
        )
    new: dict[nn.Module, SSPCAB] = {}
    for name, (old, names) in found.items():
        if name.endswith("_orig_mod") or old._compiled_call_impl is not None:
            raise ValueError(f"sspcab: {name} is compiled; replace first, then compile")
        _check_unhooked(name, old, _STATE_HOOKS)
        if old not in new:
            new[old] = _checked(old, names, name)
    for name, (old, _) in found.items():
        for hooks in (*_CALL_HOOKS, *_HOOK_FLAGS):
            # Shared, not copied: a handle finds its hook by the dictionary.
            setattr(new[old], hooks, getattr(old, hooks))
        model.set_submodule(name, new[old])
    return {name: old for name, (old, _) in found.items()}


def _recognise(name: str, module: nn.Module, classes: tuple[type[nn.Module], ...]) -> Names | None:
    """Whose block a module is: None if it is none, or none of a known structure."""
    named = isinstance(module, classes)
    if isinstance(module, SSPCAB) or not (named or type(module).__name__ == "SSPCAB"):
        return None
    names = min((UPSTREAM, ANOMALIB), key=lambda names: len(names.missing_in(module)))
    try:
        names.check(name or "model", module)
    except ValueError as error:
        if named:
            raise
        warnings.warn(f"{error}. It is left as it is, and isn't accelerated", stacklevel=4)
        return None
    return names


def _checked(block: nn.Module, names: Names, where: str = "block") -> SSPCAB:
    """The block converted, once that is known to compute the same."""
    _check_module(where, block)
    new = _convert(block, names, where)
    channels, reach = new.conv1.in_channels, new.kernel_dim + new.dilation
    _check_same(where, block, lambda copy: _convert(copy, names, where), channels, reach)
    return new


def _check_same(
    where: str,
    block: nn.Module,
    convert: Callable[[nn.Module], nn.Module],
    channels: int,
    reach: int,
) -> None:
    different = difference(block, convert, channels, reach)
    if different is not None:
        raise ValueError(
            f"sspcab: {where}, a {type(block).__module__}.{type(block).__qualname__}, must compute "
            f"what the block that takes its place does; {different}"
        )


def _convert(block: nn.Module, names: Names, where: str = "block") -> SSPCAB:
    names.check(where, block)
    convolution, _, _, _, fc1, _ = (attrgetter(path)(block) for path in names.layers)
    for path, layer, kind in (
        (names.layers[0], convolution, nn.Conv2d),
        (names.layers[4], fc1, nn.Linear),
    ):
        if not isinstance(layer, kind):
            raise ValueError(f"sspcab: {where}.{path} must be a {kind.__name__}; got {layer}")
    kernel_dim = convolution.kernel_size[0]
    pad, distance = block.pad, getattr(block, names.distance)
    dilation = pad - kernel_dim if isinstance(pad, int) else -1
    if dilation < 0 or distance != kernel_dim + 2 * dilation + 1:
        raise ValueError(
            f"sspcab: {where}.pad and {where}.{names.distance} must be k' + d and k' + 2d + 1, "
            f"with k' = {kernel_dim} and d ≥ 0; got {pad} and {distance}"
        )
    ratio = _reduction_ratio(convolution.in_channels, fc1.out_features)
    with torch.device("meta"):  # takes no memory and no random numbers
        new = SSPCAB(convolution.in_channels, kernel_dim, dilation, ratio, names.variant)
    _check_layers(where, block, names, new)
    _check_parts(where, block, names)
    kept = [path for path in names.activations if path in dict(block.named_modules())]
    return _take_over(block, (*names.layers, *kept), new, (*LAYERS, *kept))


def _take_over(
    old: nn.Module, old_parts: Sequence[str], new: _Block, new_parts: Sequence[str]
) -> _Block:
    """Gives the parts of one block, its modes and the order of its parameters to another."""
    for old_path, new_path in zip(old_parts, new_parts, strict=True):
        new.set_submodule(new_path, old.get_submodule(old_path))
    children = {
        old_path.split(".")[0]: new_path.split(".")[0]
        for old_path, new_path in zip(old_parts, new_parts, strict=True)
    }
    for name in old._modules:
        if name in children:  # to the end
            new._modules[children[name]] = new._modules.pop(children[name])
    new.training = old.training
    gate, new_gate = (parts[5].split(".")[0] for parts in (old_parts, new_parts))
    new.get_submodule(new_gate).training = old.get_submodule(gate).training
    return new


def _reduction_ratio(channels: int, hidden: int) -> int:
    """An r with C // r = hidden."""
    ratio = channels // hidden if hidden else channels + 1
    if ratio == 0 or channels // ratio != hidden:
        raise ValueError(
            f"sspcab: the gate must have C // r hidden units for an integer r; got {hidden} for "
            f"C = {channels}"
        )
    return ratio


def _check_module(where: str, module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"sspcab: {where} must be a torch.nn.Module; got {type(module).__name__}")


def _checked_classes(classes: Collection[type[nn.Module]]) -> tuple[type[nn.Module], ...]:
    rule = "sspcab: classes must be classes of torch.nn.Module"
    if isinstance(classes, (type, str)):
        raise TypeError(f"{rule}, in a list or the like; got {classes!r}")
    kinds = tuple(classes)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError(f"{rule}; got {kind!r}")
    return kinds


def _check_layers(where: str, block: nn.Module, names: Names, new: SSPCAB) -> None:
    """The layers are as the constructor of our block makes them: sizes, stride, padding, bias."""
    for path, our_path in zip(names.layers, LAYERS, strict=True):
        layer, expected = attrgetter(path)(block), new.get_submodule(our_path)
        if (
            parametrize.type_before_parametrizations(layer) is not type(expected)
            or layer.extra_repr() != expected.extra_repr()
        ):
            raise ValueError(f"sspcab: {where}.{path} must be {expected}; got {layer}")


def _check_parts(where: str, block: nn.Module, names: Names) -> None:
    """Nothing but the layers and activations takes part, and no part has hooks."""
    strangers = []
    for path, module in block.named_modules():
        inner = any(path.startswith(f"{activation}.") for activation in names.activations)
        if inner or path in names.activations or ".parametrizations" in path:
            continue
        if path in ("", names.gate):
            tensors = [*module._parameters, *module._buffers]
            strangers += [f"{path}.{name}".lstrip(".") for name in tensors]
        elif path not in names.layers:
            strangers.append(path)
    if strangers:
        raise ValueError(
            f"sspcab: {where} must have no parts but {', '.join(names.layers)} and activations; "
            f"got {', '.join(strangers)}"
        )
    _check_unhooked(where, block, ())
    for path, module in block.named_modules():
        if path and ".parametrizations" not in path:
            _check_unhooked(f"{where}.{path}", module, (*_CALL_HOOKS, *_STATE_HOOKS))


def _check_unhooked(where: str, module: nn.Module, kinds: Sequence[str]) -> None:
    found = [kind.lstrip("_") for kind in kinds if getattr(module, kind)]
    found += ["forward"] if "forward" in vars(module) else []
    if found:
        raise ValueError(
            f"sspcab: {where} must have no such hooks and no forward of its own to be converted; "
            f"got {', '.join(found)}"
        )
