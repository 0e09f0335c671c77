"""Programs that `wg.compile` takes apart: arguments, results, signatures, what it undoes, what it lets go."""

from __future__ import annotations

import collections
import dataclasses
import gc
import subprocess
import sys
import weakref
from typing import Any

import pytest

import wengert as wg
from wengert import nn, optim


def python(code: str) -> None:
    """Run a program of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_mode_guards_after_nn_was_imported_inside() -> None:
    """The class that is watched appears while it is to be watched."""
    python("""
import wengert as wg
first = wg.compile(lambda x: wg.nn.functional.relu(x))  # wg.nn is imported here, at the first use
first(wg.ones((2,)))
model = wg.nn.Dropout(0.5)
second = wg.compile(lambda x: model(x))
x = wg.ones((64,))
for _ in range(3):
    second(x)
model.eval()
assert second(x).tolist() == x.tolist()
""")


def test_a_float_argument_is_a_float() -> None:
    """isinstance(s, float) holds while tracing too, or another branch would be taken."""

    def function(x: wg.Tensor, s: float) -> wg.Tensor:
        return x * s if isinstance(s, int | float) else x * s * 2

    compiled = wg.compile(function)
    for _ in range(4):
        assert compiled(wg.ones((2,)), 0.5).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("use", [lambda s: f"{s:.2f}", round, hash], ids=["format", "round", "hash"])
def test_what_a_float_argument_cannot_do_is_a_compile_error(use: Any) -> None:
    compiled = wg.compile(lambda x, s: (use(s), x)[1])
    with pytest.raises(wg.CompileError, match="float argument"):
        compiled(wg.ones((2,)), 0.5)


def test_a_float_argument_that_is_kept() -> None:
    kept: list[float] = []
    wg.compile(lambda x, s: (kept.append(s), x * s)[1])(wg.ones((2,)), 0.5)
    assert kept[0] + 1.0 == 1.5


def test_state_dicts_loaded_many_times() -> None:
    """Each load makes new updaters; the signatures of the old ones fit never again."""
    w = nn.Parameter(wg.ones((2,)))
    optimizer = optim.Adam([w], lr=0.1)

    @wg.compile
    def step() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    for _ in range(20):
        for _ in range(3):
            step()
        optimizer.load_state_dict(optimizer.state_dict())


def test_objects_of_a_class_with_a_compiled_method_are_freed() -> None:
    """A signature does not keep self."""

    class Model:
        @wg.compile
        def double(self, x: wg.Tensor) -> wg.Tensor:
            return x * 2.0

    for _ in range(20):
        model = Model()
        for _ in range(3):
            model.double(wg.ones((2,)))


def test_a_captured_tensor_that_is_only_returned() -> None:
    w = wg.ones((2,))
    wg.eval(w)
    compiled = wg.compile(lambda x: (x * 2.0, w))
    for _ in range(4):
        assert compiled(wg.ones((2,)))[1] is w


def test_a_captured_tensor_that_becomes_a_gradient() -> None:
    w, grad = nn.Parameter(wg.ones((2,))), wg.tensor([1.0, 2.0])

    @wg.compile
    def step() -> None:
        w.grad = grad

    for _ in range(4):
        w.grad = None
        step()
        assert w.grad is not None
        assert w.grad.tolist() == [1.0, 2.0]


def test_keywords_in_another_order() -> None:
    compiled = wg.compile(lambda a, b: a - b)
    x, y = wg.tensor([3.0]), wg.tensor([1.0])
    for _ in range(3):
        assert compiled(a=x, b=y).tolist() == [2.0]
        assert compiled(b=y, a=x).tolist() == [2.0]


def test_an_argument_that_is_a_named_tuple() -> None:
    """Hashable, but to compare it with == would read tensors."""
    batch = collections.namedtuple("batch", "x y")
    compiled = wg.compile(lambda b: b.x + b.y)
    for i in range(4):
        assert compiled(batch(wg.full((2,), float(i)), wg.ones((2,)))).tolist() == [i + 1.0] * 2


def test_run_of_a_method() -> None:
    class Model:
        @wg.compile
        def double(self, x: wg.Tensor) -> wg.Tensor:
            return x * 2.0

    assert Model().double.run(wg.ones((3, 2))).tolist() == [[2.0, 2.0]] * 3


def test_run_takes_lists_apart() -> None:
    """Stacks in lists, tuples and dicts are cut into rows too."""
    compiled = wg.compile(lambda x, parts: x + parts[0])
    x = wg.arange(6).astype(wg.float32).reshape(3, 2)
    assert compiled.run(x, [x]).tolist() == (x + x).tolist()


def test_explain_changes_and_refuses_nothing() -> None:
    """The zeros that stand for arguments are no indices here."""
    table = wg.ones((10, 2))
    compiled = wg.compile(lambda i: wg.take(table, i - 100, axis=0))
    for _ in range(3):
        compiled(wg.tensor([101, 102]))
    compiled.explain()


def test_undo_of_requires_grad() -> None:
    w = nn.Parameter(wg.ones((2,)))

    def step() -> float:
        w.requires_grad_(False)
        return w.sum().item()

    with pytest.raises(wg.CompileError):
        wg.compile(step)()
    assert w.requires_grad


def test_undo_of_settings() -> None:
    w = nn.Parameter(wg.ones((2,)))
    optimizer = optim.SGD([w], lr=1.0)

    def step() -> float:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.5
        return w.sum().item()

    with pytest.raises(wg.CompileError):
        wg.compile(step)()
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_undo_of_a_loaded_optimizer_state() -> None:
    model = nn.Linear(2, 2)
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def train() -> None:
        optimizer.zero_grad()
        model(wg.ones((1, 2))).sum().backward()
        optimizer.step()

    def step() -> float:
        train()
        optimizer.load_state_dict(optimizer.state_dict())
        train()
        return model.weight.sum().item()

    train()
    with pytest.raises(wg.CompileError):
        wg.compile(step)()
    assert optimizer.state_dict()["state"][0]["step"] == 1


def test_modes_after_a_failed_call() -> None:
    """A mode that the step sets before its error is set by a replay that fails."""
    model, table = nn.Dropout(0.5), wg.ones((5, 2))

    @wg.compile
    def step(i: wg.Tensor) -> wg.Tensor:
        model.eval()
        return model(wg.take(table, i, axis=0))

    for _ in range(4):
        step(wg.tensor([1]))
    model.train()
    with pytest.raises(IndexError):
        step(wg.tensor([9]))
    assert not model.training


def test_an_object_that_holds_its_compiled_method_is_freed() -> None:
    """The garbage collector sees the cycle through the signatures."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.1)
            self.call = wg.compile(self.work)

        def work(self, x: wg.Tensor) -> wg.Tensor:
            return self.drop(x) if self.training else x

    model = Model()
    for _ in range(3):
        model.call(wg.ones((2,)))
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None


