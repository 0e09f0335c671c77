"""A failure leaves everything as it was: parameters, state, and the work that does not depend on it."""

from __future__ import annotations

import pytest

import wengert as wg
from counting import pending
from wengert import _core, nn, optim


def failing(x: wg.Tensor) -> wg.Tensor:
    return _core.testing_op(x, "fail")


def test_the_test_op_fails_at_evaluation_only() -> None:
    y = failing(wg.tensor([1.0]))
    with pytest.raises(ValueError, match="testing_op: fail"):
        y.tolist()


def test_what_depends_on_it_keeps_the_error_and_the_rest_survives() -> None:
    x = wg.tensor([1.0, 2.0])
    aside = x * 3.0
    bad = failing(x)
    worse = bad + 1.0
    with pytest.raises(ValueError, match="testing_op"):
        worse.tolist()
    for tensor in (bad, worse):
        with pytest.raises(ValueError, match="testing_op"):
            tensor.tolist()
        with pytest.raises(ValueError, match="testing_op"):
            (tensor * 2.0).tolist()
    assert aside.tolist() == [3.0, 6.0]
    assert x.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.RMSprop])
def test_a_failed_step_changes_nothing(make: type[optim.Optimizer]) -> None:
    wg.manual_seed(1)
    first, second = nn.Linear(2, 2), nn.Linear(2, 1)
    parameters = [*first.parameters(), *second.parameters()]
    optimizer = make(parameters, lr=0.1)  # type: ignore[call-arg]
    x = wg.ones((4, 2))

    def step(fails: bool) -> None:
        optimizer.zero_grad()
        hidden = first(x)
        loss = second(failing(hidden) if fails else hidden).sum()
        # The gradient of the last bias does not depend on the failure, and yet must not be applied.
        loss.backward()
        optimizer.step()

    step(False)
    values = [p.tolist() for p in parameters]
    state = {k: {n: v if isinstance(v, int) else v.tolist() for n, v in s.items()} for k, s in optimizer.state.items()}
    with pytest.raises(ValueError, match="testing_op"):
        step(True)
    assert [p.tolist() for p in parameters] == values
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            assert (value if isinstance(value, int) else value.tolist()) == state[parameter][name]
    # And it goes on as if the failed step had not been.
    step(False)
    again = [p.tolist() for p in parameters]
    assert again != values


def test_a_failed_first_step_over_values_that_were_never_read() -> None:
    """A failed step gives parameters their first values, though they were pending; the next is then the first."""
    outcomes = []
    for fails in (True, False):
        wg.manual_seed(1)
        layer = nn.Linear(2, 2)
        first = wg.full((2,), 0.5) + 0.25
        layer.bias = nn.Parameter(first)
        del first
        optimizer = optim.Adam(layer.parameters(), lr=0.1)
        if fails:
            failing(layer(wg.ones((4, 2)))).sum().backward()
            with pytest.raises(ValueError, match="testing_op"):
                optimizer.step()
            assert layer.bias.tolist() == [0.75, 0.75]
            optimizer.zero_grad()
        layer(wg.ones((4, 2))).sum().backward()
        optimizer.step()
        outcomes.append([p.tolist() for p in layer.parameters()])
    assert outcomes[0] == outcomes[1]


def test_a_failed_step_leaves_nothing_pending() -> None:
    w = wg.tensor([1.0]).requires_grad_()
    optimizer = optim.SGD([w], lr=0.1)
    loss = failing(w * 2.0).sum()
    loss.backward()
    with pytest.raises(ValueError, match="testing_op"):
        optimizer.step()
    assert w.tolist() == [1.0]
    assert pending() == 0
    w.grad = None
    (w * 2.0).sum().backward()
    optimizer.step()
    assert w.tolist() == pytest.approx([0.8])


def test_a_panic_is_an_internal_error() -> None:
    y = _core.testing_op(wg.tensor([1.0]), "panic")
    with pytest.raises(wg.InternalError):
        y.tolist()
    assert (wg.tensor([1.0]) + 1.0).tolist() == [2.0]


def test_errors_of_recording_record_nothing() -> None:
    before = pending()
    with pytest.raises(wg.ShapeError):
        wg.ones((2, 3)) + wg.ones((4,))
    # The two constants may be recorded, the sum is not.
    assert pending() <= before + 2


def test_in_place_failures_keep_the_handle() -> None:
    x = wg.tensor([1.0, 2.0])
    with pytest.raises(wg.ShapeError):
        x += wg.ones((3,))
    with pytest.raises(IndexError):
        x[7] = 1.0
    assert x.tolist() == [1.0, 2.0]


def test_every_error_class_is_what_it_says() -> None:
    bases = {
        wg.ShapeError: (ValueError,),
        wg.DTypeError: (TypeError,),
        wg.AxisError: (IndexError, ValueError),
        wg.DeviceError: (RuntimeError,),
        wg.DeviceLostError: (wg.DeviceError,),
        wg.GradError: (RuntimeError,),
        wg.CompileError: (RuntimeError,),
        wg.UnsupportedError: (NotImplementedError,),
        wg.FormatError: (ValueError,),
        wg.InternalError: (RuntimeError,),
    }
    for error, builtins in bases.items():
        assert issubclass(error, (wg.WengertError,))
        for builtin in builtins:
            assert issubclass(error, builtin)
    classes = {name for name in wg.__all__ if name.endswith("Error")}
    assert classes == {error.__name__ for error in (wg.WengertError, *bases)}


RAISES = [
    (wg.ShapeError, lambda: wg.ones((2, 3)) @ wg.ones((4, 2))),
    (wg.ShapeError, lambda: wg.ones((2, 3)).reshape(7)),
    (wg.ShapeError, lambda: nn.functional.mse_loss(wg.ones((4,)), wg.ones((4, 1)))),
    (wg.ShapeError, lambda: nn.functional.linear(wg.ones((64, 120)), wg.ones((10, 128)))),
    (wg.DTypeError, lambda: wg.bitwise_and(wg.ones((2,)), wg.ones((2,)))),
    (wg.DTypeError, lambda: wg.softmax(wg.tensor([1, 2]))),
    (wg.AxisError, lambda: wg.ones((2, 3)).sum(axis=2)),
    (wg.AxisError, lambda: wg.ones((2, 3)).sum(axis=(0, 0))),
    (IndexError, lambda: wg.ones((2, 3))[2]),
    (wg.DeviceError, lambda: wg.ones((2,), device="nowhere")),
    (wg.GradError, lambda: wg.ones((2,)).backward()),
]


@pytest.mark.parametrize(("error", "program"), RAISES)
def test_what_is_raised(error: type[Exception], program) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error) as caught:
        program()
    assert len(str(caught.value)) > 20


def test_a_caught_failure_does_not_come_back() -> None:
    """The gradient of a loss whose variables are gone is asked for by nobody, so nothing computes it later."""
    indices = wg.zeros((2,), dtype=wg.int64) + 7

    def late() -> float:
        loss = nn.Embedding(3, 2)(indices + 0).sum()
        loss.backward()
        return loss.item()

    with pytest.raises(IndexError):
        late()
    assert pending() == 0
    layer = nn.Linear(2, 1)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    optimizer.zero_grad()
    loss = layer(wg.ones((1, 2))).sum()
    loss.backward()
    optimizer.step()


def test_a_gradient_for_nobody_is_not_kept() -> None:
    x = wg.ones((1, 2))
    wg.eval(x)
    before = _core.counters()["live_nodes"]
    loss = nn.Linear(2, 1)(x).sum()
    loss.backward()
    with pytest.raises(wg.GradError, match="already used"):
        loss.backward()
    del loss
    assert _core.counters()["live_nodes"] == before


def test_what_failed_before_does_not_hold_up_later_steps() -> None:
    bad = failing(wg.tensor([1.0]))
    user = bad.mean()  # alive, and never computed
    with pytest.raises(ValueError, match="testing_op"):
        bad.tolist()
    w = nn.Parameter(wg.tensor([1.0, 2.0]))
    optimizer = optim.SGD([w], lr=0.5)
    aside = w.detach() * 3.0
    for _ in range(2):
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()
    assert (w.tolist(), aside.tolist()) == ([0.0, 1.0], [3.0, 6.0])
    with pytest.raises(ValueError, match="testing_op"):
        user.item()


def test_a_step_on_what_failed_before_fails() -> None:
    bad = failing(wg.tensor([1.0]))
    user = bad.mean()
    with pytest.raises(ValueError, match="testing_op"):
        bad.tolist()
    w = nn.Parameter(wg.tensor([1.0, 2.0]))
    optimizer = optim.SGD([w], lr=0.5)
    (w.sum() * user).backward()
    with pytest.raises(ValueError, match="testing_op"):
        optimizer.step()
    assert w.tolist() == [1.0, 2.0]
    optimizer.zero_grad()
    w.sum().backward()
    optimizer.step()
    assert w.tolist() == [0.5, 1.5]
