"""What PyTorch knows about the compiled operators: autograd and autocast (and :mod:`.fakes`).

The only file that says what autograd saves. Second derivatives and transforms are taken through
:mod:`.transforms`. Schemas and argument shapes: ``csrc/registration.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import fakes
from .torch_private import (
    DelayedError,
    any_requires_grad,
    below_autograd,
    dispatch_key,
    excluding,
    is_batch,
    pytree,
)
from .transforms import FORMULAS, batch_by_batch, has_tangent, is_transformed

assert fakes  # importing it loads the compiled module, which registers the operators

Gradients = tuple[Tensor | None, ...]

masked_conv2d = torch.ops.sspcab.masked_conv2d.default
masked_conv2d_backward = torch.ops.sspcab.masked_conv2d_backward.default
squeeze_excite = torch.ops.sspcab.squeeze_excite.default
squeeze_excite_backward = torch.ops.sspcab.squeeze_excite_backward.default
reconstruction_loss = torch.ops.sspcab.reconstruction_loss.default
reconstruction_loss_backward = torch.ops.sspcab.reconstruction_loss_backward.default
sspcab = torch.ops.sspcab.sspcab.default
sspcab_inference = torch.ops.sspcab.sspcab_inference.default
sspcab_backward = torch.ops.sspcab.sspcab_backward.default


# Autograd. A backward that runs in grad mode is being differentiated itself (create_graph=True):
# then it is computed by the formulas too, from the same saved tensors.


def _goes_by_formula(*grad_outputs: Tensor | None) -> bool:
    """Whether a backward is differentiated, transformed or given a batch of gradients."""
    if torch.is_grad_enabled():
        return True
    grads = [grad for grad in grad_outputs if grad is not None]
    return is_transformed(grads) or any(map(is_batch, grads))


def _differentiable(
    function: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    needs: Sequence[bool],
    grad_outputs: Sequence[Tensor | None],
) -> Gradients:
    """Gradients of function(*inputs), for its first results, by PyTorch's own operators."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases: one input may depend on another, and that way belongs to no gradient of these.
        inputs = [i.view_as(i) for i in inputs]
        outputs = function(*inputs)
    results = (outputs,) if isinstance(outputs, Tensor) else outputs
    pairs = [
        (output, grad)
        for output, grad in zip(results, grad_outputs, strict=False)
        if grad is not None
    ]
    wanted = [i for i, needed in zip(inputs, needs, strict=True) if needed]
    gradients = iter(
        torch.autograd.grad(
            [output for output, _ in pairs],
            wanted,
            [grad for _, grad in pairs],
            create_graph=create_graph,
            allow_unused=True,
        )
    )
    return tuple(next(gradients) if needed else None for needed in needs)


def _only(needs: Sequence[bool], gradients: Sequence[Tensor]) -> Gradients:
    return tuple(g if needed else None for needed, g in zip(needs, gradients, strict=True))


def _spread_bias(needs: Sequence[bool], gradients: Sequence[Tensor]) -> list[Tensor]:
    """x, four weights, bias, rest → x, four weights, four biases, rest. What is done to one
    gradient in place may not reach another."""
    bias = gradients[5]
    copies = [bias.clone() for _ in range(3)] if any(needs[5:9]) else [bias] * 3
    return [*gradients[:5], bias, *copies, *gradients[6:]]


def _gather_bias(needs: Sequence[bool]) -> list[bool]:
    return [*needs[:5], any(needs[5:9]), *needs[9:]]


