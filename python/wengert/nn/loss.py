"""Losses as modules. Input and target have equal shapes unless a loss says otherwise: nothing is broadcast.

`reduction` is "mean" over all elements, "sum", or "none" for the loss of each element.
"""

from __future__ import annotations

from typing import Literal

from wengert import _core
from wengert._core import Tensor, WengertError
from wengert.nn.module import Direct, name_place

Reduction = Literal["none", "mean", "sum"]


class _Loss(Direct):
    """Holds the reduction, checked."""

    def __init__(self, reduction: Reduction) -> None:
        super().__init__()
        if reduction not in ("none", "mean", "sum"):
            raise ValueError(f"{type(self).__name__}: reduction is 'none', 'mean' or 'sum', not {reduction!r}")
        self.reduction: Reduction = reduction

    def __call__(self, input: Tensor, target: Tensor) -> Tensor:
        """Run forward, and hooks if there are any."""
        try:
            if self._hooks is None:
                return self.forward(input, target)  # type: ignore[no-any-return]
            return self._hooks.call(self, (input, target), {})  # type: ignore[no-any-return]
        except WengertError as error:
            name_place(error, self)
            raise


class L1Loss(_Loss):
    """The absolute error: |input - target|. The gradient where they are equal is 0.

    Args:
        reduction: "mean", "sum" or "none".

    Shape:
        input any, target the same; output (), or that of input with "none".

    Raises:
        ShapeError: when called, the shapes differ.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.L1Loss()(wg.tensor([1.0, 5.0]), wg.tensor([2.0, 2.0])).item()
        2.0
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return _core.l1_loss(input, target, reduction=self.reduction)


class MSELoss(_Loss):
    """The squared error: (input - target)².

    Args:
        reduction: "mean", "sum" or "none".

    Shape:
        input any, target the same; output (), or that of input with "none".

    Raises:
        ShapeError: when called, the shapes differ.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.MSELoss()(wg.tensor([1.0, 5.0]), wg.tensor([2.0, 2.0])).item()
        5.0
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return _core.mse_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """With d = input - target: d² / (2·beta) where |d| < beta, else |d| - beta/2.

    Args:
        reduction: "mean", "sum" or "none".
        beta: where the square turns into the absolute error; 0 is `L1Loss`.

    Shape:
        input any, target the same; output (), or that of input with "none".

    Raises:
        ValueError: beta is negative.
        ShapeError: when called, the shapes differ.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.SmoothL1Loss(reduction="none")(wg.tensor([1.5, 5.0]), wg.tensor([1.0, 2.0])).tolist()
        [0.125, 2.5]

    Source:
        Girshick (2015), Fast R-CNN, https://arxiv.org/abs/1504.08083.
    """

    def __init__(self, *, reduction: Reduction = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        if not beta >= 0:
            raise ValueError(f"SmoothL1Loss: beta is 0 at least, not {beta}")
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return _core.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """With d = input - target: d²/2 where |d| ≤ delta, else delta · (|d| - delta/2).

    Args:
        reduction: "mean", "sum" or "none".
        delta: where the square turns into the absolute error.

    Shape:
        input any, target the same; output (), or that of input with "none".

    Raises:
        ValueError: delta is not positive.
        ShapeError: when called, the shapes differ.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.HuberLoss(reduction="none", delta=2.0)(wg.tensor([2.0, 6.0]), wg.tensor([1.0, 1.0])).tolist()
        [0.5, 8.0]

    Source:
        Huber (1964), Robust Estimation of a Location Parameter.
    """

    def __init__(self, *, reduction: Reduction = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        if not delta > 0:
            raise ValueError(f"HuberLoss: delta is positive, not {delta}")
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return _core.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class NLLLoss(_Loss):
    """The negative log-likelihood of the right class: -weight[target] · input[target].

    The mean is weighted: the sum over the weights of the targets. Follows `LogSoftmax`; together they are
    `CrossEntropyLoss`.

    Args:
        weight: of each class, (C,); all 1 by default.
        ignore_index: a target that counts for nothing.
        reduction: "mean", "sum" or "none".

    Shape:
        input (C,), (N, C) or (N, C, d…), log-probabilities; target (), (N,) or (N, d…), integers below C; output (), or
        that of target with "none".

    Raises:
        ShapeError: when called, the shapes do not fit.
        IndexError: a target that is known already is no class. One that is computed later makes its row NaN.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.NLLLoss()(wg.tensor([[-0.5, -1.0], [-0.25, -1.5]]), wg.tensor([0, 1])).item()
        1.0
    """

    def __init__(
        self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.weight: Tensor | None
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return _core.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class CrossEntropyLoss(_Loss):
    """How unlikely the logits make the target: -Σ_c target_c · weight_c · log softmax(input)_c.

    The target is a class index (target_c is 1 for it, else 0) or the probabilities of the classes. With smoothing it
    becomes (1 - label_smoothing) · target + label_smoothing / C. The mean over class indices is weighted: the sum over
    the weights of the targets.

    Args:
        weight: of each class, (C,); all 1 by default.
        ignore_index: a class index that counts for nothing.
        reduction: "mean", "sum" or "none".
        label_smoothing: between 0 and 1.

    Shape:
        input (C,), (N, C) or (N, C, d…), logits of any size; target (), (N,) or (N, d…), integers below C, or
        probabilities in the shape of input; output (), or that of the rows with "none".

    Raises:
        ValueError: label_smoothing is not between 0 and 1.
        ShapeError: when called, the shapes do not fit.
        IndexError: a target that is known already is no class. One that is computed later makes its row NaN.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> logits, target = wg.tensor([[2.0, 0.0], [0.0, 0.0]]), wg.tensor([0, 1])
        >>> round(nn.CrossEntropyLoss()(logits, target).item(), 4)
        0.41

    Source:
        Szegedy et al. (2016), Rethinking the Inception Architecture for Computer Vision, for the smoothing.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"CrossEntropyLoss: label_smoothing is between 0 and 1, not {label_smoothing}")
        self.weight: Tensor | None
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return _core.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class BCELoss(_Loss):
    """Binary cross-entropy of a probability: -weight · (target·log input + (1 - target)·log(1 - input)).

    The logarithms are taken as -100 at least. `BCEWithLogitsLoss` is exact where this is not.

    Args:
        weight: of each element; broadcast to input.
        reduction: "mean", "sum" or "none".

    Shape:
        input any, in [0, 1]; target the same; output (), or that of input with "none".

    Raises:
        ShapeError: when called, the shapes differ.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> round(nn.BCELoss()(wg.tensor([0.5, 0.9]), wg.tensor([1.0, 1.0])).item(), 4)
        0.3993
    """

    def __init__(self, weight: Tensor | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.weight: Tensor | None
        self.register_buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return _core.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of a logit, exact for logits of any size.

    With p = sigmoid(input): -weight · (pos_weight·target·log p + (1 - target)·log(1 - p)).

    Args:
        weight: of each element; broadcast to input.
        reduction: "mean", "sum" or "none".
        pos_weight: of the positive targets; broadcast to input.

    Shape:
        input any, target the same; output (), or that of input with "none".

    Raises:
        ShapeError: when called, the shapes differ.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> nn.BCEWithLogitsLoss()(wg.tensor([1e4, -1e4]), wg.tensor([1.0, 1.0])).item()
        5000.0
    """

    def __init__(
        self, weight: Tensor | None = None, *, reduction: Reduction = "mean", pos_weight: Tensor | None = None
    ) -> None:
        super().__init__(reduction)
        self.weight: Tensor | None
        self.pos_weight: Tensor | None
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return _core.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )
