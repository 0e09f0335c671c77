"""Dropout."""

from __future__ import annotations

from wengert._core import Tensor, dropout
from wengert.nn.module import Layer


class Dropout(Layer):
    """In training, each element is 0 with probability p, else input / (1 - p). In evaluation, the input.

    The mask follows from the seed and a counter, so it depends on neither threads nor plans, and is not stored.

    Args:
        p: the probability of an element to be dropped.
        inplace: has no effect.

    Shape:
        input any, output the same.

    Raises:
        ValueError: p is not between 0 and 1.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> layer = nn.Dropout(0.5)
        >>> set(layer(wg.ones((1000,))).tolist()) == {0.0, 2.0}
        True
        >>> layer.eval()(wg.ones((2,))).tolist()
        [1.0, 1.0]

    Source:
        Srivastava et al. (2014), Dropout: A Simple Way to Prevent Neural Networks from Overfitting.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is a probability, between 0 and 1, not {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements if in training."""
        return dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"p={self.p}" + (", inplace=True" if self.inplace else "")
