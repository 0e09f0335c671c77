"""The parameter: a tensor that a module registers when it is assigned to an attribute."""

from __future__ import annotations

from typing import Any, Self

from wengert._core import Tensor


class Parameter(Tensor):
    """A variable that belongs to a module.

    Args:
        data: a tensor, whose value it starts from, or what `wg.tensor` takes.
        requires_grad: whether gradients are recorded for it.

    Raises:
        GradError: `requires_grad` with a dtype that has no gradient.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> weight = nn.Parameter(wg.zeros((2, 3)))
        >>> weight.shape, weight.requires_grad, isinstance(weight, wg.Tensor)
        ((2, 3), True, True)
    """

    __slots__ = ()

    def __new__(cls, data: Any, requires_grad: bool = True) -> Self:
        """Start from the value of data, without its history."""
        self = super().__new__(cls, data)
        if requires_grad:
            self.requires_grad_()
        return self

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
