"""The optimizer: groups of parameters with their settings, and one updater of the core for each group.

The settings are plain numbers in `param_groups`, read at each step. The state of the parameters lives in the updaters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from wengert._core import Tensor, Updater, enable_grad, refuse_setting
from wengert._core import step as record_and_evaluate

Params = Iterable[Tensor] | Iterable[Mapping[str, Any]]


class Group(dict[str, Any]):
    """Parameters with their settings. A compiled step refuses to change one, which its replays would not do."""

    def __setitem__(self, key: str, value: Any) -> None:
        refuse_setting(key)
        super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> Group:  # type: ignore[override,misc]  # one type for all that dict takes
        self.update(other)
        return self


class Optimizer:
    """Base of all optimizers. A subclass names a rule of the core and gives the numbers that the rule takes.

    Args:
        params: parameters, or dicts that each hold `params` and the settings that differ for them.
        defaults: the settings of groups that do not give them.

    Attributes:
        defaults: the settings of groups that do not give them.
        param_groups: the groups. A change of a setting counts from the next step on.

    Raises:
        TypeError: a parameter is no tensor, or `params` is one tensor.
        ValueError: no parameters, one of them twice, or one that is no variable.
    """

    rule: ClassVar[str]

    def __init__(self, params: Params, defaults: Mapping[str, Any]) -> None:
        self.defaults: dict[str, Any] = dict(defaults)
        self.param_groups: list[Group] = []
        self._updaters: list[Updater] = []
        if isinstance(params, Tensor):
            raise TypeError(f"{type(self).__name__}: params is an iterable of tensors or dicts, not one tensor")
        given = list(params)
        if not given:
            raise ValueError(f"{type(self).__name__}: the list of parameters is empty")
        groups = given if all(isinstance(entry, dict) for entry in given) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)  # type: ignore[arg-type]  # a dict, seen just now

    def numbers(self, group: Group) -> tuple[float, ...]:
        """Return the settings of a group as the rule takes them."""
        raise NotImplementedError

    def check(self, group: Group) -> None:
        """Raise ValueError if a setting of a group is out of range."""
        raise NotImplementedError

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with settings of their own.

        Args:
            param_group: holds `params`, one tensor or several, and settings; the others are `defaults`.

        Raises:
            TypeError: a parameter is no tensor, or the parameters are in a set, which has no order.
            ValueError: a parameter is in a group already or no variable, or a setting is out of range.
        """
        name = type(self).__name__
        params = param_group["params"]
        if isinstance(params, set | frozenset):
            raise TypeError(f"{name}: a set of parameters has no order; use a list")
        params = [params] if isinstance(params, Tensor) else list(params)
        seen = {id(param) for group in self.param_groups for param in group["params"]}
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(f"{name}: {type(param).__name__} is no tensor and cannot be optimized")
            if not param.is_leaf:
                raise ValueError(f"{name}: a tensor {param.shape} is the result of an operation, not a variable")
            if id(param) in seen:
                raise ValueError(f"{name}: a parameter {param.shape} is given twice")
            seen.add(id(param))
        group = {"params": params, **{key: value for key, value in param_group.items() if key != "params"}}
        for key, value in self.defaults.items():
            group.setdefault(key, value)
        made = Group(group)
        self.check(made)
        updater = Updater(self.rule, params)
        updater.prepare(self, made)
        self._updaters.append(updater)
        self.param_groups.append(made)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters by their gradients, and compute everything that is pending.

        Parameters without a gradient stay as they are. If anything fails, all of them do.

        Args:
            closure: called first, with gradients recorded; computes the loss and its gradients.

        Returns:
            What the closure returned, else None.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        record_and_evaluate(self, self._updaters, self.param_groups)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for updater in self._updaters:
            updater.zero_grad(set_to_none)

    @property
    def state(self) -> dict[Tensor, dict[str, Tensor | int]]:
        """What the rule remembers of each parameter that was updated."""
        entries = {}
        for updater, group in zip(self._updaters, self.param_groups, strict=True):
            for index, param in enumerate(group["params"]):
                state = updater.state(index)
                if state:
                    entries[param] = state
        return entries

    def state_dict(self) -> dict[str, Any]:
        """Return the state and the settings, with parameters named by their position.

        Returns:
            `{"state": {0: {...}, ...}, "param_groups": [{"lr": ..., "params": [0, ...]}, ...]}`.
        """
        state: dict[int, dict[str, Tensor | int]] = {}
        groups = []
        position = 0
        for updater, group in zip(self._updaters, self.param_groups, strict=True):
            settings = {key: value for key, value in group.items() if key != "params"}
            count = len(group["params"])
            groups.append({**settings, "params": list(range(position, position + count))})
            for index in range(count):
                entries = updater.state(index)
                if entries:
                    state[position + index] = entries
            position += count
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take state and settings: all of them, or none if something does not fit.

        Args:
            state_dict: what `state_dict` of an optimizer with such groups gave.

        Raises:
            ValueError: other numbers of groups or of parameters.
            ShapeError: a state of another shape than its parameter.
        """
        loaded = state_dict["param_groups"]
        name = type(self).__name__
        if len(loaded) != len(self.param_groups):
            raise ValueError(f"{name}: the state dict has {len(loaded)} groups, not {len(self.param_groups)}")
        for number, (theirs, ours) in enumerate(zip(loaded, self.param_groups, strict=True)):
            if len(theirs["params"]) != len(ours["params"]):
                raise ValueError(
                    f"{name}: group {number} of the state dict has {len(theirs['params'])} parameters, "
                    f"not {len(ours['params'])}"
                )
        updaters, groups = [], []
        for theirs, ours in zip(loaded, self.param_groups, strict=True):
            group = {"params": ours["params"], **copy.deepcopy({k: v for k, v in theirs.items() if k != "params"})}
            for key, value in self.defaults.items():
                group.setdefault(key, value)
            made = Group(group)
            self.check(made)
            updater = Updater(self.rule, ours["params"])
            for index, key in enumerate(theirs["params"]):
                entries = state_dict["state"].get(key)
                if entries:
                    updater.set_state(index, dict(entries))
            updater.prepare(self, made)
            updaters.append(updater)
            groups.append(made)
        self._updaters = updaters
        self.param_groups = groups

    def __getstate__(self) -> dict[str, Any]:
        states = [
            [updater.state(index) for index in range(len(group["params"]))]
            for updater, group in zip(self._updaters, self.param_groups, strict=True)
        ]
        return {"defaults": self.defaults, "param_groups": self.param_groups, "states": states}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.defaults = state["defaults"]
        self.param_groups = state["param_groups"]
        self._updaters = []
        for group, entries in zip(self.param_groups, state["states"], strict=True):
            updater = Updater(self.rule, group["params"])
            for index, entry in enumerate(entries):
                if entry:
                    updater.set_state(index, entry)
            updater.prepare(self, group)
            self._updaters.append(updater)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines.extend(f"    {key}: {group[key]}" for key in sorted(group) if key != "params")
        return "\n".join([*lines, ")"])


def at_least_zero(optimizer: Optimizer, group: Group, *names: str) -> None:
    """Raise ValueError if one of these settings is negative or NaN."""
    for name in names:
        if not group[name] >= 0:
            raise ValueError(f"{type(optimizer).__name__}: {name} is 0 at least, not {group[name]}")
