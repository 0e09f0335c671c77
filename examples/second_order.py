"""Second derivatives: nested gradients, and Newton's method from Hessian-vector products."""

import math

import wengert as wg


def valley(p: wg.Tensor) -> wg.Tensor:
    """Rosenbrock's function of points (2,): a narrow bent valley, lowest at (1, 1)."""
    x, y = p[0], p[1]
    return (1.0 - x) ** 2 + 100.0 * (y - x * x) ** 2


def newton_step(p: wg.Tensor) -> wg.Tensor:
    """Solve H s = -gradient by conjugate gradients; the Hessian H is only ever multiplied, never built."""
    residual = -wg.grad(valley)(p)
    step, direction = wg.zeros_like(p), residual
    for _ in range(p.shape[0]):
        curved = wg.hvp(valley, (p,), (direction,))
        length = (residual * residual).sum() / (direction * curved).sum()
        step = step + length * direction
        remaining = residual - length * curved
        direction = remaining + (remaining * remaining).sum() / (residual * residual).sum() * direction
        residual = remaining
    return step


def main() -> None:
    # Gradients of gradients: tanh and its first two derivatives.
    x = wg.tensor(0.5)
    first, second = wg.grad(wg.tanh), wg.grad(wg.grad(wg.tanh))
    t = math.tanh(0.5)
    print(f"tanh {wg.tanh(x).item():.6f}, first {first(x).item():.6f}, second {second(x).item():.6f}")
    assert math.isclose(first(x).item(), 1 - t * t, rel_tol=1e-5)
    assert math.isclose(second(x).item(), -2 * t * (1 - t * t), rel_tol=1e-5)

    # The same with recorded variables: keep the graph of the first gradient and differentiate it.
    v = wg.tensor(0.5).requires_grad_()
    (slope,) = wg.autograd.grad(wg.tanh(v), [v], create_graph=True)
    slope.backward()
    assert v.grad is not None
    assert math.isclose(v.grad.item(), second(x).item(), rel_tol=1e-5)

    # Newton's method crosses the valley in a handful of steps; gradient descent needs thousands.
    p = wg.tensor([-1.2, 1.0], dtype=wg.float64)
    for step in range(7):
        print(f"step {step}: {[f'{c:.6f}' for c in p.tolist()]} value {valley(p).item():.2e}")
        p = p + newton_step(p)
    assert all(math.isclose(c, 1.0, abs_tol=1e-6) for c in p.tolist())


if __name__ == "__main__":
    main()
