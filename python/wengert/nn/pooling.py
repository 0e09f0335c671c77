"""Pools over one, two and three axes: the largest element of each window, or its mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wengert._core import (
    Tensor,
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from wengert.nn.module import Layer

_Size = int | Sequence[int]


class _MaxPool(Layer):
    """What the max pools share."""

    _function: Callable[..., Tensor | tuple[Tensor, Tensor]]

    def __init__(
        self,
        kernel_size: _Size,
        stride: _Size | None = None,
        padding: _Size = 0,
        dilation: _Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Take the largest element of each window."""
        return type(self)._function(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class _AvgPool(Layer):
    """What the average pools share."""

    _function: Callable[..., Tensor]

    def __init__(
        self,
        kernel_size: _Size,
        stride: _Size | None = None,
        padding: _Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """Take the mean of each window."""
        return type(self)._function(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool1d(_MaxPool):
    """Take the largest element of each window over one axis; NaN if it holds one.

    output[…, p] = maxₖ input[…, p · stride + k · dilation - padding]. The gradient goes to the first of equal elements.

    Args:
        kernel_size: taps of a window.
        stride: steps from window to window, kernel_size by default.
        padding: elements that count as -∞ at both ends, at most half a window.
        dilation: steps from tap to tap.
        return_indices: whether the positions of the elements in their plane, int64, are returned too.
        ceil_mode: whether a last window may reach beyond the padded input.

    Shape:
        input (N, C, L) or without N, output (N, C, …) with (extent + 2·padding - dilation·(kernel_size - 1)
        - 1) / stride + 1 along each axis, rounded down, or up in ceil_mode.

    Raises:
        ShapeError: when called, a window covers more than the padded input.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.MaxPool1d(2)(wg.ones((2, 3, 4))).shape
        (2, 3, 2)
    """

    _function = staticmethod(max_pool1d)


class MaxPool2d(_MaxPool):
    """Take the largest element of each window over two axes; NaN if it holds one.

    output[…, p] = maxₖ input[…, p · stride + k · dilation - padding]. The gradient goes to the first of equal elements.

    Args:
        kernel_size: taps of a window; one number for all, or 2.
        stride: steps from window to window, kernel_size by default.
        padding: elements that count as -∞ at both ends, at most half a window.
        dilation: steps from tap to tap.
        return_indices: whether the positions of the elements in their plane, int64, are returned too.
        ceil_mode: whether a last window may reach beyond the padded input.

    Shape:
        input (N, C, H, W) or without N, output (N, C, …) with (extent + 2·padding - dilation·(kernel_size - 1)
        - 1) / stride + 1 along each axis, rounded down, or up in ceil_mode.

    Raises:
        ShapeError: when called, a window covers more than the padded input.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.MaxPool2d(2)(wg.ones((2, 3, 8, 8))).shape
        (2, 3, 4, 4)

    Source:
        Ranzato et al. (2007), Unsupervised Learning of Invariant Feature Hierarchies.
    """

    _function = staticmethod(max_pool2d)


class MaxPool3d(_MaxPool):
    """Take the largest element of each window over three axes; NaN if it holds one.

    output[…, p] = maxₖ input[…, p · stride + k · dilation - padding]. The gradient goes to the first of equal elements.

    Args:
        kernel_size: taps of a window; one number for all, or 3.
        stride: steps from window to window, kernel_size by default.
        padding: elements that count as -∞ at both ends, at most half a window.
        dilation: steps from tap to tap.
        return_indices: whether the positions of the elements in their plane, int64, are returned too.
        ceil_mode: whether a last window may reach beyond the padded input.

    Shape:
        input (N, C, D, H, W) or without N, output (N, C, …) with (extent + 2·padding - dilation·(kernel_size - 1)
        - 1) / stride + 1 along each axis, rounded down, or up in ceil_mode.

    Raises:
        ShapeError: when called, a window covers more than the padded input.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.MaxPool3d(2)(wg.ones((2, 3, 4, 4, 4))).shape
        (2, 3, 2, 2, 2)
    """

    _function = staticmethod(max_pool3d)


class AvgPool1d(_AvgPool):
    """Take the mean of each window over one axis.

    output[…, p] = Σₖ input[…, p · stride + k - padding] / divisor.

    Args:
        kernel_size: taps of a window.
        stride: steps from window to window, kernel_size by default.
        padding: zeros added at both ends, at most half a window.
        ceil_mode: whether a last window may reach beyond the padded input.
        count_include_pad: whether padding counts in the divisor.

    Shape:
        input (N, C, L) or without N, output (N, C, …) with (extent + 2·padding - kernel_size) / stride + 1 along
        each axis, rounded down, or up in ceil_mode.

    Raises:
        ShapeError: when called, a window covers more than the padded input.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.AvgPool1d(2)(wg.ones((2, 3, 4))).shape
        (2, 3, 2)
    """

    _function = staticmethod(avg_pool1d)

    def __init__(
        self,
        kernel_size: _Size,
        stride: _Size | None = None,
        padding: _Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)

    def extra_repr(self) -> str:
        """Return the settings."""
        sizes = [(size,) if isinstance(size, int) else size for size in (self.kernel_size, self.stride, self.padding)]
        return f"kernel_size={sizes[0]}, stride={sizes[1]}, padding={sizes[2]}"


class AvgPool2d(_AvgPool):
    """Take the mean of each window over two axes.

    output[…, p] = Σₖ input[…, p · stride + k - padding] / divisor.

    Args:
        kernel_size: taps of a window; one number for all, or 2.
        stride: steps from window to window, kernel_size by default.
        padding: zeros added at both ends, at most half a window.
        ceil_mode: whether a last window may reach beyond the padded input.
        count_include_pad: whether padding counts in the divisor.
        divisor_override: the divisor, instead of the number of positions.

    Shape:
        input (N, C, H, W) or without N, output (N, C, …) with (extent + 2·padding - kernel_size) / stride + 1 along
        each axis, rounded down, or up in ceil_mode.

    Raises:
        ShapeError: when called, a window covers more than the padded input.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.AvgPool2d(2)(wg.ones((2, 3, 8, 8))).shape
        (2, 3, 4, 4)
    """

    _function = staticmethod(avg_pool2d)


class AvgPool3d(_AvgPool):
    """Take the mean of each window over three axes.

    output[…, p] = Σₖ input[…, p · stride + k - padding] / divisor.

    Args:
        kernel_size: taps of a window; one number for all, or 3.
        stride: steps from window to window, kernel_size by default.
        padding: zeros added at both ends, at most half a window.
        ceil_mode: whether a last window may reach beyond the padded input.
        count_include_pad: whether padding counts in the divisor.
        divisor_override: the divisor, instead of the number of positions.

    Shape:
        input (N, C, D, H, W) or without N, output (N, C, …) with (extent + 2·padding - kernel_size) / stride + 1 along
        each axis, rounded down, or up in ceil_mode.

    Raises:
        ShapeError: when called, a window covers more than the padded input.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.AvgPool3d(2)(wg.ones((2, 3, 4, 4, 4))).shape
        (2, 3, 2, 2, 2)
    """

    _function = staticmethod(avg_pool3d)


class _AdaptiveAvgPool(Layer):
    """What the adaptive pools share."""

    _function: Callable[..., Tensor]

    def __init__(self, output_size: int | Sequence[int | None] | None) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """Take the means."""
        return type(self)._function(input, self.output_size)

    def extra_repr(self) -> str:
        """Return the setting."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Take the means of windows that cover the last axis, as many as asked.

    output[…, i] = the mean of input[…, ⌊i · extent / n⌋ : ⌈(i + 1) · extent / n⌉] for n windows along an axis.

    Args:
        output_size: windows along each axis, one number or one for each; None keeps the extent.

    Shape:
        input (N, C, L) or without N, output (N, C, *output_size).

    Raises:
        ValueError: when called, a size is negative.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.AdaptiveAvgPool1d(2)(wg.ones((2, 3, 7))).shape
        (2, 3, 2)
    """

    _function = staticmethod(adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Take the means of windows that cover the last two axes, as many as asked.

    output[…, i] = the mean of input[…, ⌊i · extent / n⌋ : ⌈(i + 1) · extent / n⌉] for n windows along an axis.

    Args:
        output_size: windows along each axis, one number or one for each; None keeps the extent.

    Shape:
        input (N, C, H, W) or without N, output (N, C, *output_size).

    Raises:
        ValueError: when called, a size is negative.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.AdaptiveAvgPool2d(2)(wg.ones((2, 3, 7, 8))).shape
        (2, 3, 2, 2)
    """

    _function = staticmethod(adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Take the means of windows that cover the last three axes, as many as asked.

    output[…, i] = the mean of input[…, ⌊i · extent / n⌋ : ⌈(i + 1) · extent / n⌉] for n windows along an axis.

    Args:
        output_size: windows along each axis, one number or one for each; None keeps the extent.

    Shape:
        input (N, C, D, H, W) or without N, output (N, C, *output_size).

    Raises:
        ValueError: when called, a size is negative.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.AdaptiveAvgPool3d(2)(wg.ones((2, 3, 4, 7, 8))).shape
        (2, 3, 2, 2, 2)
    """

    _function = staticmethod(adaptive_avg_pool3d)
