"""What happens inside: plans, counters, the table of ops, and the lines that recorded what fails late."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from wengert._core import clear_plan_cache, counters, gpu_counters, op_table, plan_cache, set_lines

__all__ = ["clear_plan_cache", "counters", "gpu_counters", "lines", "op_table", "plan_cache"]


class lines:  # noqa: N801  (used like a function)
    """Remember the line that records each operation, inside `with`, so that late errors name it.

    Errors of shapes and dtypes name the line always: they are raised on it.

    Example:
        >>> import wengert as wg
        >>> with wg.debug.lines():
        ...     y = wg.tensor([1.0, 2.0]) * 2.0
        >>> y.tolist()
        [2.0, 4.0]
    """

    def __enter__(self) -> None:
        self._before = set_lines(True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        set_lines(self._before)


def __dir__() -> list[Any]:
    return sorted(__all__)
