"""What happens inside: plans, counters, the table of ops, lines that recorded what fails late, proofs of ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from wengert import _core
from wengert._core import (
    Device,
    InternalError,
    clear_plan_cache,
    counters,
    gpu_counters,
    op_table,
    plan_cache,
    set_lines,
)

__all__ = [
    "Checked",
    "Verification",
    "clear_plan_cache",
    "counters",
    "gpu_counters",
    "lines",
    "op_table",
    "plan_cache",
    "verify",
]


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


@dataclass(frozen=True)
class Checked:
    """How an op did on a device: how many times it ran, and its largest error as a part of its bound."""

    op: str
    device: Device
    times: int
    worst: float


@dataclass(frozen=True)
class Verification:
    """What `verify` found: what the step returned, and one entry for each op on each device."""

    result: Any
    checked: list[Checked]

    def __str__(self) -> str:
        width = max((len(entry.op) for entry in self.checked), default=2)
        rows = [f"{'op':{width}}  device  times  error / bound"]
        rows += [
            f"{entry.op:{width}}  {entry.device!s:6}  {entry.times:5}  {entry.worst:.2f}" for entry in self.checked
        ]
        return "\n".join(rows)


def verify(step: Callable[[], Any], devices: Sequence[str | Device] = ("cpu", "gpu")) -> Verification:
    """Run a step once and prove each of its ops, gradients and updates included, on each device.

    Every op of every plan that `step` runs, what it leaves pending included, is computed alone on each device, on the
    values that it has in this step, and compared with its definition in float64. Kernels that join ops are taken apart
    for it. The bound is the op's own: units in the last place for a scalar
    function, (n + 2) / 2 · ε · Σ|terms| for a sum of n terms (Higham, Accuracy and Stability of Numerical Algorithms,
    2002, chapter 4), none for what only moves or compares. The step itself runs as ever, on the device of its tensors.

    Args:
        step: a function without arguments; not a compiled one, whose plans are made already.
        devices: names of devices, such as ("cpu", "gpu").

    Returns:
        A `Verification`: print it for a table.

    Raises:
        InternalError: an op diverged; the message names the first one, the element and the operands.
        DeviceError: a device does not exist.
        UnsupportedError: an op or dtype that a device does not have.
        ValueError: the step computed nothing.

    Example:
        >>> import wengert as wg
        >>> w = wg.tensor([1.0, 2.0], requires_grad=True)
        >>> found = wg.debug.verify(lambda: (w * w).sum().backward(), devices=["cpu"])
        >>> w.grad.tolist()
        [2.0, 4.0]
    """
    result, entries, first = _core.verify(step, list(devices))
    if first is not None:
        raise InternalError(f"verify: {first}")
    return Verification(result, [Checked(**entry) for entry in entries])


def __dir__() -> list[Any]:
    return sorted(__all__)
