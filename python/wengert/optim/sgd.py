"""Gradient descent."""

from __future__ import annotations

from typing import ClassVar

from wengert.optim.optimizer import Group, Optimizer, Params, at_least_zero


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for.

    With g the gradient (its negative if maximize) + weight_decay · p:
    momentum 0: p ← p - lr · g.
    Else b ← momentum · b + (1 - dampening) · g (at first b ← g), and p ← p - lr · b; with nesterov,
    p ← p - lr · (g + momentum · b).

    Args:
        params: parameters, or dicts of parameters and settings.
        lr: the learning rate.
        momentum: what is kept of the step before.
        dampening: what is taken off the gradient in it.
        weight_decay: the pull to 0, as part of the gradient.
        nesterov: whether to look ahead.
        maximize: whether to go up instead of down.

    Raises:
        ValueError: a negative setting, or nesterov without momentum or with dampening.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn, optim
        >>> w = nn.Parameter(wg.tensor([1.0]))
        >>> optimizer = optim.SGD([w], lr=0.25)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w.tolist()
        [0.5]

    Source:
        Sutskever, Martens, Dahl and Hinton (2013), On the Importance of Initialization and Momentum in Deep Learning.
    """

    rule: ClassVar[str] = "sgd"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        """Raise ValueError if a setting is out of range."""
        at_least_zero(self, group, "lr", "momentum", "weight_decay")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov needs a momentum above 0 and a dampening of 0")

    def numbers(self, group: Group) -> tuple[float, ...]:
        """Return the settings as the rule takes them."""
        return (
            group["lr"],
            group["momentum"],
            group["dampening"],
            group["weight_decay"],
            group["nesterov"],
            group["maximize"],
        )