def _laid_out_as(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients with the strides of their parameters, as DDP's buckets have them."""

    def laid_out(p: Tensor, g: Tensor) -> Tensor:
        if g.stride() == p.stride():
            return g
        sizes_and_strides = zip(p.shape, p.stride(), g.stride(), strict=True)
        if all(size == 1 or ours == theirs for size, ours, theirs in sizes_and_strides):
            return g.as_strided(p.shape, p.stride())  # k' = 1 in channels_last: the same memory
        return torch.empty_like(p).copy_(g)

    return [
        None if g is None else laid_out(p, g) for p, g in zip(parameters, gradients, strict=True)
    ]


# The dispatcher leaves out trailing arguments that have their default values: what follows the
# tensors is kept as it comes, and has as many gradients None.


def _save_masked_conv2d(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.dilation, ctx.relu, *ctx.kernels = inputs[9:]
    # Without ReLU y isn't read: what comes next may edit it in place.
    ctx.save_for_backward(*inputs[:9], output if ctx.relu else inputs[0])


def _masked_conv2d_gradients(ctx: Any, grad_y: Tensor) -> Gradients:
    *inputs, y = ctx.saved_tensors
    needs, options = ctx.needs_input_grad[:9], (None,) * len(ctx.needs_input_grad[9:])
    x, weights = inputs[0], inputs[1:5]
    if _goes_by_formula(grad_y):
        formula = _formula(masked_conv2d, ctx.dilation, ctx.relu)
        return *_differentiable(formula, inputs, needs, (grad_y,)), *options
    gradients = _below_autograd(
        masked_conv2d_backward,
        grad_y,
        x,
        y,
        weights,
        ctx.dilation,
        ctx.relu,
        _gather_bias(needs),
        *ctx.kernels,
    )
    grad_x, *others = _only(needs, _spread_bias(needs, gradients))
    return grad_x, *_laid_out_as(inputs[1:], others), *options


def _save_squeeze_excite(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs, *output[1:])


def _squeeze_excite_gradients(ctx: Any, grad_out: Tensor | None, *_: None) -> Gradients:
    if grad_out is None:
        return (None,) * 5
    x, fc1_weight, fc1_bias, fc2_weight, fc2_bias, mean, hidden, gate = ctx.saved_tensors
    needs = ctx.needs_input_grad
    parameters = (fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    if _goes_by_formula(grad_out):
        formula = FORMULAS[squeeze_excite]
        return _differentiable(formula, (x, *parameters), needs, (grad_out,))
    gradients = _below_autograd(
        squeeze_excite_backward,
        grad_out,
        x,
        mean,
        hidden,
        gate,
        fc1_weight,
        fc2_weight,
        list(needs),
    )
    grad_x, *others = _only(needs, gradients)
    return grad_x, *_laid_out_as(parameters, others)


def _save_reconstruction_loss(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _reconstruction_loss_gradients(ctx: Any, grad_loss: Tensor) -> Gradients:
    needs = ctx.needs_input_grad
    if _goes_by_formula(grad_loss):
        formula = FORMULAS[reconstruction_loss]
        return _differentiable(formula, ctx.saved_tensors, needs, (grad_loss,))
    grad_out = _below_autograd(reconstruction_loss_backward, grad_loss, *ctx.saved_tensors)
    return grad_out if needs[0] else None, -grad_out if needs[1] else None


def _save_sspcab(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.dilation, ctx.relu, _, *ctx.kernels = inputs[13:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(*inputs[:13], *output[2:])


def _sspcab_gradients(
    ctx: Any, grad_out: Tensor | None, grad_loss: Tensor | None, *_: None
) -> Gradients:
    if grad_out is None and grad_loss is None:
        return (None,) * len(ctx.needs_input_grad)
    *inputs, y, mean, hidden, gate = ctx.saved_tensors
    needs, options = ctx.needs_input_grad[:13], (None,) * len(ctx.needs_input_grad[13:])
    x, weights = inputs[0], inputs[1:5]
    if _goes_by_formula(grad_out, grad_loss):
        formula = _formula(sspcab, ctx.dilation, ctx.relu, True)
        return *_differentiable(formula, inputs, needs, (grad_out, grad_loss)), *options
    gradients = _below_autograd(
        sspcab_backward,
        grad_out,
        grad_loss,
        x,
        y,
        mean,
        hidden,
        gate,
        weights,
        inputs[9],
        inputs[11],
        ctx.dilation,
        ctx.relu,
        _gather_bias(needs),
        *ctx.kernels,
    )
    grad_x, *others = _only(needs, _spread_bias(needs, gradients))
    return grad_x, *_laid_out_as(inputs[1:], others), *options


def _formula(operator: Any, *options: Any) -> Callable[..., Any]:
    return lambda *tensors: FORMULAS[operator](*tensors, *options)


def _below_autograd(operator: Any, *arguments: Any) -> Any:
    """Where it is known that nothing is differentiated: 4 µs faster."""
    if torch.compiler.is_compiling():
        return operator(*arguments)
    with below_autograd():
        return operator(*arguments)


def _register_autograd(operator: Any, save: Callable[..., None], gradients: Any) -> None:
    """As torch.library.register_autograd, which takes 0.05 ms more for each call with so many
    arguments (it converts the schema once for every one of them)."""

    def forward(ctx: Any, *arguments: Any) -> Any:
        with below_autograd():
            output = operator(*arguments)
        save(ctx, arguments, output)
        return output

    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        try:
            return gradients(ctx, *grad_outputs)
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            raise RuntimeError(
                f"sspcab: {operator.name().split('::')[1]} reads x, its parameters and its results "
                "again in the backward pass, so they must not be edited in place before; where it "
                "was `h += block(h)`, please write `h = h + block(h)`; got: " + str(error)
            ) from error

    function: Any = type(
        f"{operator.name().split('::')[1]}_function",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward)},
    )

    formula = FORMULAS[operator]

    def implementation(*arguments: Any) -> Any:
        if is_transformed(arguments):
            return formula(*arguments)
        if _differentiated(arguments):
            return function.apply(*arguments)
        with below_autograd():
            return operator(*arguments)

    _library.impl(operator.name().split("::")[1], implementation, "Autograd")


_library = torch.library.Library("sspcab", "IMPL")
_register_autograd(masked_conv2d, _save_masked_conv2d, _masked_conv2d_gradients)
_register_autograd(squeeze_excite, _save_squeeze_excite, _squeeze_excite_gradients)
_register_autograd(reconstruction_loss, _save_reconstruction_loss, _reconstruction_loss_gradients)
_register_autograd(sspcab, _save_sspcab, _sspcab_gradients)


# The other operators are chosen where nothing is differentiated. A captured graph keeps the choice,
# and may be differentiated all the same.


def _differentiated(arguments: Sequence[Any]) -> bool:
    return torch.is_grad_enabled() and any_requires_grad(*arguments)


def infer(*arguments: Any) -> tuple[Tensor, ...]:
    """sspcab_inference where it is known that nothing requires a gradient."""
    if torch.compiler.is_compiling() or is_transformed(arguments):
        return sspcab_inference(*arguments)
    with below_autograd():
        return sspcab_inference(*arguments)


def _inference_with_graph(*arguments: Any) -> tuple[Tensor, ...]:
    if is_transformed(arguments) or _differentiated(arguments):
        return sspcab(*arguments)[:2]
    with below_autograd():
        return sspcab_inference(*arguments)


def _register_without_derivative(operator: Any) -> None:
    message = (
        f"sspcab: {operator.name()} has no derivative; got an argument that is differentiated, as "
        "where a captured backward pass is. Please take second derivatives of the block itself, "
        "with create_graph=True"
    )

    raises = DelayedError(message.encode(), 1)

    def implementation(*arguments: Any) -> Any:
        differentiated = _differentiated(arguments)
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        if is_transformed(tensors) and (differentiated or has_tangent(arguments)):
            raise RuntimeError(message)
        with below_autograd():
            results = operator(*arguments)
        if not differentiated:
            return results
        # To run it is fine: the error waits for a backward.
        return pytree.tree_map(lambda t: raises(t.detach().requires_grad_()), results)

    _library.impl(operator.name().split("::")[1], implementation, "Autograd")


_library.impl("sspcab_inference", _inference_with_graph, "Autograd")
for _operator in FORMULAS:
    for _key in ("FuncTorchBatched", "Batched"):  # torch.vmap, and is_grads_batched=True
        _library.impl(_operator.name().split("::")[1], FORMULAS[_operator], _key)
for _operator in (
    masked_conv2d_backward,
    squeeze_excite_backward,
    reconstruction_loss_backward,
    sspcab_backward,
):
    _register_without_derivative(_operator)
    torch.library.register_vmap(_operator, batch_by_batch(_operator), lib=_library)


# Autocast: x goes to the region's dtype; parameters that are all float32 stay as they are, because
# the kernels take them beside half-precision images, and others follow x. The loss alone is
# computed in float32, as by mse_loss.


def _cast_image(dtype: torch.dtype, x: Tensor, *arguments: Any) -> tuple[Any, ...]:
    if x.dtype != torch.float64:
        x = x.to(dtype)
    if {a.dtype for a in arguments if isinstance(a, Tensor)} == {torch.float32}:
        return x, *arguments
    return x, *(a.to(x.dtype) if isinstance(a, Tensor) else a for a in arguments)


def _cast_loss(dtype: torch.dtype, *images: Tensor) -> tuple[Tensor, ...]:
    return tuple(image if image.dtype == torch.float64 else image.float() for image in images)


def _register_autocast(operator: Any, device: str, cast: Callable[..., tuple[Any, ...]]) -> None:
    key = f"Autocast{device.upper()}"
    inside = dispatch_key(key)

    def implementation(*arguments: Any) -> Any:
        with excluding(inside):
            return operator(*cast(torch.get_autocast_dtype(device), *arguments))

    _library.impl(operator.name().split("::")[1], implementation, key)


for _device in ("cpu", "cuda"):
    for _operator in (masked_conv2d, squeeze_excite, sspcab, sspcab_inference):
        _register_autocast(_operator, _device, _cast_image)
    _register_autocast(reconstruction_loss, _device, _cast_loss)
