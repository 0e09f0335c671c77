"""What makes a signature of a compiled function, what is found anew at each call, and what comes back."""

from __future__ import annotations

from typing import Any

import wengert as wg
from compiling import data, read
from wengert import nn, optim


def test_modes_are_guards() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5))
    forward = wg.compile(lambda x: model(x).detach())
    x, _ = data(0)
    trained = [forward(x).tolist() for _ in range(4)]
    assert len({str(rows) for rows in trained}) == 4
    model.eval()
    evaluated = [forward(x).tolist() for _ in range(4)]
    assert all(rows == model(x).tolist() for rows in evaluated)
    model.train()
    assert forward(x).tolist() != evaluated[0]


def test_the_generator_goes_on() -> None:
    draws = []
    for compiled in (False, True):
        wg.manual_seed(5)

        def function(x):
            return x + wg.randn((3,)) * wg.rand((3,))

        call = wg.compile(function) if compiled else function
        trail = [call(wg.ones((3,))).tolist() for _ in range(6)]
        wg.manual_seed(9)
        trail += [call(wg.ones((3,))).tolist() for _ in range(2)]
        draws.append(trail)
    assert draws[0] == draws[1]


def test_transforms_inside() -> None:
    def loss(w: wg.Tensor, x: wg.Tensor) -> wg.Tensor:
        return (wg.tanh(x @ w) ** 2).sum()

    def step(w: wg.Tensor, x: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor]:
        value, gradient = wg.value_and_grad(loss)(w, x)
        each = wg.vmap(wg.grad(loss), in_axes=(None, 0))(w, x)
        return w - 0.1 * gradient, value + each.sum()

    compiled = wg.compile(step)
    w, v = wg.ones((6, 2)), wg.ones((6, 2))
    for i in range(6):
        x, _ = data(i)
        w, value = step(w, x)
        v, replayed = compiled(v, x)
        assert (w.tolist(), value.tolist()) == (v.tolist(), replayed.tolist())


def test_under_a_transform_it_is_called() -> None:
    compiled = wg.compile(lambda x: (x * x).sum())
    for _ in range(4):
        assert wg.grad(compiled)(wg.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]


def test_eager_mode_calls_the_function() -> None:
    calls = []
    compiled = wg.compile(lambda x: (calls.append(1), x + 1.0)[1])
    for _ in range(5):
        compiled(wg.ones((2,)))
    assert len(calls) == 2
    with wg.eager():
        compiled(wg.ones((2,)))
    assert len(calls) == 3


def test_inside_another_it_is_part_of_it() -> None:
    inner = wg.compile(lambda x: x * 2.0)
    outer = wg.compile(lambda x: inner(x) + 1.0)
    for i in range(5):
        assert outer(wg.full((2,), float(i))).tolist() == [2.0 * i + 1] * 2


def test_float_arguments_change() -> None:
    def function(x: wg.Tensor, lr: float, n: int) -> tuple[Any, ...]:
        return lr * x - n, x / lr, wg.maximum(x, lr), lr

    compiled = wg.compile(function)
    for i in range(6):
        x, lr = wg.tensor([1.0, 2.0]), 0.5 + i
        assert read(compiled(x, lr, 3)) == read(function(x, lr, 3))
    [signature] = compiled.explain().signatures
    assert signature["numbers"]["arguments"] == 3


def test_other_values_make_signatures() -> None:
    calls = []

    @wg.compile
    def scaled(x: wg.Tensor, n: int, *, name: str = "a", parts: tuple[Any, ...] = ()) -> wg.Tensor:
        """Scale."""
        calls.append(n)
        for part in parts:
            x = x + part
        return x * n if name == "a" else x

    x = wg.ones((2,))
    for n in (2, 3, 2, 3, 2, 3, 2, 3):
        assert scaled(x, n).tolist() == [float(n)] * 2
    assert calls == [2, 3, 2, 3]
    for _ in range(4):
        assert scaled(x, 2, name="b", parts=(x, 1.0)).tolist() == [3.0, 3.0]
    assert len(calls) == 6
    assert scaled.__name__ == "scaled"
    assert scaled.__doc__ == "Scale."


