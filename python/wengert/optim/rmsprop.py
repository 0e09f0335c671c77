"""RMSprop."""

from __future__ import annotations

from typing import ClassVar

from wengert.optim.optimizer import Group, Optimizer, Params, at_least_zero


class RMSprop(Optimizer):
    """Gradient descent with each step divided by the recent size of the gradient.

    With g the gradient (its negative if maximize) + weight_decay · p:
    v ← alpha · v + (1 - alpha) · g², s = √v + eps; centered: m ← alpha · m + (1 - alpha) · g, s = √(v - m²) + eps.
    momentum 0: p ← p - lr · g / s. Else b ← momentum · b + g / s, and p ← p - lr · b.

    Args:
        params: parameters, or dicts of parameters and settings.
        lr: the learning rate.
        alpha: what is kept of the averages before.
        eps: added to the root.
        weight_decay: the pull to 0, as part of the gradient.
        momentum: what is kept of the step before.
        centered: whether to divide by the deviation instead of the size.
        maximize: whether to go up instead of down.

    Raises:
        ValueError: a negative setting.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn, optim
        >>> w = nn.Parameter(wg.tensor([1.0]))
        >>> optimizer = optim.RMSprop([w], lr=0.1, alpha=0.75)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> round(w.item(), 3)
        0.8

    Source:
        Tieleman and Hinton (2012), Lecture 6.5 of Neural Networks for Machine Learning; Graves (2013), Generating
        Sequences with Recurrent Neural Networks, for the centered form.
    """

    rule: ClassVar[str] = "rmsprop"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        """Raise ValueError if a setting is out of range."""
        at_least_zero(self, group, "lr", "alpha", "eps", "weight_decay", "momentum")

    def numbers(self, group: Group) -> tuple[float, ...]:
        """Return the settings as the rule takes them."""
        return (
            group["lr"],
            group["alpha"],
            group["eps"],
            group["weight_decay"],
            group["momentum"],
            group["centered"],
            group["maximize"],
        )
