"""Numbers, slice starts, seeds and learning rates are inputs of a plan; what shapes it is in its key."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

import wengert as wg
from counting import counting
from wengert import nn, optim

x = wg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
other = wg.tensor(x.tolist())


def misses(program: Callable[[int], object], runs: int = 6, planning: int = 2) -> int:
    """Misses after the first runs, which may plan."""
    for i in range(planning):
        program(i)
    with counting() as seen:
        for i in range(planning, runs):
            program(i)
        return seen["misses"]


def test_numbers_are_inputs() -> None:
    assert misses(lambda i: (x * float(i) + i).tolist()) == 0
    for i in range(4):
        assert (x * float(i) + i).tolist() == [[i * v + i for v in row] for row in x.tolist()]


def test_numbers_are_never_merged_by_value() -> None:
    first = (x * 2.0 + 2.0).tolist()
    with counting() as seen:
        second = (x * 2.0 + 5.0).tolist()
        assert seen["misses"] == 0
    assert [[b - a for a, b in zip(*rows, strict=True)] for rows in zip(first, second, strict=True)] == [[3.0] * 3] * 2


def test_large_integers_and_floats_are_exact() -> None:
    big = 2**62 + 1
    assert (wg.tensor([0]) + big).tolist() == [big]
    assert (wg.tensor([0.0], dtype=wg.float64) + 0.1).tolist() == [0.1]


def test_slice_starts_are_inputs() -> None:
    data = wg.arange(64.0)
    assert misses(lambda i: (data[i * 4 : (i + 1) * 4] * 2.0).tolist()) == 0
    assert misses(lambda i: (data[i] * 2.0).tolist()) == 0
    assert data[20:24].tolist() == [20.0, 21.0, 22.0, 23.0]


def test_slice_starts_inside_differentiation_are_inputs() -> None:
    w = wg.arange(64.0).requires_grad_()

    def program(i: int) -> None:
        w.grad = None
        (w[i * 4 : (i + 1) * 4] ** 2).sum().backward()
        assert w.grad.tolist()[i * 4] == 8.0 * i

    assert misses(program) == 0


def test_a_start_out_of_range_is_refused_where_it_is_written() -> None:
    with pytest.raises(IndexError, match="5"):
        x[5]


DIFFERENT: dict[str, tuple[Callable[[], wg.Tensor], Callable[[], wg.Tensor]]] = {
    "op": (lambda: wg.exp(x), lambda: wg.sin(x)),
    "axis": (lambda: x.sum(axis=0), lambda: x.sum(axis=1)),
    "keepdims": (lambda: x.sum(axis=0), lambda: x.sum(axis=0, keepdims=True)),
    "shape": (lambda: x[:, :2] * 2.0, lambda: x[:, :1] * 2.0),
    "step": (lambda: wg.exp(x)[:, ::2], lambda: wg.exp(x)[:, :2]),
    "dtype": (lambda: x.astype(wg.float64), lambda: x.astype(wg.int64)),
    "strides of a leaf": (lambda: wg.exp(x), lambda: wg.exp(x.T)),
    "topology": (lambda: wg.exp(x) + wg.sin(x), lambda: wg.sin(x) + wg.exp(x)),
    "same leaf twice": (lambda: x + x, lambda: x + other),
    "integer exponent": (lambda: x**2, lambda: x**3),
    "constants": (lambda: x + wg.zeros((3,)), lambda: x + wg.ones((3,))),
}


@pytest.mark.parametrize("field", DIFFERENT)
def test_each_field_of_the_key_tells_plans_apart(field: str) -> None:
    wg.debug.clear_plan_cache()
    for program in DIFFERENT[field]:
        with counting() as seen:
            first = program().tolist()
            assert seen["misses"] == 1, field
        with counting() as seen:
            assert program().tolist() == first
            assert (seen["misses"], seen["hits"]) == (0, 1), field


OPTIMIZERS: dict[str, Callable[[nn.Module], optim.Optimizer]] = {
    "sgd": lambda m: optim.SGD(m.parameters(), lr=0.1),
    "momentum": lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda m: optim.RMSprop(m.parameters(), lr=1e-3),
    "adam": lambda m: optim.Adam(m.parameters(), lr=1e-3),
    "adamw": lambda m: optim.AdamW(m.parameters(), lr=1e-3, amsgrad=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_steady_training_loop_never_misses(name: str) -> None:
    wg.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    optimizer = OPTIMIZERS[name](model)
    schedule = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    data, target = wg.randn((32, 3)), wg.randint(0, 2, (32,))
    wg.eval(data, target)

    def program(i: int) -> None:
        part = slice((i % 4) * 8, (i % 4 + 1) * 8)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(data[part]), target[part])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0 + i)
        optimizer.step()
        schedule.step()
        assert loss.item() == loss.item()

    assert misses(program, runs=10, planning=1) == 0


def test_the_first_step_has_the_plan_of_all_on_one_batch() -> None:
    # The parameters are older than the batch before the first step, and newer after it.
    model, data = nn.Linear(3, 2), wg.randn((4, 3))
    optimizer = optim.Adam(model.parameters())
    wg.eval(data)

    def program(_: int) -> None:
        optimizer.zero_grad()
        model(data).square().mean().backward()
        optimizer.step()

    assert misses(program, planning=1) == 0


@pytest.mark.parametrize("again", ["load_state_dict", "deepcopy", "a step without gradients"])
def test_whatever_comes_before_the_first_step_it_has_the_plan_of_all(again: str) -> None:
    model, data = nn.Linear(3, 2), wg.randn((4, 3))
    optimizer = optim.Adam(model.parameters())
    wg.eval(data)
    if again == "load_state_dict":
        optimizer.load_state_dict(optimizer.state_dict())
    elif again == "deepcopy":
        model, optimizer = copy.deepcopy((model, optimizer))
    else:
        optimizer.step()

    def program(_: int) -> None:
        optimizer.zero_grad()
        model(data).square().mean().backward()
        optimizer.step()

    assert misses(program, planning=1) == 0


def test_tensors_to_evaluate_may_come_in_any_order() -> None:
    def program(i: int) -> None:
        a, b = wg.exp(x) + 1.0, wg.tanh(other) * 2.0
        wg.eval(*(a, b)[:: (1, -1)[i % 2]])

    assert misses(program, planning=1) == 0


def test_a_leaf_counts_by_its_first_use_not_by_its_age() -> None:
    def program(i: int) -> None:
        a, b = (wg.tensor([1.0, 2.0 + i]), wg.tensor([3.0, 5.0]))[:: (1, -1)[i % 2]]
        old, new = a.tolist(), b.tolist()
        assert (a * b - b).tolist() == [old[k] * new[k] - new[k] for k in range(2)]

    assert misses(program, planning=1) == 0


def test_evaluation_without_no_grad_never_misses() -> None:
    model = nn.Linear(3, 2)
    assert misses(lambda i: model(x * float(i)).tolist()) == 0
