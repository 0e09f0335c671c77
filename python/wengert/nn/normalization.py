"""Normalisation over a batch, or within each example. The core computes the statistics and their running means."""

from __future__ import annotations

from collections.abc import Sequence

from wengert._core import Device, DType, ShapeError, Tensor, batch_norm, int64, layer_norm, ones, rms_norm, zeros
from wengert._core import eval as evaluate
from wengert.nn import init
from wengert.nn.module import Layer
from wengert.nn.parameter import Parameter


class _BatchNorm(Layer):
    """What the batch norms share; they differ in the inputs that they take."""

    _ranks: tuple[int, ...]
    _wanted: str

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Device | str | None = None,
        dtype: DType | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.weight: Parameter | None
        self.bias: Parameter | None
        self.running_mean: Tensor | None
        self.running_var: Tensor | None
        self.num_batches_tracked: Tensor | None
        shape = (num_features,)
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, Parameter(ones(shape, dtype=dtype, device=device)) if wanted else None)
        tracks = track_running_stats
        self.register_buffer("running_mean", zeros(shape, dtype=dtype, device=device) if tracks else None)
        self.register_buffer("running_var", ones(shape, dtype=dtype, device=device) if tracks else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype=int64, device=device) if tracks else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget the statistics seen so far."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)
            # As values, so that the first step has the plan of all later ones.
            evaluate(self.running_mean, self.running_var, self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0, and forget the statistics."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the input."""
        if input.ndim not in self._ranks:
            raise ShapeError(f"{type(self).__name__}: input {input.shape} must have the axes {self._wanted}")
        mean, var, momentum = self.running_mean, self.running_var, self.momentum
        use_batch = self.training or mean is None
        if self.training:
            if not self.track_running_stats:
                mean = var = None
            elif self.num_batches_tracked is not None:
                tracked = self.num_batches_tracked
                tracked += 1
                if momentum is None:
                    momentum = 1.0 / tracked.item()
        return batch_norm(
            input, mean, var, self.weight, self.bias, use_batch, 0.0 if momentum is None else momentum, self.eps
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Normalise each channel over the batch: (input - mean) / √(var + eps) · weight + bias.

    In training, mean and var (the biased variance) are those of the batch, and the running statistics become
    (1 - momentum) · running + momentum · batch, with the unbiased variance. In evaluation the running statistics are
    used; without them, those of the batch.

    Args:
        num_features: the number of channels C.
        eps: added to the variance.
        momentum: the weight of a new batch in the running statistics; None takes the mean over all batches so far.
        affine: whether there are weight and bias.
        track_running_stats: whether there are running statistics.
        device: of parameters and buffers.
        dtype: of parameters and running statistics, float32 by default.
        bias: whether there is a bias beside the weight.

    Shape:
        input (N, C) or (N, C, L), output the same; weight, bias, running_mean and running_var (C,).

    Raises:
        ShapeError: when called, the input has another shape, or one value a channel in training.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> layer = nn.BatchNorm1d(2)
        >>> y = layer(wg.tensor([[0.0, 10.0], [2.0, 30.0]]))
        >>> [[round(v, 3) for v in row] for row in y.tolist()]
        [[-1.0, -1.0], [1.0, 1.0]]
        >>> [round(v, 3) for v in layer.running_mean.tolist()]
        [0.1, 2.0]

    Source:
        Ioffe and Szegedy (2015), Batch Normalization, https://arxiv.org/abs/1502.03167.
    """

    _ranks = (2, 3)
    _wanted = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Normalise each channel over the batch: (input - mean) / √(var + eps) · weight + bias.

    In training, mean and var (the biased variance) are those of the batch, and the running statistics become
    (1 - momentum) · running + momentum · batch, with the unbiased variance. In evaluation the running statistics are
    used; without them, those of the batch.

    Args:
        num_features: the number of channels C.
        eps: added to the variance.
        momentum: the weight of a new batch in the running statistics; None takes the mean over all batches so far.
        affine: whether there are weight and bias.
        track_running_stats: whether there are running statistics.
        device: of parameters and buffers.
        dtype: of parameters and running statistics, float32 by default.
        bias: whether there is a bias beside the weight.

    Shape:
        input (N, C, H, W), output the same; weight, bias, running_mean and running_var (C,).

    Raises:
        ShapeError: when called, the input has another shape, or one value a channel in training.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.BatchNorm2d(3)(wg.ones((2, 3, 4, 4))).shape
        (2, 3, 4, 4)

    Source:
        Ioffe and Szegedy (2015), Batch Normalization, https://arxiv.org/abs/1502.03167.
    """

    _ranks = (4,)
    _wanted = "(N, C, H, W)"


class BatchNorm3d(_BatchNorm):
    """Normalise each channel over the batch: (input - mean) / √(var + eps) · weight + bias.

    In training, mean and var (the biased variance) are those of the batch, and the running statistics become
    (1 - momentum) · running + momentum · batch, with the unbiased variance. In evaluation the running statistics are
    used; without them, those of the batch.

    Args:
        num_features: the number of channels C.
        eps: added to the variance.
        momentum: the weight of a new batch in the running statistics; None takes the mean over all batches so far.
        affine: whether there are weight and bias.
        track_running_stats: whether there are running statistics.
        device: of parameters and buffers.
        dtype: of parameters and running statistics, float32 by default.
        bias: whether there is a bias beside the weight.

    Shape:
        input (N, C, D, H, W), output the same; weight, bias, running_mean and running_var (C,).

    Raises:
        ShapeError: when called, the input has another shape, or one value a channel in training.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.BatchNorm3d(3)(wg.ones((2, 3, 2, 2, 2))).shape
        (2, 3, 2, 2, 2)

    Source:
        Ioffe and Szegedy (2015), Batch Normalization, https://arxiv.org/abs/1502.03167.
    """

    _ranks = (5,)
    _wanted = "(N, C, D, H, W)"


class LayerNorm(Layer):
    """Normalise each example over its last axes: (input - mean) / √(var + eps) · weight + bias.

    mean and var (the biased variance) are those of the example, in training and in evaluation.

    Args:
        normalized_shape: the sizes of the last axes.
        eps: added to the variance.
        elementwise_affine: whether there is a weight.
        bias: whether there is a bias beside the weight.
        device: of the parameters.
        dtype: of the parameters, float32 by default.

    Shape:
        input (…, *normalized_shape), output the same, weight and bias normalized_shape.

    Raises:
        ShapeError: when called, the input does not end in normalized_shape.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> [round(y, 3) for y in nn.LayerNorm(2)(wg.tensor([1.0, 3.0])).tolist()]
        [-1.0, 1.0]

    Source:
        Ba, Kiros and Hinton (2016), Layer Normalization, https://arxiv.org/abs/1607.06450.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Device | str | None = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight: Parameter | None
        self.bias: Parameter | None
        for name, wanted in (("weight", elementwise_affine), ("bias", elementwise_affine and bias)):
            value = Parameter(ones(self.normalized_shape, dtype=dtype, device=device)) if wanted else None
            self.register_parameter(name, value)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set weight to 1 and bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the input."""
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(Layer):
    """Scale each example over its last axes by the root of its mean square: input / √(mean input² + eps) · weight.

    Args:
        normalized_shape: the sizes of the last axes.
        eps: added to the mean square; None takes the distance from 1 to the next number of the dtype.
        elementwise_affine: whether there is a weight.
        device: of the parameter.
        dtype: of the parameter, float32 by default.

    Shape:
        input (…, *normalized_shape), output the same, weight normalized_shape.

    Raises:
        ShapeError: when called, the input does not end in normalized_shape.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> [round(y, 3) for y in nn.RMSNorm(2)(wg.tensor([3.0, 3.0])).tolist()]
        [1.0, 1.0]

    Source:
        Zhang and Sennrich (2019), Root Mean Square Layer Normalization, https://arxiv.org/abs/1910.07467.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Device | str | None = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight: Parameter | None
        value = Parameter(ones(self.normalized_shape, dtype=dtype, device=device)) if elementwise_affine else None
        self.register_parameter("weight", value)

    def reset_parameters(self) -> None:
        """Set weight to 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the input."""
        return rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
