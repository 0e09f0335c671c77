"""What is done to the parameters of a model between backward and step."""

from __future__ import annotations

from collections.abc import Iterable

from wengert._core import Tensor, UnsupportedError, clip, clip_grad_norm, no_grad


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients together so that their norm is max_norm at most.

    total_norm is the norm of all gradients as one vector; each is multiplied by min(1, max_norm / (total_norm + 1e-6)).

    Args:
        parameters: variables; those without a gradient are left out.
        max_norm: the largest norm.
        norm_type: 1, 2 or infinity.
        error_if_nonfinite: whether to read the norm now and raise if it is infinite or NaN.

    Returns:
        The norm before, a 0-d tensor. Nothing is computed until it is read or the optimizer steps.

    Raises:
        UnsupportedError: another norm_type.
        ValueError: max_norm is negative.
        RuntimeError: the norm is not finite, if asked for.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> w = nn.Parameter(wg.tensor([3.0, 4.0]))
        >>> (w * w).sum().backward()
        >>> nn.utils.clip_grad_norm_([w], max_norm=1.0).item()
        10.0
        >>> [round(g, 3) for g in w.grad.tolist()]
        [0.6, 0.8]

    Source:
        Pascanu, Mikolov and Bengio (2013), On the Difficulty of Training Recurrent Neural Networks.
    """
    if norm_type not in (1, 2, float("inf")):
        raise UnsupportedError(f"clip_grad_norm_: norm_type is 1, 2 or inf, not {norm_type}")
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm is 0 at least, not {max_norm}")
    listed = _listed(parameters)
    before = (
        [None if parameter.grad is None else parameter.grad.detach() for parameter in listed]
        if error_if_nonfinite
        else []
    )
    total_norm = clip_grad_norm(listed, float(max_norm), float(norm_type))
    if error_if_nonfinite:
        norm = float(total_norm)
        if norm != norm or norm == float("inf"):
            for parameter, grad in zip(listed, before, strict=True):
                parameter.grad = grad
            raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {norm}; they stay as they were")
    return total_norm


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring each element of each gradient into [-clip_value, clip_value].

    Args:
        parameters: variables; those without a gradient are left out.
        clip_value: the largest size.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> w = nn.Parameter(wg.tensor([3.0, 4.0]))
        >>> (w * w).sum().backward()
        >>> nn.utils.clip_grad_value_([w], 7.0)
        >>> w.grad.tolist()
        [6.0, 7.0]
    """
    bound = float(clip_value)
    with no_grad():
        for parameter in _listed(parameters):
            if parameter.grad is not None:
                parameter.grad = clip(parameter.grad, -bound, bound)


def _listed(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)
