"""Convolutions over one, two and three axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from wengert._core import Device, DType, Tensor, arange, concat, conv1d, conv2d, conv3d, full, take, zeros
from wengert.nn import init
from wengert.nn.module import Layer
from wengert.nn.parameter import Parameter

_Size = int | Sequence[int]


def _entries(size: _Size, axes: int) -> tuple[int, ...]:
    return (size,) * axes if isinstance(size, int) else tuple(size)


class _Convolution(Layer):
    """What the convolutions share: parameters, their start, padding that is not zeros."""

    _axes: int
    _function: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size | str = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Device | str | None = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if groups < 1:
            raise ValueError(f"{name}: groups={groups} must be at least 1")
        for label, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name}: {label}={channels} must be divisible by groups={groups}")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f"{name}: padding={padding!r}: use a number, 'same' or 'valid'")
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(f"{name}: padding_mode={padding_mode!r}: use zeros, reflect, replicate or circular")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _entries(kernel_size, self._axes)
        self.stride = _entries(stride, self._axes)
        self.padding = padding if isinstance(padding, str) else _entries(padding, self._axes)
        self.dilation = _entries(dilation, self._axes)
        self.groups = groups
        self.padding_mode = padding_mode
        if padding == "same" and any(step != 1 for step in self.stride):
            raise ValueError(f"{name}: padding='same' needs stride 1, not {self.stride}")
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(zeros(shape, dtype=dtype, device=device))
        self.bias: Parameter | None
        self.register_parameter("bias", Parameter(zeros((out_channels,), dtype=dtype, device=device)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        fan_in = self.in_channels // self.groups * math.prod(self.kernel_size)
        bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve the input."""
        if self.padding_mode != "zeros":
            return self._convolve(self._padded(input), 0)
        return self._convolve(input, self.padding)

    def _convolve(self, input: Tensor, padding: _Size | str) -> Tensor:
        return type(self)._function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _padded(self, input: Tensor) -> Tensor:
        """Continue the input beyond its ends, by elements of its own."""
        padded = input
        for axis, (low, high) in enumerate(self._around(), start=input.ndim - self._axes):
            if low or high:
                padded = take(padded, _beyond(self.padding_mode, low, input.shape[axis], high, input.device), axis=axis)
        return padded

    def _around(self) -> list[tuple[int, int]]:
        if self.padding == "valid":
            return [(0, 0)] * self._axes
        if isinstance(self.padding, str):
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [(total // 2, total - total // 2) for total in totals]
        return [(padding, padding) for padding in self.padding]

    def extra_repr(self) -> str:
        """Return the settings."""
        parts = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}",
            f"padding={self.padding}" if self.padding not in ("valid", (0,) * self._axes) else "",
            f"dilation={self.dilation}" if self.dilation != (1,) * self._axes else "",
            f"groups={self.groups}" if self.groups != 1 else "",
            "bias=False" if self.bias is None else "",
            f"padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else "",
        ]
        return ", ".join(part for part in parts if part)


def _beyond(mode: str, low: int, extent: int, high: int, device: Device) -> Tensor:
    """Return the indices of an axis with what continues it: reflected, repeated at the ends, or wrapped around."""
    limit = {"reflect": extent - 1, "circular": extent, "replicate": max(low, high)}[mode]
    if max(low, high) > limit:
        raise ValueError(f"padding_mode={mode!r}: padding ({low}, {high}) is too long for an axis of {extent}")
    if mode == "reflect":
        ends = arange(low, 0, -1, device=device), arange(extent - 2, extent - 2 - high, -1, device=device)
    elif mode == "replicate":
        ends = full((low,), 0, device=device), full((high,), extent - 1, device=device)
    else:
        ends = arange(extent - low, extent, device=device), arange(high, device=device)
    return concat([ends[0], arange(extent, device=device), ends[1]])


