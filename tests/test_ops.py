"""Every op, from its rows in `cases.py`: values, edges, layouts, gradients of both modes and orders, batching."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import wengert as wg
from cases import ROWS, TOLERANCE, ULP, Row
from references import Array
from wengert import _core

TABLE = {row["name"]: row for row in _core.op_table()}
STEP = 1e-5  # of central differences: error about STEP² and 1e-16 / STEP


def rows(**wanted: bool) -> pytest.MarkDecorator:
    chosen = [row for row in ROWS if all(getattr(row, key) == value for key, value in wanted.items())]
    assert chosen
    return pytest.mark.parametrize("row", chosen, ids=[row.id for row in chosen])


def check(row: Row, got: Array, want: Array, dtype: str) -> None:
    """Compare with the reference within the bound of the op."""
    assert got.shape == want.shape
    if want.dtype.kind != "f":
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
        return
    assert got.dtype == dtype
    eps = float(np.finfo(dtype).eps)
    if row.elementwise:
        ulp = TABLE.get(row.name, {}).get("ulp")
        # NumPy's own last place in float64, and rounding the reference in float32.
        rtol = ((ULP[row.name] if ulp is None else ulp) + 1) * eps
        atol = float(np.finfo(dtype).tiny)
    else:
        rtol = TOLERANCE.get(row.name, TOLERANCE["default"])[dtype == "float32"]
        atol = rtol
    with np.errstate(over="ignore"):
        want = want.astype(dtype).astype("float64") if dtype == "float32" else want
    np.testing.assert_allclose(got.astype("float64"), want, rtol=rtol, atol=atol, equal_nan=True)


def test_elementwise_ops_have_a_bound_for_each_machine() -> None:
    for row in TABLE.values():
        assert (row["ulp"] is not None) == (row["kind"] in ("unary", "binary")) == (row["gpu_ulp"] is not None), row
    assert [TABLE[name]["gpu_ulp"] for name in ("add", "divide", "relu")] == [0.5, 2.5, 0.0]


def test_every_op_has_a_row() -> None:
    missing = set(TABLE) - {row.name for row in ROWS} - RANDOM
    assert not missing


# Random ops have no reference value: `test_random.py` holds their distributions.
RANDOM = {name for name, entry in TABLE.items() if entry["kind"] == "random"} | {"dropout", "bernoulli", "randint"}


def test_rows_are_named_apart() -> None:
    ids = [row.id for row in ROWS]
    assert len(ids) == len(set(ids))


@rows()
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_value(row: Row, dtype: str) -> None:
    for seed in range(3):
        arrays = row.sample(seed, dtype=dtype)
        if any(a.dtype.kind == "f" and dtype == "float32" for a in row.fixed):
            arrays = [a.astype("float64") for a in arrays]
            dtype = "float64"
        want_dtype = "float64" if row.name == "astype" else dtype
        check(row, row.run(arrays).numpy(), row.expect(arrays), want_dtype)


@rows(elementwise=True)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_edges(row: Row, dtype: str) -> None:
    grids = np.meshgrid(*[np.array(row.edges, dtype)] * len(row.shapes))
    arrays = [grid.ravel() for grid in grids]
    if row.name in SHARP:
        arrays = [a.clip(*SHARP[row.name]) for a in arrays]
    want_dtype = "float64" if row.name == "astype" else dtype
    check(row, row.run(arrays).numpy(), row.expect(arrays), want_dtype)


# Ops with another meaning than NumPy's at some edges, with the part of the line where they agree.
SHARP: dict[str, tuple[float, float]] = {
    "floor_divide": (0.5, 3.0),
    "remainder": (0.5, 3.0),
    "bitwise_and": (0.0, 1e6),
    "bitwise_or": (0.0, 1e6),
    "bitwise_xor": (0.0, 1e6),
}


@rows(elementwise=True)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1), (257,), (2, 3, 4, 5)], ids=str)
def test_shapes(row: Row, shape: tuple[int, ...]) -> None:
    arrays = row.sample(shapes=(shape,) * len(row.shapes))
    check(row, row.run(arrays).numpy(), row.expect(arrays), "float64")


@rows(elementwise=True)
@pytest.mark.parametrize("pair", [((3, 1), (1, 4)), ((4,), (3, 4)), ((), (2, 3)), ((2, 0), (1,)), ((5, 1, 2), (3, 1))])
def test_broadcast(row: Row, pair: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    if len(row.shapes) != 2:
        pytest.skip("one argument")
    arrays = row.sample(shapes=pair)
    check(row, row.run(arrays).numpy(), row.expect(arrays), "float64")


LAYOUTS: dict[str, Callable[[Array], wg.Tensor]] = {
    "transposed": lambda a: wg.tensor(np.ascontiguousarray(a.T)).permute_dims(tuple(range(a.ndim))[::-1]),
    "every second": lambda a: wg.tensor(np.repeat(a, 2, -1))[..., ::2] if a.ndim else wg.tensor(a),
    "reversed": lambda a: wg.tensor(np.ascontiguousarray(a[::-1]))[::-1] if a.ndim else wg.tensor(a),
    "part": lambda a: wg.tensor(np.concatenate([a[:1], a, a[:1]]))[1:-1] if a.ndim else wg.tensor(a),
    "broadcast": lambda a: wg.broadcast_to(wg.tensor(a[:1]), a.shape) if a.ndim else wg.tensor(a),
}


@rows()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(row: Row, layout: str) -> None:
    arrays = row.sample()
    tensors = [LAYOUTS[layout](a) for a in arrays]
    wg.eval(*tensors)
    seen = [t.numpy() for t in tensors]
    if layout != "broadcast":
        for a, s in zip(arrays, seen, strict=True):
            np.testing.assert_array_equal(a, s)
    check(row, row.run(tensors).numpy(), row.expect([np.array(s) for s in seen]), "float64")


@rows(integers=True)
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_integers(row: Row, dtype: str) -> None:
    if dtype == "uint8" and row.name in ("negative", "sign"):
        pytest.skip("no sign")
    rng = np.random.default_rng(7)
    arrays = [rng.integers(0, 100, shape).astype(dtype) for shape in row.shapes]
    got, want = row.run(arrays).numpy(), row.expect(arrays)
    if row.name == "sum":
        want = want.astype("int64")  # sums of integers are int64
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


# Gradients.


def cotangent_for(y: Array, seed: int = 1) -> Array:
    """Numbers of both signs and of size about 1, in the shape of y."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1, 1], y.shape))