def test_shapes_and_dtypes_make_signatures() -> None:
    compiled = wg.compile(lambda x: x.sum(axis=0))
    for shape in ((3, 2), (4, 2)) * 4:
        assert compiled(wg.ones(shape)).tolist() == [shape[0], shape[0]]
    for _ in range(4):
        assert compiled(wg.ones((3, 2), dtype=wg.int32)).dtype == wg.int64
        assert compiled(wg.arange(6).reshape(2, 3).T).tolist() == [3, 12]
    assert len(compiled.explain().signatures) == 4


def test_a_method_can_be_compiled() -> None:
    class Trainer:
        def __init__(self, scale: float) -> None:
            self.scale = wg.tensor(scale)

        @wg.compile
        def step(self, x: wg.Tensor) -> wg.Tensor:
            return x * self.scale

    one, two = Trainer(1.0), Trainer(2.0)
    for _ in range(4):
        assert one.step(wg.ones((2,))).tolist() == [1.0, 1.0]
        assert two.step(wg.ones((2,))).tolist() == [2.0, 2.0]


def test_arguments_that_are_pending() -> None:
    compiled = wg.compile(lambda x: x + 1.0)
    for i in range(5):
        assert compiled(wg.ones((2,)) * float(i)).tolist() == [i + 1.0] * 2


def test_arguments_and_captured_tensors_come_back_themselves() -> None:
    kept = wg.ones((2,))
    compiled = wg.compile(lambda x: (x, kept, x + kept))
    for _ in range(4):
        x = wg.ones((2,))
        first, second, _ = compiled(x)
        assert first is x
        assert second is kept


def test_slices_of_arguments() -> None:
    compiled = wg.compile(lambda x: (x[1:3] * 2.0, x[0], x.detach()[2]))
    for i in range(5):
        x = wg.arange(4).astype(wg.float32) + float(i)
        assert read(compiled(x)) == [[2.0 * (i + 1), 2.0 * (i + 2)], float(i), float(i + 2)]


def test_an_argument_changed_in_place() -> None:
    def step(x: wg.Tensor) -> wg.Tensor:
        x += 1.0
        return x * 2.0

    compiled = wg.compile(step)
    for _ in range(5):
        x = wg.zeros((2,))
        assert compiled(x).tolist() == [2.0, 2.0]
        assert x.tolist() == [1.0, 1.0]


def test_results_are_fresh() -> None:
    compiled = wg.compile(lambda x: x * 2.0)
    results = [compiled(wg.full((2,), float(i))) for i in range(6)]
    assert [r.tolist() for r in results] == [[2.0 * i] * 2 for i in range(6)]


def test_values_that_others_hold_stay() -> None:
    """An alias or a NumPy view of a parameter keeps the old value, as in ordinary code."""
    w = nn.Parameter(wg.ones((2,)))
    optimizer = optim.SGD([w], lr=1.0)

    @wg.compile
    def step() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    for _ in range(4):
        step()
    alias, view, grad = w.detach(), w.detach().numpy(), w.grad
    pending = w.detach() * 2.0
    step()
    step()
    assert alias.tolist() == [-3.0, -3.0]
    assert view.tolist() == [-3.0, -3.0]
    assert pending.tolist() == [-6.0, -6.0]
    assert w.tolist() == [-5.0, -5.0]
    assert grad is not None
    assert grad.tolist() == [1.0, 1.0]


def test_arguments_that_are_the_parameter() -> None:
    w = nn.Parameter(wg.ones((3,)))
    optimizer = optim.SGD([w], lr=1.0)

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
        return x * 2.0

    u = wg.ones((3,))
    for i in range(8):
        # Sometimes the argument is a name for the value that the step writes over.
        x = w.detach() if i % 2 else wg.full((3,), 0.25)
        expected, before = u - (u if i % 2 else 0.25), u * 2.0 if i % 2 else wg.full((3,), 0.5)
        assert step(x).tolist() == before.tolist()
        assert w.tolist() == expected.tolist()
        u = expected