class Conv1d(_Convolution):
    """Convolve over one axis.

    output[n, o, p] = bias[o] + Σ weight[o, c, k] · input[n, c, p · stride + k · dilation - padding],
    over the channels c of the group of o and the taps k.

    Weight and bias start uniform between ±1/√(in_channels / groups · kernel_size).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps along the axis.
        stride: steps from window to window.
        padding: elements added at both ends, or "same" or "valid".
        dilation: steps from tap to tap.
        groups: parts of the channels that are convolved apart.
        bias: whether a bias is added.
        padding_mode: what is added: zeros, reflect, replicate or circular.
        device: of the parameters.
        dtype: of the parameters, float32 by default.

    Shape:
        input (N, in_channels, L) or (in_channels, L), output (N, out_channels, (L + 2·padding - dilation·(kernel_size
        - 1) - 1) / stride + 1), weight (out_channels, in_channels / groups, kernel_size), bias (out_channels,).

    Raises:
        ShapeError: when called, the channels do not fit or the kernel covers more than the padded input.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.Conv1d(2, 4, 3, padding=1)(wg.ones((8, 2, 10))).shape
        (8, 4, 10)

    Source:
        LeCun et al. (1989), Backpropagation Applied to Handwritten Zip Code Recognition; the start is PyTorch's.
    """

    _axes = 1
    _function = staticmethod(conv1d)


class Conv2d(_Convolution):
    """Convolve over two axes.

    output[n, o, p] = bias[o] + Σ weight[o, c, k] · input[n, c, p · stride + k · dilation - padding],
    over the channels c of the group of o and the taps k; p and k count along both axes.

    Weight and bias start uniform between ±1/√(in_channels / groups · taps).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps along each axis; one number for both, or two. So are stride, padding and dilation.
        stride: steps from window to window.
        padding: elements added at both ends, or "same" or "valid".
        dilation: steps from tap to tap.
        groups: parts of the channels that are convolved apart.
        bias: whether a bias is added.
        padding_mode: what is added: zeros, reflect, replicate or circular.
        device: of the parameters.
        dtype: of the parameters, float32 by default.

    Shape:
        input (N, in_channels, H, W) or (in_channels, H, W), output (N, out_channels, …) with (H + 2·padding -
        dilation·(kernel_size - 1) - 1) / stride + 1 along each axis, weight (out_channels, in_channels / groups, kernel
        height, kernel width), bias (out_channels,).

    Raises:
        ShapeError: when called, the channels do not fit or the kernel covers more than the padded input.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.Conv2d(1, 32, 3)(wg.ones((64, 1, 28, 28))).shape
        (64, 32, 26, 26)

    Source:
        LeCun et al. (1989), Backpropagation Applied to Handwritten Zip Code Recognition; the start is PyTorch's.
    """

    _axes = 2
    _function = staticmethod(conv2d)


class Conv3d(_Convolution):
    """Convolve over three axes; see `Conv2d`.

    output[n, o, p] = bias[o] + Σ weight[o, c, k] · input[n, c, p · stride + k · dilation - padding].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps along each axis; one number for all, or three. So are stride, padding and dilation.
        stride: steps from window to window.
        padding: elements added at both ends, or "same" or "valid".
        dilation: steps from tap to tap.
        groups: parts of the channels that are convolved apart.
        bias: whether a bias is added.
        padding_mode: what is added: zeros, reflect, replicate or circular.
        device: of the parameters.
        dtype: of the parameters, float32 by default.

    Shape:
        input (N, in_channels, D, H, W) or without N, output (N, out_channels, …), weight (out_channels, in_channels /
        groups, …), bias (out_channels,).

    Raises:
        ShapeError: when called, the channels do not fit or the kernel covers more than the padded input.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.Conv3d(1, 2, 3)(wg.ones((1, 1, 5, 5, 5))).shape
        (1, 2, 3, 3, 3)
    """

    _axes = 3
    _function = staticmethod(conv3d)