def constant(a: Array) -> wg.Tensor:
    """In the dtype of a; a NumPy scalar would be a Python number."""
    return wg.tensor(a.tolist(), dtype=wg.float64) if a.ndim == 0 else wg.tensor(a)


def numeric_gradients(f: Callable[[list[Array]], float], arrays: list[Array]) -> list[Array]:
    """Central differences of a scalar function, element by element."""
    gradients = []
    for position, a in enumerate(arrays):
        gradient = np.zeros_like(a)
        for index in np.ndindex(a.shape):
            sides = []
            for step in (STEP, -STEP):
                moved = a.copy()
                moved[index] += step
                sides.append(f([*arrays[:position], moved, *arrays[position + 1 :]]))
            gradient[index] = (sides[0] - sides[1]) / (2 * STEP)
        gradients.append(gradient)
    return gradients


def pull(row: Row, tensors: list[wg.Tensor], cotangent: wg.Tensor) -> tuple[wg.Tensor, ...]:
    _, pullback = wg.vjp(lambda *x: row.run(x), *tensors)
    return pullback(cotangent)


def close(got: Array, want: Array) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * max(1.0, float(np.abs(want).max(initial=0.0))))


@rows(differentiable=True)
def test_reverse_mode_equals_differences(row: Row) -> None:
    arrays = row.sample(2)
    c = cotangent_for(row.expect(arrays))
    want = numeric_gradients(lambda moved: float((row.run(moved).numpy() * c).sum()), arrays)
    got = pull(row, [wg.tensor(a) for a in arrays], constant(c))
    for g, w in zip(got, want, strict=True):
        close(g.numpy(), w)


@rows(differentiable=True)
def test_forward_mode_is_the_adjoint_of_reverse_mode(row: Row) -> None:
    arrays = row.sample(3)
    tangents = [cotangent_for(a, 10 + i) for i, a in enumerate(arrays)]
    c = cotangent_for(row.expect(arrays))
    primals = [wg.tensor(a) for a in arrays]
    value, along = wg.jvp(lambda *x: row.run(x), primals, [wg.tensor(t) for t in tangents])
    np.testing.assert_array_equal(value.numpy(), row.run(arrays).numpy())
    forward = (along.numpy() * c).sum()
    terms = [(g.numpy() * t).sum() for g, t in zip(pull(row, primals, constant(c)), tangents, strict=True)]
    size = float(np.abs(along.numpy() * c).sum()) + float(np.abs(terms).sum())
    assert abs(forward - sum(terms)) <= 1e-12 * max(size, 1.0)


