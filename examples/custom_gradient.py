"""Give a function a gradient of your own: a step that still learns, and a gradient turned around."""

from collections.abc import Callable

import wengert as wg

Pullback = Callable[[wg.Tensor], wg.Tensor]


@wg.custom_gradient
def step(x: wg.Tensor) -> tuple[wg.Tensor, Pullback]:
    """Return 1 where x > 0 and 0 elsewhere. Its true gradient is 0; where |x| <= 1 it passes the cotangent instead."""
    passes = (wg.abs(x) <= 1.0).astype(wg.float32)

    def pullback(cotangent: wg.Tensor) -> wg.Tensor:
        return cotangent * passes

    return (x > 0.0).astype(wg.float32), pullback


@wg.custom_gradient
def reversed_gradient(x: wg.Tensor) -> tuple[wg.Tensor, Pullback]:
    """Return x unchanged; what flows back changes its sign, so that descent becomes ascent."""
    return x, lambda cotangent: -cotangent


def learn_threshold() -> float:
    """Find where a step must lie so that it fires for 0.7 and 0.9 and not for 0.1 and 0.4."""
    inputs, wanted = wg.tensor([0.1, 0.4, 0.7, 0.9]), wg.tensor([0.0, 0.0, 1.0, 1.0])
    threshold = wg.tensor(-0.5).requires_grad_()
    for _ in range(50):
        loss = ((step(inputs - threshold) - wanted) ** 2).mean()
        threshold.grad = None
        loss.backward()
        assert threshold.grad is not None
        with wg.no_grad():
            threshold -= 0.1 * threshold.grad
    assert loss.item() == 0.0
    return float(threshold.item())


def main() -> None:
    x = wg.tensor([-2.0, -0.5, 0.5, 2.0])
    value, gradient = wg.value_and_grad(lambda x: step(x).sum())(x)
    print(f"step: {value.item()} fire, gradient {gradient.tolist()}")
    assert value.item() == 2.0
    assert gradient.tolist() == [0.0, 1.0, 1.0, 0.0]

    turned = wg.grad(lambda x: (reversed_gradient(x) * x).sum())(x)
    print(f"x * x with one factor reversed: gradient {turned.tolist()}")
    assert turned.tolist() == [0.0, 0.0, 0.0, 0.0]

    threshold = learn_threshold()
    print(f"learned threshold: {threshold:.3f}")
    assert 0.4 <= threshold < 0.7


if __name__ == "__main__":
    main()
