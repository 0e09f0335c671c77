"""Gradients of recorded values, with the names of `torch.autograd`. The transforms of functions are in `wengert`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from wengert._core import (
    GradError,
    Tensor,
    enable_grad,
    grad_of,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
    zeros_like,
)

__all__ = ["enable_grad", "grad", "is_grad_enabled", "no_grad", "set_grad_enabled"]

_Tensors = Tensor | Sequence[Tensor]


@overload
def grad(
    outputs: _Tensors,
    inputs: _Tensors,
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: Literal[False] | None = None,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]: ...
@overload
def grad(
    outputs: _Tensors,
    inputs: _Tensors,
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    *,
    allow_unused: Literal[True],
    materialize_grads: Literal[False] = False,
) -> tuple[Tensor | None, ...]: ...
def grad(
    outputs: _Tensors,
    inputs: _Tensors,
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of outputs with respect to inputs: Σ outputs · grad_outputs, differentiated.

    `.grad` of the variables is left alone.

    Args:
        outputs: recorded tensors.
        inputs: variables, or tensors that the outputs were computed from.
        grad_outputs: the cotangent of each output, in its shape; None is 1, for a 0-d output.
        retain_graph: whether to keep the history for another pass; by default if create_graph.
        create_graph: whether the gradients can be differentiated again.
        allow_unused: whether an input may be unused, which gives None for it.
        materialize_grads: whether an unused input gives zeros.

    Returns:
        One gradient for each input, in its shape.

    Raises:
        GradError: an input is unused and that is not allowed, or the history was used up.
        ValueError: materialize_grads with allow_unused=False.

    Example:
        >>> import wengert as wg
        >>> x = wg.tensor(2.0).requires_grad_()
        >>> (slope,) = wg.autograd.grad(x * x * x, [x], create_graph=True)
        >>> (bend,) = wg.autograd.grad(slope, [x])
        >>> slope.item(), bend.item()
        (12.0, 12.0)
    """
    if materialize_grads and allow_unused is False:
        raise ValueError("grad: materialize_grads gives zeros for unused inputs, so allow_unused cannot be False")
    outs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    ins = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if grad_outputs is None:
        cotangents = None
    else:
        cotangents = (grad_outputs,) if isinstance(grad_outputs, Tensor) else tuple(grad_outputs)
        if len(cotangents) != len(outs):
            raise GradError(f"grad: {len(outs)} outputs have {len(cotangents)} grad_outputs")
    gradients = grad_of(
        outs,
        ins,
        cotangents,
        retain_graph=retain_graph,
        create_graph=create_graph,
        allow_unused=materialize_grads if allow_unused is None else allow_unused,
    )
    if materialize_grads:
        return tuple(
            zeros_like(own) if gradient is None else gradient for gradient, own in zip(gradients, ins, strict=True)
        )
    return gradients