def test_a_result_that_is_returned_twice() -> None:
    """One tensor in all calls."""

    def function(x: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor]:
        y = x * 2.0
        return y, y

    compiled = wg.compile(function)
    for _ in range(4):
        a, b = compiled(wg.ones((2,)))
        a += 1.0
        assert b.tolist() == [3.0, 3.0]


def test_a_variable_that_is_returned() -> None:
    """Its gradient would not come with it."""

    def function(x: wg.Tensor) -> wg.Tensor:
        delta = wg.zeros((2,)).requires_grad_()
        (delta * x).sum().backward()
        return delta

    with pytest.raises(wg.CompileError, match="requires a gradient; return it after detach"):
        wg.compile(function)(wg.ones((2,)))


def test_errors_name_the_line() -> None:
    count = [0]

    def function(x: wg.Tensor) -> wg.Tensor:
        count[0] += 1
        return wg.exp(x) if count[0] == 1 else wg.tanh(x)

    compiled = wg.compile(function)
    compiled(wg.ones((2,)))
    with pytest.raises(wg.CompileError, match=r"test_compile_programs.py:\d+"):
        compiled(wg.ones((2,)))


def test_the_message_about_a_retained_graph() -> None:
    """To say that backward() is to be called would not help: it is."""
    w = nn.Parameter(wg.ones((2,)))

    def step() -> wg.Tensor:
        w.grad = None
        loss = (w * w).sum()
        loss.backward(retain_graph=True)
        return loss

    with pytest.raises(wg.CompileError, match="retain"):
        wg.compile(step)()


def test_a_rate_from_a_float_argument() -> None:
    """Refused, and nothing is left of it."""
    w = nn.Parameter(wg.ones((2,)))
    optimizer = optim.SGD([w], lr=0.1)

    def step(lr: float) -> None:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    with pytest.raises(wg.CompileError, match="changes the settings"):
        wg.compile(step)(0.5)
    assert w.tolist() == [1.0, 1.0]
    assert optimizer.param_groups[0]["lr"] == 0.1
    schedule = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    step(0.25)
    assert w.tolist() == [0.75, 0.75]
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.125


