"""Activations as modules. Those with `inplace` take it for PyTorch's sake: memory is reused where it can be anyway."""

from __future__ import annotations

from typing import Literal

from wengert import _core
from wengert._core import Tensor
from wengert.nn.module import Layer


class ReLU(Layer):
    """The positive part: max(input, 0). The gradient at 0 is 0.

    Args:
        inplace: has no effect.

    Shape:
        input any, output the same.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.ReLU()(wg.tensor([-1.0, 0.0, 2.0])).tolist()
        [0.0, 0.0, 2.0]

    Source:
        Nair and Hinton (2010), Rectified Linear Units Improve Restricted Boltzmann Machines.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to each element."""
        return _core.relu(input)

    def extra_repr(self) -> str:
        """Return the settings."""
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Layer):
    """input where it is positive, else negative_slope · input. The gradient at 0 is negative_slope.

    Args:
        negative_slope: the slope below 0.
        inplace: has no effect.

    Shape:
        input any, output the same.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.LeakyReLU(0.25)(wg.tensor([-4.0, 2.0])).tolist()
        [-1.0, 2.0]

    Source:
        Maas, Hannun and Ng (2013), Rectifier Nonlinearities Improve Neural Network Acoustic Models.
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to each element."""
        return _core.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class ELU(Layer):
    """input where it is positive, else alpha · (exp(input) - 1). The gradient at 0 is alpha.

    Args:
        alpha: minus the limit far below 0.
        inplace: has no effect.

    Shape:
        input any, output the same.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.ELU(2.0)(wg.tensor([-100.0, 0.0, 3.0])).tolist()
        [-2.0, 0.0, 3.0]

    Source:
        Clevert, Unterthiner and Hochreiter (2016), Fast and Accurate Deep Network Learning by Exponential Linear Units,
        https://arxiv.org/abs/1511.07289.
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to each element."""
        return _core.elu(input, self.alpha)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class SiLU(Layer):
    """The input times its sigmoid: input / (1 + exp(-input)).

    Args:
        inplace: has no effect.

    Shape:
        input any, output the same.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> [round(y, 4) for y in nn.SiLU()(wg.tensor([-1.0, 0.0, 1.0])).tolist()]
        [-0.2689, 0.0, 0.7311]

    Source:
        Elfwing, Uchibe and Doya (2018), Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
        Reinforcement Learning, https://arxiv.org/abs/1702.03118.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to each element."""
        return _core.silu(input)

    def extra_repr(self) -> str:
        """Return the settings."""
        return "inplace=True" if self.inplace else ""


class Tanh(Layer):
    """The hyperbolic tangent: (exp(2·input) - 1) / (exp(2·input) + 1).

    Shape:
        input any, output the same.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.Tanh()(wg.tensor([0.0])).tolist()
        [0.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to each element."""
        return _core.tanh(input)


class Sigmoid(Layer):
    """The logistic function: 1 / (1 + exp(-input)).

    Shape:
        input any, output the same.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.Sigmoid()(wg.tensor([0.0])).tolist()
        [0.5]
    """

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to each element."""
        return _core.sigmoid(input)


class GELU(Layer):
    """The input times the chance that a standard normal number is below it.

    input/2 · (1 + erf(input/√2)), or, with `approximate="tanh"`,
    input/2 · (1 + tanh(√(2/π) · (input + 0.044715·input³))).

    Args:
        approximate: "none" or "tanh".

    Shape:
        input any, output the same.

    Raises:
        ValueError: another name.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> [round(y, 4) for y in nn.GELU()(wg.tensor([-1.0, 1.0])).tolist()]
        [-0.1587, 0.8413]

    Source:
        Hendrycks and Gimpel (2016), Gaussian Error Linear Units, https://arxiv.org/abs/1606.08415.
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate is 'none' or 'tanh', not {approximate!r}")
        self.approximate: Literal["none", "tanh"] = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Apply it to each element."""
        return _core.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"approximate={self.approximate!r}"


class Softmax(Layer):
    """Positive numbers that sum to 1 along an axis: exp(input) / Σ exp(input).

    Args:
        dim: the axis.

    Shape:
        input any, output the same.

    Raises:
        AxisError: when called, the input has no such axis.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.Softmax(dim=1)(wg.zeros((1, 4))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]

    Source:
        Bridle (1990), Probabilistic Interpretation of Feedforward Classification Network Outputs.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Apply it along the axis."""
        return _core.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"dim={self.dim}"


class LogSoftmax(Layer):
    """The logarithm of `Softmax`: input - log Σ exp(input), exact for inputs of any size.

    Args:
        dim: the axis.

    Shape:
        input any, output the same.

    Raises:
        AxisError: when called, the input has no such axis.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> [round(y, 4) for y in nn.LogSoftmax(dim=0)(wg.tensor([0.0, 0.0])).tolist()]
        [-0.6931, -0.6931]
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Apply it along the axis."""
        return _core.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"dim={self.dim}"
