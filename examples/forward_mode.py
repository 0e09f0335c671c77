"""Derivatives along a direction: forward mode, next to reverse mode, through an ordinary Python loop."""

import math

import wengert as wg


def square_root(a: wg.Tensor) -> wg.Tensor:
    """Newton's iteration for the square root; nothing here knows the derivative."""
    x = wg.ones_like(a)
    for _ in range(8):
        x = 0.5 * (x + a / x)
    return x


def swirl(p: wg.Tensor) -> wg.Tensor:
    """Map points of the plane to three numbers."""
    x, y = p[0], p[1]
    return wg.stack([x * wg.sin(y), wg.exp(-x * x), x + y * y])


def main() -> None:
    a = wg.tensor(2.0)
    root, slope = wg.jvp(square_root, (a,), (wg.tensor(1.0),))
    print(f"sqrt(2) = {root.item():.6f}, its derivative {slope.item():.6f}")
    assert math.isclose(root.item(), math.sqrt(2), rel_tol=1e-6)
    assert math.isclose(slope.item(), 0.5 / math.sqrt(2), rel_tol=1e-5)

    # One forward pass gives J v, one backward pass u J: both see the same Jacobian.
    point, v, u = wg.tensor([0.3, -1.2]), wg.tensor([1.0, 2.0]), wg.tensor([0.5, -1.0, 2.0])
    value, along_v = wg.jvp(swirl, (point,), (v,))
    _, pullback = wg.vjp(swirl, point)
    (u_back,) = pullback(u)
    print(f"swirl = {value.tolist()}")
    assert math.isclose((u * along_v).sum().item(), (u_back * v).sum().item(), rel_tol=1e-5)

    # Two directions at once: the columns of the Jacobian.
    directions = wg.tensor([[1.0, 0.0], [0.0, 1.0]])
    columns = wg.vmap(lambda direction: wg.jvp(swirl, (point,), (direction,))[1])(directions)
    x, y = 0.3, -1.2
    expected = [[math.sin(y), -2 * x * math.exp(-x * x), 1.0], [x * math.cos(y), 0.0, 2 * y]]
    for column, true_column in zip(columns.tolist(), expected, strict=True):
        print("column", [f"{entry:.4f}" for entry in column])
        assert all(math.isclose(c, t, rel_tol=1e-5, abs_tol=1e-6) for c, t in zip(column, true_column, strict=True))


if __name__ == "__main__":
    main()
