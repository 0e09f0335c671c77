"""Learning-rate schedules: each step sets `lr` in the groups of an optimizer, from what it is at that time.

Because each rate follows from the one before, schedules of one optimizer can be chained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from wengert._core import host_call
from wengert.optim.optimizer import Optimizer


class LRScheduler:
    """Base of the schedules. A subclass defines `get_lr`.

    Args:
        optimizer: whose groups are changed. The rates it has now are remembered in them as `initial_lr`.
        last_epoch: the number of the last step of a run to go on with; -1 starts anew.

    Attributes:
        optimizer: whose groups are changed.
        base_lrs: the rates at the start.
        last_epoch: the number of steps so far.

    Raises:
        TypeError: `optimizer` is none.
        KeyError: `last_epoch` is given and the groups hold no `initial_lr`.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        name = type(self).__name__
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{name}: {type(optimizer).__name__} is no Optimizer")
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(f"{name}: group {number} has no 'initial_lr', which last_epoch={last_epoch} needs")
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self._last_lr: list[float] = []
        self.step()

    def get_lr(self) -> list[float]:
        """Return the rate of each group for `last_epoch`, from what the groups hold now."""
        raise NotImplementedError

    def step(self) -> None:
        """Go on by one and set the rates; call it after the optimizer's step, mostly once an epoch."""
        host_call(self.step, [self.__dict__, *self.optimizer.param_groups])
        self._step_count += 1
        self.last_epoch += 1
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            # Not group["lr"], which a compiled step refuses: this change was just noted.
            dict.__setitem__(group, "lr", lr)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """Return the rates that the last step set."""
        return self._last_lr

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave. The rates are in the optimizer's own state dict."""
        self.__dict__.update({key: value for key, value in state_dict.items() if key != "optimizer"})

    def _current(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


class StepLR(LRScheduler):
    """Multiply the rate by gamma every step_size steps.

    Args:
        optimizer: whose groups are changed.
        step_size: the number of steps between changes.
        gamma: the factor.
        last_epoch: the number of the last step of a run to go on with; -1 starts anew.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn, optim
        >>> optimizer = optim.SGD([nn.Parameter(wg.zeros((1,)))], lr=1.0)
        >>> schedule = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        >>> rates = []
        >>> for epoch in range(5):
        ...     rates.append(optimizer.param_groups[0]["lr"])
        ...     schedule.step()
        >>> rates
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rate of each group for `last_epoch`."""
        if self.last_epoch == 0 or self.last_epoch % self.step_size != 0:
            return self._current()
        return [lr * self.gamma for lr in self._current()]


class CosineAnnealingLR(LRScheduler):
    """Move the rate from its start to eta_min and back, along a cosine of period 2 · T_max.

    At step t it is eta_min + (start - eta_min) · (1 + cos(π·t / T_max)) / 2.

    Args:
        optimizer: whose groups are changed.
        T_max: the step at which the rate is eta_min.
        eta_min: the smallest rate.
        last_epoch: the number of the last step of a run to go on with; -1 starts anew.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn, optim
        >>> optimizer = optim.SGD([nn.Parameter(wg.zeros((1,)))], lr=1.0)
        >>> schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
        >>> rates = []
        >>> for epoch in range(5):
        ...     rates.append(round(optimizer.param_groups[0]["lr"], 4))
        ...     schedule.step()
        >>> rates
        [1.0, 0.8536, 0.5, 0.1464, 0.0]

    Source:
        Loshchilov and Hutter (2017), SGDR: Stochastic Gradient Descent with Warm Restarts,
        https://arxiv.org/abs/1608.03983.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int,  # noqa: N803  (the name in PyTorch)
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rate of each group for `last_epoch`."""
        t, period = self.last_epoch, self.T_max
        if t == 0:
            return self._current()
        if self._step_count == 1:
            # A run that goes on: the rate that the formula gives, whatever the groups hold.
            return [
                self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * t / period)) / 2
                for base in self.base_lrs
            ]
        if (t - 1 - period) % (2 * period) == 0:
            # The rate before is eta_min: its distance, zero, cannot be scaled up again.
            rise = (1 - math.cos(math.pi / period)) / 2
            return [lr + (base - self.eta_min) * rise for lr, base in zip(self._current(), self.base_lrs, strict=True)]
        ratio = (1 + math.cos(math.pi * t / period)) / (1 + math.cos(math.pi * (t - 1) / period))
        return [self.eta_min + (lr - self.eta_min) * ratio for lr in self._current()]