def test_a_grad_mode_that_is_another_one_after_the_step() -> None:
    compiled = wg.compile(lambda x: [wg.set_grad_enabled(False), x * 2.0][1])
    with pytest.raises(wg.CompileError, match="grad mode is another one after the step"):
        compiled(wg.ones((2,)))
    assert wg.is_grad_enabled()


def test_requires_grad_that_is_another_one_after_the_step() -> None:
    w = nn.Parameter(wg.ones((2,)))
    w.grad = wg.ones((2,))
    compiled = wg.compile(lambda: [w.requires_grad_(False), None][1])
    with pytest.raises(wg.CompileError, match="requires_grad of a tensor from outside"):
        compiled()
    assert w.requires_grad
    assert w.grad is not None
    assert w.grad.tolist() == [1.0, 1.0]


def test_a_parameter_that_is_frozen_for_a_part() -> None:
    a, b = nn.Parameter(wg.ones((2,))), nn.Parameter(wg.ones((2,)))

    @wg.compile
    def step(x: wg.Tensor) -> None:
        a.requires_grad_(False)
        (a * b * x).sum().backward()
        a.requires_grad_(True)

    for i in range(4):
        a.grad, b.grad = wg.ones((2,)), None
        step(wg.full((2,), float(i)))
        assert a.requires_grad
        assert a.grad is None
        assert b.grad is not None
        assert b.grad.tolist() == [float(i)] * 2


def test_a_gradient_from_outside_is_the_tensor_itself() -> None:
    w, grad = nn.Parameter(wg.ones((2,))), wg.tensor([1.0, 2.0])

    @wg.compile
    def step() -> None:
        w.grad = grad

    for _ in range(4):
        step()
    assert w.grad is not None
    w.grad.copy_(wg.zeros((2,)))
    assert grad.tolist() == [0.0, 0.0]


def test_an_argument_that_is_a_dataclass() -> None:
    @dataclasses.dataclass(frozen=True)
    class Batch:
        x: Any

    compiled = wg.compile(lambda b: wg.ones((2,)) * b.x)
    for _ in range(3):
        assert compiled(Batch(3)).tolist() == [3.0, 3.0]
    with pytest.raises(wg.CompileError, match="an argument of a compiled function is a Batch"):
        compiled(Batch(wg.ones((2,))))


def test_a_function_that_goes_by_the_order_of_keywords() -> None:
    def function(**kwargs: wg.Tensor) -> wg.Tensor:
        first, second = kwargs.values()
        return first - second

    compiled = wg.compile(function)
    x, y = wg.tensor([3.0]), wg.tensor([1.0])
    for _ in range(4):
        assert compiled(a=x, b=y).tolist() == [2.0]
        assert compiled(b=y, a=x).tolist() == [-2.0]


def test_objects_that_are_arguments_are_freed() -> None:
    class Model:
        @wg.compile
        def double(self, x: wg.Tensor) -> wg.Tensor:
            return x * 2.0

    model = Model()
    for _ in range(3):
        model.double(wg.ones((2,)))
    watched = weakref.ref(model)
    del model
    assert watched() is None


def test_modules_made_inside_a_step_are_freed() -> None:
    made = []

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        module = nn.Dropout(0.5).eval()
        made.append(weakref.ref(module))
        return module(x)

    for _ in range(4):
        step(wg.ones((2,)))
    gc.collect()
    assert all(reference() is None for reference in made)


def test_a_float_argument_is_a_plain_number_afterwards() -> None:
    kept: list[float] = []
    compiled = wg.compile(lambda x, s: (kept.append(s), x * s)[1])
    compiled(wg.ones((2,)), 2.5)
    s = kept[0]
    assert isinstance(s, float | int)
    assert [s + 1, 1 - s, s * 2, 5 / s, s**2, 2**s, -s, abs(s), s // 1, s % 2] == [
        3.5, -1.5, 5.0, 2.0, 6.25, 2**2.5, -2.5, 2.5, 2.0, 0.5,
    ]  # fmt: skip
    assert (s < 3, s == 2.5, s != 2.5, s >= s) == (True, True, False, True)
    assert (f"{s:.2f}", str(s), round(s), round(s, 1), int(s), float(s), hash(s)) == (
        "2.50", "2.5", 2, 2.5, 2, 2.5, hash(2.5),
    )  # fmt: skip
    assert not s.is_integer()
    assert wg.full((1,), s).tolist() == [2.5]
