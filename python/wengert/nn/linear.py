"""The affine layer, and two that only pass their input on."""

from __future__ import annotations

import math
from typing import Any

from wengert._core import Device, DType, Tensor, flatten, linear, zeros
from wengert.nn import init
from wengert.nn.module import Layer
from wengert.nn.parameter import Parameter


class Linear(Layer):
    """An affine map of the last axis: y = input · weightᵀ + bias.

    Weight and bias start uniform between ±1/√in_features.

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        bias: whether a bias is added.
        device: of the parameters.
        dtype: of the parameters, float32 by default.

    Shape:
        input (…, in_features), output (…, out_features), weight (out_features, in_features), bias (out_features,).

    Raises:
        ShapeError: when called, the last axis of the input is not in_features.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> layer = nn.Linear(3, 2)
        >>> layer(wg.ones((5, 3))).shape
        (5, 2)

    Source:
        LeCun, Bottou, Orr and Müller (1998), Efficient BackProp, for the start; the scale is PyTorch's.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Device | str | None = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(zeros((out_features, in_features), dtype=dtype, device=device))
        self.bias: Parameter | None
        self.register_parameter("bias", Parameter(zeros((out_features,), dtype=dtype, device=device)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Map input (…, in_features) to (…, out_features)."""
        return linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Flatten(Layer):
    """Merge the axes from start_dim to end_dim into one.

    Args:
        start_dim: the first axis to merge.
        end_dim: the last axis to merge.

    Shape:
        input (…, a, …, b, …), output (…, a · … · b, …).

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.Flatten()(wg.zeros((32, 1, 8, 8))).shape
        (32, 64)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        """Merge the axes."""
        return flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Layer):
    """Give the input back; any arguments of the constructor are ignored.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.Identity()(wg.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """Give the input back."""
        return input
