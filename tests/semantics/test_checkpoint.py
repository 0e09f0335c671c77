"""A checkpoint changes when values are made, never which: same bits, same draws, less memory."""

from collections.abc import Callable

import pytest

import wengert as wg
from wengert import nn

t = wg.tensor
Loss = Callable[[], wg.Tensor]


class Block(nn.Module):
    """A residual block that uses what comes in twice."""

    def __init__(self, width: int, p: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(p)

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        return x + self.dropout(self.down(wg.gelu(self.up(self.norm(x)))))


def gradients(p: float, checkpointed: bool, *, read: bool = False) -> list[object]:
    """Loss and all gradients of three blocks."""
    wg.manual_seed(3)
    net = nn.Sequential(*(Block(8, p) for _ in range(3)))
    x = wg.randn((5, 8)).requires_grad_()
    y = x * 2.0
    for block in net:
        y = wg.checkpoint(block)(y) if checkpointed else block(y)
    loss = (y * y).mean()
    values: list[object] = [loss.item()] if read else []
    loss.backward()
    values += [loss.item(), x.grad.tolist()]
    return values + [parameter.grad.tolist() for parameter in net.parameters()]


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_backward_has_the_same_bits_and_the_same_draws(p: float, read: bool) -> None:
    assert gradients(p, True, read=read) == gradients(p, False, read=read)


def test_eager_mode_has_the_same_bits() -> None:
    with wg.eager():
        assert gradients(0.5, True) == gradients(0.5, False)


def f(x: wg.Tensor) -> wg.Tensor:
    return wg.tanh(x * x) * wg.exp(x)


def g(x: wg.Tensor) -> wg.Tensor:
    return wg.sin(f(x)) * 2.0


X = [0.3, -0.7, 1.1]


def total(fun: Callable[[wg.Tensor], wg.Tensor]) -> Callable[[wg.Tensor], wg.Tensor]:
    return lambda x: (wg.sin(fun(x)) * 3.0).sum()


def nested(x: wg.Tensor) -> wg.Tensor:
    return wg.sin(wg.checkpoint(f)(x)) * 2.0


TRANSFORMS = {
    "grad": lambda h: wg.grad(total(h))(t(X)),
    "value_and_grad": lambda h: wg.value_and_grad(total(h))(t(X))[1],
    "vjp": lambda h: wg.vjp(h, t(X))[1](t([1.0, 2.0, 3.0]))[0],
    "jvp": lambda h: wg.jvp(h, (t(X),), (t([1.0, 2.0, 3.0]),))[1],
    "vmap": lambda h: wg.vmap(h)(t(X)),
    "vmap of grad": lambda h: wg.vmap(wg.grad(lambda x: wg.sin(h(x))))(t(X)),
    "grad of vmap": lambda h: wg.grad(lambda x: wg.vmap(h)(x).sum())(t(X)),
    "second order": lambda h: wg.grad(lambda x: (wg.grad(total(h))(x) * t([1.0, 2.0, 3.0])).sum())(t(X)),
    "hvp": lambda h: wg.hvp(total(h), (t(X),), (t([1.0, 2.0, 3.0]),)),
    "third order": lambda h: wg.vmap(wg.grad(wg.grad(wg.grad(h))))(t(X)),
}


@pytest.mark.parametrize("checkpointed", [wg.checkpoint(g), nested, wg.checkpoint(nested)], ids=["one", "in", "both"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_go_through(transform: str, checkpointed: Callable[[wg.Tensor], wg.Tensor]) -> None:
    got, want = TRANSFORMS[transform](checkpointed), TRANSFORMS[transform](g)
    # Of higher order, parts are added up in another order.
    bits = "grad" in transform or transform in {"vjp", "vmap"}
    assert got.tolist() == (want.tolist() if bits else pytest.approx(want.tolist(), rel=2e-5))


def test_captured_parameters_and_draws_under_vmap() -> None:
    w = t([2.0, 0.5, -1.0])

    def example(x: wg.Tensor) -> wg.Tensor:
        return wg.tanh(x * w + wg.rand((3,))).sum()

    def run(fun: Callable[[wg.Tensor], wg.Tensor]) -> object:
        wg.manual_seed(1)
        return wg.vmap(wg.grad(lambda x: wg.sin(fun(x))))(t([X, X])).tolist()

    assert run(wg.checkpoint(example)) == run(example)


def test_backward_through_vmap_reaches_captured_variables() -> None:
    def run(wrap: Callable[[Callable[[wg.Tensor], wg.Tensor]], Callable[[wg.Tensor], wg.Tensor]]) -> object:
        w = t(X).requires_grad_()
        wg.sin(wg.vmap(wrap(lambda x: wg.tanh(x * w).sum()))(t([X, X]))).sum().backward()
        return w.grad.tolist()

    assert run(wg.checkpoint) == pytest.approx(run(lambda fun: fun))


def test_what_the_function_cuts_stays_cut() -> None:
    def cutting(x: wg.Tensor) -> wg.Tensor:
        with wg.no_grad():
            mask = wg.exp(x)
        return wg.tanh(x * mask) + wg.grad(lambda y: (y * y * wg.detach(y)).sum())(x)

    def inner_cut(x: wg.Tensor) -> wg.Tensor:
        def fun(y: wg.Tensor) -> wg.Tensor:
            with wg.no_grad():
                c = y * y
            return (y * c).sum()

        return wg.grad(fun)(wg.tanh(x))

    for fun in (cutting, inner_cut):
        assert wg.grad(total(wg.checkpoint(fun)))(t(X)).tolist() == pytest.approx(wg.grad(total(fun))(t(X)).tolist())
        assert wg.checkpoint(fun)(t(X).requires_grad_()).tolist() == fun(t(X)).tolist()


def test_plain_calls_without_a_gradient_to_come() -> None:
    assert not wg.checkpoint(g)(t(X)).requires_grad
    x = t(X).requires_grad_()
    with wg.no_grad():
        assert wg.checkpoint(g)(x).tolist() == g(x).tolist()
    assert wg.checkpoint(lambda x: x)(x) is not None
    assert (wg.checkpoint(lambda x: x > 0.0)(x)).tolist() == [True, False, True]


def test_a_function_that_reads_values() -> None:
    def reading(x: wg.Tensor) -> wg.Tensor:
        y = wg.tanh(x)
        return y * (2.0 if y.sum().item() > 0.0 else 3.0)

    assert wg.grad(total(wg.checkpoint(reading)))(t(X)).tolist() == wg.grad(total(reading))(t(X)).tolist()


def test_refusals() -> None:
    with pytest.raises(TypeError, match="checkpoint"):
        wg.checkpoint(lambda x: (x, x))(t(X).requires_grad_())
    with pytest.raises(TypeError, match="function"):
        wg.checkpoint(3)  # type: ignore[arg-type]


def test_a_second_backward_needs_the_graph() -> None:
    x = t(X).requires_grad_()
    loss = total(wg.checkpoint(g))(x)
    loss.backward(retain_graph=True)
    first = x.grad.tolist()
    x.grad = None
    loss.backward()
    assert x.grad.tolist() == first
    with pytest.raises(wg.GradError):
        loss.backward()


def compiled_steps(checkpointed: bool) -> tuple[list[float], int]:
    """Losses of compiled steps on a deep chain of blocks, and the bytes of their arena."""
    wg.manual_seed(0)
    net = nn.Sequential(*(Block(32, 0.1) for _ in range(8)))
    optimizer = wg.optim.SGD(net.parameters(), lr=0.05)

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        optimizer.zero_grad()
        y = x
        for block in net:
            y = wg.checkpoint(block)(y) if checkpointed else block(y)
        loss = (y * y).mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(wg.randn((64, 32))).item() for _ in range(5)]
    [signature] = step.explain().signatures
    return losses, sum(plan["arena_bytes"] for plan in signature["plans"])


def test_compiled_steps_are_the_same_in_less_memory() -> None:
    (losses, arena), (want, plain) = compiled_steps(True), compiled_steps(False)
    assert losses == want
    assert arena < plain / 2


def test_training_leaves_no_records() -> None:
    net = Block(8, 0.1)
    optimizer = wg.optim.SGD(net.parameters(), lr=0.1)

    def steps(count: int) -> int:
        for _ in range(count):
            optimizer.zero_grad()
            wg.checkpoint(net)(wg.randn((4, 8))).mean().backward()
            optimizer.step()
        return wg.debug.counters()["live_nodes"]

    assert steps(3) == steps(20)
