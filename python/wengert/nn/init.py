"""How weights start. Each function fills a parameter or plain tensor and returns it; an expression is refused."""

from __future__ import annotations

import math
from typing import Literal, TypeVar

from wengert import _core
from wengert._core import ShapeError, Tensor

T = TypeVar("T", bound=Tensor)
Mode = Literal["fan_in", "fan_out"]

_GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "conv_transpose1d": 1.0,
    "conv_transpose2d": 1.0,
    "conv_transpose3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which a nonlinearity asks for larger weights.

    1 for linear, convolutions and sigmoid, 5/3 for tanh, √2 for relu, √(2 / (1 + param²)) for leaky_relu, 3/4 for selu.

    Args:
        nonlinearity: its name.
        param: the negative slope of leaky_relu, 0.01 by default.

    Raises:
        ValueError: an unknown name, or a slope that is no number.

    Example:
        >>> from wengert import nn
        >>> nn.init.calculate_gain("leaky_relu", 1.0)
        1.0
    """
    if nonlinearity in _GAINS:
        return _GAINS[nonlinearity]
    if nonlinearity == "leaky_relu":
        if param is None:
            slope = 0.01
        elif isinstance(param, int | float) and not isinstance(param, bool):
            slope = param
        else:
            raise ValueError(f"calculate_gain: the negative slope is a number, not {param!r}")
        return math.sqrt(2.0 / (1.0 + slope * slope))
    known = ", ".join([*_GAINS, "leaky_relu"])
    raise ValueError(f"calculate_gain: no gain is known for {nonlinearity!r}; use one of {known}")


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0) -> T:
    """Fill with numbers uniform in [a, b).

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> w = nn.init.uniform_(wg.zeros((100,)), -1.0, 1.0)
        >>> -1 <= w.min().item() < 0 < w.max().item() < 1
        True
    """
    return _core.uniform_(tensor, a, b)


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """Fill with numbers of the normal distribution with this mean and standard deviation."""
    return _core.normal_(tensor, mean, std)


def constant_(tensor: T, val: float) -> T:
    """Fill with one number.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.init.constant_(wg.zeros((2,)), 0.5).tolist()
        [0.5, 0.5]
    """
    return _core.fill_(tensor, val)


def ones_(tensor: T) -> T:
    """Fill with 1."""
    return _core.fill_(tensor, 1.0)


def zeros_(tensor: T) -> T:
    """Fill with 0."""
    return _core.fill_(tensor, 0.0)


def xavier_uniform_(tensor: T, gain: float = 1.0) -> T:
    """Fill with numbers uniform between ±gain · √(6 / (fan_in + fan_out)).

    The variance then suits both the values forward and the gradients backward.

    Args:
        tensor: of two axes at least, (out, in, …).
        gain: see `calculate_gain`.

    Raises:
        ShapeError: fewer than two axes.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> w = nn.init.xavier_uniform_(wg.zeros((3, 3)))
        >>> w.abs().max().item() <= 1
        True

    Source:
        Glorot and Bengio (2010), Understanding the Difficulty of Training Deep Feedforward Neural Networks.
    """
    fan_in, fan_out = _fans(tensor, "xavier_uniform_")
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    return _core.uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """Fill with normal numbers of standard deviation gain · √(2 / (fan_in + fan_out)).

    Args:
        tensor: of two axes at least, (out, in, …).
        gain: see `calculate_gain`.

    Raises:
        ShapeError: fewer than two axes.

    Source:
        Glorot and Bengio (2010), Understanding the Difficulty of Training Deep Feedforward Neural Networks.
    """
    fan_in, fan_out = _fans(tensor, "xavier_normal_")
    return _core.normal_(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)))


def kaiming_uniform_(tensor: T, a: float = 0.0, mode: Mode = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """Fill with numbers uniform between ±gain · √(3 / fan).

    Args:
        tensor: of two axes at least, (out, in, …).
        a: the negative slope of leaky_relu.
        mode: whether the values forward (fan_in) or the gradients backward (fan_out) keep their size.
        nonlinearity: what follows; gives the gain, see `calculate_gain`.

    Raises:
        ShapeError: fewer than two axes.
        ValueError: an unknown mode or nonlinearity.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> w = nn.init.kaiming_uniform_(wg.zeros((5, 6)), nonlinearity="relu")
        >>> w.abs().max().item() <= 1
        True

    Source:
        He, Zhang, Ren and Sun (2015), Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852.
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity, "kaiming_uniform_")
    return _core.uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: T, a: float = 0.0, mode: Mode = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """Fill with normal numbers of standard deviation gain / √fan; the arguments are those of `kaiming_uniform_`.

    Raises:
        ShapeError: fewer than two axes.
        ValueError: an unknown mode or nonlinearity.

    Source:
        He, Zhang, Ren and Sun (2015), Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852.
    """
    return _core.normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity, "kaiming_normal_"))


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str, name: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{name}: mode is 'fan_in' or 'fan_out', not {mode!r}")
    fan = _fans(tensor, name)[mode == "fan_out"]
    # An empty tensor is filled all the same.
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def _fans(tensor: Tensor, name: str) -> tuple[int, int]:
    """Count the inputs of one output, and the outputs of one input."""
    shape = tensor.shape
    if len(shape) < 2:
        raise ShapeError(f"{name}: a tensor {shape} has no fan_in and fan_out; it must have two axes at least")
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window