@rows(differentiable=True)
def test_each_argument_alone_moves_forward(row: Row) -> None:
    """Tangents of zero may be left out by a rule: each argument alone must give its own part."""
    arrays = row.sample(4)
    primals = [wg.tensor(a) for a in arrays]
    for position, a in enumerate(arrays):
        tangent = cotangent_for(a, 20)

        def alone(x: wg.Tensor, position: int = position) -> wg.Tensor:
            return row.run([*primals[:position], x, *primals[position + 1 :]])

        _, along = wg.jvp(alone, [primals[position]], [wg.tensor(tangent)])
        sides = []
        for step in (STEP, -STEP):
            moved = [*arrays[:position], a + step * tangent, *arrays[position + 1 :]]
            sides.append(row.run(moved).numpy())
        close(along.numpy(), (sides[0] - sides[1]) / (2 * STEP))


@rows(differentiable=True)
def test_second_order_equals_differences_of_the_gradient(row: Row) -> None:
    """Of the analytic gradient, by reverse over reverse and forward over reverse."""
    arrays = row.sample(5)
    c = constant(cotangent_for(row.expect(arrays)))
    directions = [cotangent_for(a, 30 + i) for i, a in enumerate(arrays)]
    weights = [constant(cotangent_for(a, 40 + i)) for i, a in enumerate(arrays)]

    def slope(*x: wg.Tensor) -> wg.Tensor:
        total = wg.tensor(0.0, dtype=wg.float64)
        for gradient, weight in zip(pull(row, list(x), c), weights, strict=True):
            total = total + (gradient * weight).sum()
        return total

    def at(step: float) -> float:
        return float(slope(*(wg.tensor(a + step * d) for a, d in zip(arrays, directions, strict=True))))

    want = np.asarray((at(STEP) - at(-STEP)) / (2 * STEP))
    primals = [wg.tensor(a) for a in arrays]
    _, forward = wg.jvp(slope, primals, [wg.tensor(d) for d in directions])
    gradients = wg.grad(slope, tuple(range(len(primals))))(*primals)
    reverse = sum(float((g.numpy() * d).sum()) for g, d in zip(gradients, directions, strict=True))
    close(forward.numpy(), want)
    close(np.asarray(reverse), want)


@rows(batched=True)
def test_vmap_equals_a_loop(row: Row) -> None:
    examples = [row.sample(seed) for seed in range(3)]
    stacked = [np.stack(column) for column in zip(*examples, strict=True)]
    want = np.stack([row.run(example).numpy() for example in examples])
    got = wg.vmap(lambda *x: row.run(x))(*(wg.tensor(a) for a in stacked))
    assert got.shape == want.shape
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-13, atol=1e-13)
    else:
        np.testing.assert_array_equal(got.numpy(), want)


@rows(batched=True)
def test_vmap_of_each_argument_alone(row: Row) -> None:
    if len(row.shapes) == 1:
        pytest.skip("one argument")
    first = row.sample(0)
    for position in range(len(first)):
        examples = [[*first[:position], row.sample(seed)[position], *first[position + 1 :]] for seed in range(3)]
        stacked = np.stack([example[position] for example in examples], axis=-1)
        want = np.stack([row.run(example).numpy() for example in examples], axis=1 if row.expect(first).ndim else 0)
        arguments = [wg.tensor(stacked if i == position else a) for i, a in enumerate(first)]
        in_axes = tuple(-1 if i == position else None for i in range(len(first)))
        out = 1 if row.expect(first).ndim else 0
        got = wg.vmap(lambda *x: row.run(x), in_axes=in_axes, out_axes=out)(*arguments)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-13, atol=1e-13)


@rows(differentiable=True, batched=True)
def test_vmap_of_the_gradient(row: Row) -> None:
    examples = [row.sample(seed) for seed in range(2)]
    c = constant(cotangent_for(row.expect(examples[0])))
    stacked = [wg.tensor(np.stack(column)) for column in zip(*examples, strict=True)]
    got = wg.vmap(lambda *x: pull(row, list(x), c))(*stacked)
    for position, gradient in enumerate(got):
        want = [pull(row, [wg.tensor(a) for a in example], c)[position].numpy() for example in examples]
        np.testing.assert_allclose(gradient.numpy(), np.stack(want), rtol=1e-12, atol=1e-12)
