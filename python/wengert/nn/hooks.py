"""Functions that run before and after the forward of a module. A module has none of this until the first is added."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Any

_Entries = dict[int, tuple[Callable[..., Any], bool]]
_next_key = count()


class RemovableHandle:
    """Takes a hook away again, by `remove()` or at the end of `with`."""

    def __init__(self, entries: _Entries, key: int) -> None:
        self._entries = entries
        self._key = key

    def remove(self) -> None:
        """Take the hook away; again does nothing."""
        self._entries.pop(self._key, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


class Hooks:
    """The hooks of one module, in the order they run.

    Attributes:
        before: run before forward.
        after: run after forward.
    """

    def __init__(self) -> None:
        self.before: _Entries = {}
        self.after: _Entries = {}

    def add(self, entries: _Entries, hook: Callable[..., Any], prepend: bool, with_kwargs: bool) -> RemovableHandle:
        """Add a hook at the end, or the front, of `entries`."""
        key = next(_next_key)
        others = dict(entries) if prepend else {}
        if prepend:
            entries.clear()
        entries[key] = (hook, with_kwargs)
        entries.update(others)
        return RemovableHandle(entries, key)

    def call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run forward with the hooks around it."""
        for hook, with_kwargs in list(self.before.values()):
            if with_kwargs:
                changed = hook(module, args, kwargs)
                if changed is not None:
                    if not (isinstance(changed, tuple) and len(changed) == 2):
                        raise TypeError(
                            f"a hook with keyword arguments returns None or (args, kwargs), not {changed!r}"
                        )
                    args, kwargs = changed
            else:
                changed = hook(module, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        output = module.forward(*args, **kwargs)
        for hook, with_kwargs in list(self.after.values()):
            changed = hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)
            if changed is not None:
                output = changed
        return output
