"""Adam, and AdamW, in which the decay of the weights does not pass through the averages."""

from __future__ import annotations

from typing import ClassVar

from wengert.optim.optimizer import Group, Optimizer, Params, at_least_zero


class Adam(Optimizer):
    """Gradient descent along the mean gradient, divided by its recent size.

    With g the gradient (its negative if maximize) + weight_decay · p, t the number of the step, (beta1, beta2) = betas:
    m ← beta1 · m + (1 - beta1) · g,
    v ← beta2 · v + (1 - beta2) · g² (amsgrad uses the largest v so far),
    p ← p - lr / (1 - beta1ᵗ) · m / (√v / √(1 - beta2ᵗ) + eps).

    Args:
        params: parameters, or dicts of parameters and settings.
        lr: the learning rate.
        betas: what is kept of the two averages before.
        eps: added to the root.
        weight_decay: the pull to 0, as part of the gradient.
        amsgrad: whether to divide by the largest average so far.
        maximize: whether to go up instead of down.

    Raises:
        ValueError: a negative setting, or a beta outside [0, 1).

    Example:
        >>> import wengert as wg
        >>> from wengert import nn, optim
        >>> w = nn.Parameter(wg.tensor([1.0]))
        >>> optimizer = optim.Adam([w], lr=0.1)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> round(w.item(), 3)
        0.9

    Source:
        Kingma and Ba (2015), Adam: A Method for Stochastic Optimization, https://arxiv.org/abs/1412.6980; Reddi, Kale
        and Kumar (2018), On the Convergence of Adam and Beyond, for amsgrad.
    """

    rule: ClassVar[str] = "adam"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        """Raise ValueError if a setting is out of range."""
        at_least_zero(self, group, "lr", "eps", "weight_decay")
        for position, beta in enumerate(group["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(f"{type(self).__name__}: betas[{position}] is between 0 and 1, below 1, not {beta}")

    def numbers(self, group: Group) -> tuple[float, ...]:
        """Return the settings as the rule takes them."""
        beta1, beta2 = group["betas"]
        return (
            group["lr"],
            beta1,
            beta2,
            group["eps"],
            group["weight_decay"],
            group["amsgrad"],
            group["maximize"],
        )


class AdamW(Adam):
    """Adam whose weights decay by themselves: p ← p - lr · weight_decay · p, then the step of Adam without decay.

    Args:
        params: parameters, or dicts of parameters and settings.
        lr: the learning rate.
        betas: what is kept of the two averages before.
        eps: added to the root.
        weight_decay: the pull to 0, apart from the gradient.
        amsgrad: whether to divide by the largest average so far.
        maximize: whether to go up instead of down.

    Raises:
        ValueError: a negative setting, or a beta outside [0, 1).

    Example:
        >>> import wengert as wg
        >>> from wengert import nn, optim
        >>> w = nn.Parameter(wg.tensor([1.0]))
        >>> optimizer = optim.AdamW([w], lr=0.1, weight_decay=1.0)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> round(w.item(), 3)
        0.8

    Source:
        Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101.
    """

    rule: ClassVar[str] = "adamw"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
