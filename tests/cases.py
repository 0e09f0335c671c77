"""The table of ops: for each, how it is called here and in NumPy, and where it is sampled.

`test_ops.py` generates its tests from the rows, and demands one for each op of `op_table()`. An op may have several
rows. Tolerances are in one table at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special

import references as ref
import wengert as wg
import wengert.nn.functional as F
from references import Array
from wengert import _core

Domain = tuple[float, float]
Shape = tuple[int, ...]

REAL = (-2.0, 2.0)
POSITIVE = (0.5, 2.0)

# Values at which elementwise ops must agree with NumPy, if a row names no others.
EDGES = (0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 1e-30, -1e-30, 30.0, -30.0, np.inf, -np.inf, np.nan)


@dataclass(frozen=True)
class Row:
    """One way to call an op.

    Attributes:
        name: of the op.
        ours: the call, on tensors.
        theirs: the same, on NumPy arrays.
        shapes: of the arguments that are sampled.
        domains: from where they are sampled; one for all, or one for each.
        fixed: further arguments, the same in each test, after those sampled: indices and the like.
        variant: tells the rows of one op apart.
        elementwise: whether one element of the result depends on one element of each argument.
        edges: values to try in each argument of an elementwise op.
        differentiable: whether there is a gradient.
        integers: whether it takes integers, with NumPy's meaning.
        batched: whether vmap is tested.
    """

    name: str
    ours: Callable[..., wg.Tensor]
    theirs: Callable[..., Any]
    shapes: tuple[Shape, ...]
    domains: tuple[Domain, ...] = (REAL,)
    fixed: tuple[Array, ...] = ()
    variant: str = ""
    elementwise: bool = False
    edges: Sequence[float] = EDGES
    differentiable: bool = True
    integers: bool = False
    batched: bool = True

    @property
    def id(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    def domain(self, position: int) -> Domain:
        return self.domains[position % len(self.domains)]

    def sample(self, seed: int = 0, *, dtype: str = "float64", shapes: tuple[Shape, ...] | None = None) -> list[Array]:
        """Random arguments in the domain, without the fixed ones."""
        rng = np.random.default_rng([seed, *self.id.encode()])
        return [
            rng.uniform(*self.domain(position), shape).astype(dtype)
            for position, shape in enumerate(self.shapes if shapes is None else shapes)
        ]

    def run(self, arrays: Sequence[Array | wg.Tensor]) -> wg.Tensor:
        """Call it here."""
        tensors = [a if isinstance(a, wg.Tensor) else wg.tensor(a) for a in (*arrays, *self.fixed)]
        return self.ours(*tensors)

    def expect(self, arrays: Sequence[Array]) -> Array:
        """Call it in NumPy, in float64 if the arguments are floats."""
        exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
        with np.errstate(all="ignore"):
            return np.asarray(self.theirs(*exact, *self.fixed))


def unary(name: str, ours: Callable[..., wg.Tensor], theirs: Callable[..., Any], **settings: Any) -> Row:
    return Row(name, ours, theirs, ((3, 4),), elementwise=True, **settings)


def binary(name: str, ours: Callable[..., wg.Tensor], theirs: Callable[..., Any], **settings: Any) -> Row:
    return Row(name, ours, theirs, ((3, 4), (3, 4)), elementwise=True, **settings)


def compare(name: str, theirs: Callable[..., Any]) -> Row:
    return binary(name, getattr(wg, name), theirs, differentiable=False, integers=True)


def bits(name: str, ours: Callable[..., wg.Tensor], theirs: Callable[..., Any]) -> Row:
    """On integers: sampled as floats, then made integer on both sides."""
    return binary(
        name,
        lambda x, y: ours(x.astype(wg.int64), y.astype(wg.int64)),
        lambda x, y: theirs(np.trunc(x).astype(np.int64), np.trunc(y).astype(np.int64)),
        domains=((0.0, 100.0),),
        edges=(0.0, 1.0, 2.0, 3.0, 255.0, 1e6),
        differentiable=False,
    )


def loss(
    name: str, ours: Callable[..., wg.Tensor], theirs: Callable[..., Array], prefix: str = "", **settings: Any
) -> list[Row]:
    """An elementwise loss, with each reduction."""
    rows = []
    for reduction in ("none", "mean", "sum"):
        rows.append(
            Row(
                name,
                lambda *a, r=reduction: ours(*a, reduction=r),
                lambda *a, r=reduction: ref.reduced(theirs(*a), r),
                variant=prefix + reduction,
                **{"shapes": ((3, 4), (3, 4)), **settings},
            )
        )
    return rows


def joined(parts: Sequence[Any]) -> Any:
    """One number for each row, from every part."""
    return sum((i + 1) * (part * part).sum(axis=1) for i, part in enumerate(parts))


LONG = np.array([[0, 2, 1, 0], [1, 1, 2, 2]])
TARGET = np.array([2, 0, 1, 0, 2])
TARGET_2D = np.array([[2, 0], [1, 1], [0, 2]])
FEW_FINITE = tuple(e for e in EDGES if abs(e) < 10)

ROWS: list[Row] = [
    # Elementwise, one argument.
    unary("abs", wg.abs, np.abs, integers=True),
    unary("negative", wg.negative, np.negative, integers=True),
    unary("square", wg.square, np.square, integers=True),
    unary("sign", wg.sign, np.sign, differentiable=False, integers=True),
    unary("reciprocal", wg.reciprocal, lambda x: 1 / x, domains=(POSITIVE,)),
    unary("exp", wg.exp, np.exp),
    unary("expm1", wg.expm1, np.expm1),
    unary("log", wg.log, np.log, domains=(POSITIVE,)),
    unary("exp2", wg.exp2, np.exp2),
    unary("log2", wg.log2, np.log2, domains=(POSITIVE,)),
    unary("log10", wg.log10, np.log10, domains=(POSITIVE,)),
    unary("rsqrt", wg.rsqrt, lambda x: 1 / np.sqrt(x), domains=(POSITIVE,)),
    unary("erfc", wg.erfc, np.vectorize(math.erfc, otypes=[float]), domains=((-1.5, 1.5),)),
    unary("tan", wg.tan, np.tan, domains=((-1.2, 1.2),)),
    unary("asin", wg.asin, np.arcsin, domains=((-0.8, 0.8),)),
    unary("acos", wg.acos, np.arccos, domains=((-0.8, 0.8),)),
    unary("atan", wg.atan, np.arctan),
    unary("sinh", wg.sinh, np.sinh),
    unary("cosh", wg.cosh, np.cosh),
    unary("asinh", wg.asinh, np.arcsinh),
    unary("acosh", wg.acosh, np.arccosh, domains=((1.5, 3.0),)),
    unary("atanh", wg.atanh, np.arctanh, domains=((-0.8, 0.8),)),
    unary("ceil", wg.ceil, np.ceil, differentiable=False),
    unary("floor", wg.floor, np.floor, differentiable=False),
    unary("round", wg.round, np.round, differentiable=False, edges=(*EDGES, 1.5, 2.5, -1.5)),
    unary("trunc", wg.trunc, np.trunc, differentiable=False),
    unary("logical_not", wg.logical_not, np.logical_not, differentiable=False),
    unary("log1p", wg.log1p, np.log1p, domains=((-0.5, 2.0),)),
    unary("sqrt", wg.sqrt, np.sqrt, domains=(POSITIVE,)),
    unary("erf", wg.erf, scipy.special.erf, domains=((-1.5, 1.5),)),
    unary("sin", wg.sin, np.sin),
    unary("cos", wg.cos, np.cos),
    unary("tanh", wg.tanh, np.tanh, domains=((-1.5, 1.5),)),
    unary("sigmoid", wg.sigmoid, scipy.special.expit),
    unary("relu", wg.relu, ref.relu),
    unary("leaky_relu", lambda x: wg.leaky_relu(x, 0.1), lambda x: ref.leaky_relu(x, 0.1)),
    unary("elu", lambda x: wg.elu(x, 1.5), lambda x: ref.elu(x, 1.5)),
    unary("gelu", wg.gelu, lambda x: x * scipy.special.ndtr(x), edges=FEW_FINITE),
    unary("gelu", lambda x: wg.gelu(x, "tanh"), ref.gelu_tanh, variant="tanh", edges=FEW_FINITE),
    unary("silu", wg.silu, lambda x: x * scipy.special.expit(x), edges=FEW_FINITE),
    unary("softplus", wg.softplus, ref.softplus),
    # Elementwise, two arguments.
    binary("add", wg.add, np.add, integers=True),
    binary("subtract", wg.subtract, np.subtract, integers=True),
    binary("multiply", wg.multiply, np.multiply, integers=True),
    binary("divide", wg.divide, np.divide, domains=(REAL, POSITIVE)),
    binary("floor_divide", wg.floor_divide, np.floor_divide, domains=((-5.0, 5.0), POSITIVE), differentiable=False),
    binary("remainder", wg.remainder, np.remainder, domains=((-5.0, 5.0), POSITIVE)),
    binary("pow", wg.pow, np.power, domains=(POSITIVE, REAL)),
    unary("pow_constant", lambda x: x**2, lambda x: x**2, variant="square"),
    unary("pow_constant", lambda x: x**3, lambda x: x**3, variant="cube"),
    unary("pow_constant", lambda x: x**-1.0, lambda x: x**-1.0, variant="inverse", domains=(POSITIVE,)),
    unary("pow_constant", lambda x: x**0.5, lambda x: x**0.5, variant="root", domains=(POSITIVE,)),
    unary("pow", lambda x: 2.0**x, lambda x: 2.0**x, variant="exponential"),
    binary("maximum", wg.maximum, np.maximum, integers=True),
    binary("minimum", wg.minimum, np.minimum, integers=True),
    binary("atan2", wg.atan2, np.arctan2, domains=(REAL, POSITIVE)),
    binary("hypot", wg.hypot, np.hypot, domains=(POSITIVE,)),
    binary("logaddexp", wg.logaddexp, np.logaddexp, domains=(POSITIVE,)),  # elsewhere it crosses 0
    binary("zmul", _core.zmul, ref.zmul),
    compare("equal", np.equal),
    compare("not_equal", np.not_equal),
    compare("less", np.less),
    compare("less_equal", np.less_equal),
    compare("greater", np.greater),
    compare("greater_equal", np.greater_equal),
    bits("bitwise_and", wg.bitwise_and, np.bitwise_and),
    bits("bitwise_or", wg.bitwise_or, np.bitwise_or),
    bits("bitwise_xor", wg.bitwise_xor, np.bitwise_xor),
    unary(
        "bitwise_invert",
        lambda x: wg.bitwise_invert(x.astype(wg.int64)),
        lambda x: np.invert(np.trunc(x).astype(np.int64)),
        domains=((-100.0, 100.0),),
        edges=(0.0, -1.0, 255.0),
        differentiable=False,
    ),
    # Elementwise by other names: what users call that is made of the above.
    unary("positive", wg.positive, np.positive, integers=True),
    unary("isnan", wg.isnan, np.isnan, differentiable=False),
    unary("isinf", wg.isinf, np.isinf, differentiable=False),
    unary("isfinite", wg.isfinite, np.isfinite, differentiable=False),
    unary("clip", lambda x: wg.clip(x, -1.0, 1.5), lambda x: np.clip(x, -1.0, 1.5)),
    Row(
        "clip",
        wg.clip,
        lambda x, low, high: np.minimum(np.maximum(x, low), high),
        ((5, 8), (5, 8), (5, 8)),
        variant="crossing bounds",
        elementwise=True,
        edges=(-1.0, 0.5, 2.0, np.inf),
    ),
    binary("where", lambda x, y: wg.where(x > y, x, y * 2.0), lambda x, y: np.where(x > y, x, y * 2.0)),
    unary("astype", lambda x: x.astype(wg.float64), lambda x: x),
    # Reductions.
    Row("sum", lambda x: x.sum(), np.sum, ((3, 4),), integers=True),
    Row("sum", lambda x: x.sum(axis=0), lambda x: x.sum(0), ((3, 4),), variant="axis 0", integers=True),
    Row("sum", lambda x: x.sum(axis=(0, -1)), lambda x: x.sum((0, 2)), ((2, 3, 4),), variant="two axes"),
    Row(
        "sum",
        lambda x: x.sum(axis=1, keepdims=True),
        lambda x: x.sum(1, keepdims=True),
        ((2, 3, 4),),
        variant="keepdims",
    ),
    Row("mean", lambda x: x.mean(), np.mean, ((3, 4),)),
    Row("mean", lambda x: x.mean(axis=1), lambda x: x.mean(1), ((3, 4),), variant="axis 1"),
    Row("prod", lambda x: x.prod(), np.prod, ((3, 4),)),
    Row("prod", lambda x: x.prod(axis=1), lambda x: x.prod(1), ((3, 5),), variant="axis 1"),
    Row("max", lambda x: x.max(), np.max, ((3, 4),), integers=True),
    Row("max", lambda x: x.max(axis=0), lambda x: x.max(0), ((3, 4),), variant="axis 0", integers=True),
    Row("min", lambda x: x.min(axis=1), lambda x: x.min(1), ((3, 4),), variant="axis 1", integers=True),
    Row("min", lambda x: x.min(), np.min, ((3, 4),), integers=True),
    Row("var", lambda x: x.var(), np.var, ((3, 4),)),
    Row("var", lambda x: x.var(axis=0, correction=1.0), lambda x: x.var(0, ddof=1), ((3, 4),), variant="unbiased"),
    Row("std", lambda x: x.std(axis=1), lambda x: x.std(1), ((3, 4),)),
    Row("logsumexp", lambda x: wg.logsumexp(x), scipy.special.logsumexp, ((3, 4),)),
    Row(
        "logsumexp",
        lambda x: wg.logsumexp(x, axis=1),
        lambda x: scipy.special.logsumexp(x, 1),
        ((3, 4),),
        variant="axis 1",
    ),
    Row("vector_norm", lambda x: wg.vector_norm(x), lambda x: np.sqrt((x * x).sum()), ((3, 4),)),
    Row(
        "vector_norm",
        lambda x: wg.vector_norm(x, axis=0),
        lambda x: np.sqrt((x * x).sum(0)),
        ((3, 4),),
        variant="axis 0",
    ),
    Row("argmax", lambda x: wg.argmax(x, axis=1), lambda x: x.argmax(1), ((3, 4),), differentiable=False),
    Row("argmax", lambda x: wg.argmax(x), np.argmax, ((3, 4),), variant="flat", differentiable=False),
    Row("argmin", lambda x: wg.argmin(x, axis=0), lambda x: x.argmin(0), ((3, 4),), differentiable=False),
    Row("all", lambda x: wg.all(x > -1.0, axis=1), lambda x: (x > -1).all(1), ((3, 4),), differentiable=False),
    Row("any", lambda x: wg.any(x > 1.5, axis=0), lambda x: (x > 1.5).any(0), ((3, 4),), differentiable=False),
    Row("softmax", lambda x: wg.softmax(x, axis=1), lambda x: scipy.special.softmax(x, 1), ((3, 4),)),
    Row("softmax", lambda x: wg.softmax(x, axis=0), lambda x: scipy.special.softmax(x, 0), ((3, 4),), variant="axis 0"),
    Row("log_softmax", lambda x: wg.log_softmax(x, axis=1), lambda x: scipy.special.log_softmax(x, 1), ((3, 4),)),
    # Rearrangements.
    Row("reshape", lambda x: x.reshape(4, 3), lambda x: x.reshape(4, 3), ((2, 6),), integers=True),
    Row("flatten", lambda x: wg.flatten(x, 1), lambda x: x.reshape(2, 12), ((2, 3, 4),), integers=True),
    Row(
        "permute_dims",
        lambda x: wg.permute_dims(x, (2, 0, 1)),
        lambda x: x.transpose(2, 0, 1),
        ((2, 3, 4),),
        integers=True,
    ),
    Row("matrix_transpose", lambda x: x.mT, lambda x: x.swapaxes(1, 2), ((2, 3, 4),)),
    Row("moveaxis", lambda x: wg.moveaxis(x, 0, 2), lambda x: np.moveaxis(x, 0, 2), ((2, 3, 4),)),
    Row("expand_dims", lambda x: wg.expand_dims(x, 1), lambda x: x[:, None], ((3, 4),)),
    Row("squeeze", lambda x: wg.squeeze(x, 1), lambda x: x[:, 0], ((3, 1, 4),)),
    Row(
        "broadcast_to",
        lambda x: wg.broadcast_to(x, (2, 3, 4)),
        lambda x: np.broadcast_to(x, (2, 3, 4)),
        ((3, 1),),
        integers=True,
    ),
    Row("flip", lambda x: wg.flip(x, 1), lambda x: np.flip(x, 1), ((3, 4),)),
    Row("concat", lambda x, y: wg.concat([x, y], 1), lambda x, y: np.concatenate([x, y], 1), ((3, 4), (3, 2))),
    Row(
        "split", lambda x: joined(wg.split(x, [1, 3], axis=1)), lambda x: joined(np.split(x, [1, 3], axis=1)), ((2, 5),)
    ),
    Row("stack", lambda x, y: wg.stack([x, y], 1), lambda x, y: np.stack([x, y], 1), ((3, 4), (3, 4))),
    Row("slice", lambda x: x[1:, ::2], lambda x: x[1:, ::2], ((3, 5),), integers=True),
    Row("slice", lambda x: x[::-1, -2], lambda x: x[::-1, -2], ((3, 5),), variant="negative"),
    Row("slice", lambda x: x[..., None, 1:3], lambda x: x[..., None, 1:3], ((3, 5),), variant="new axis"),
    # Selections.
    Row("take", lambda x, i: wg.take(x, i, axis=0), lambda x, i: x.take(i, 0), ((3, 4),), fixed=(LONG,)),
    Row("take", lambda x, i: wg.take(x, i, axis=1), lambda x, i: x.take(i, 1), ((2, 3),), (REAL,), (LONG,), "axis 1"),
    Row(
        "take_along_axis",
        lambda x, i: wg.take_along_axis(x, i, axis=1),
        lambda x, i: ref.take_along(x, i, 1),
        ((2, 3),),
        fixed=(LONG,),
    ),
    Row(
        "scatter_add",
        lambda x, u, i: wg.scatter_add(x, i, u, axis=1),
        lambda x, u, i: ref.scatter_add(x, i, u, 1),
        ((2, 3), (2, 4)),
        fixed=(LONG,),
    ),
    Row(
        "index_add",
        lambda x, u, i: wg.index_add(x, i, u, axis=0),
        lambda x, u, i: ref.index_add(x, i, u, 0),
        ((3, 2), (4, 2)),
        fixed=(LONG[0],),
    ),
    Row("index", lambda x, i: x[i], lambda x, i: x[i], ((3, 2),), fixed=(LONG,)),
    # Recorded for class indices that are not known yet.
    Row(
        "class_index",
        lambda x: wg.one_hot(x.astype(wg.int64) + 0, 3).argmax(axis=-1),
        lambda x: np.trunc(x).astype(np.int64),
        ((5,),),
        domains=((0.0, 3.0),),
        differentiable=False,
    ),
    Row(
        "one_hot",
        lambda x: wg.one_hot(x.astype(wg.int64), 3),
        lambda x: ref.one_hot(np.trunc(x).astype(np.int64), 3),
        ((5,),),
        domains=((0.0, 3.0),),
        differentiable=False,
    ),
    # Products.
    Row("matmul", wg.matmul, np.matmul, ((3, 4), (4, 2))),
    Row("matmul", wg.matmul, np.matmul, ((2, 3, 4), (2, 4, 2)), variant="batched"),
    Row("matmul", wg.matmul, np.matmul, ((2, 3, 4), (4, 2)), variant="shared"),
    Row("matmul", wg.matmul, np.matmul, ((4,), (4,)), variant="dot"),
    Row("matmul", wg.matmul, np.matmul, ((3, 4), (4,)), variant="vector"),
    Row("linear", F.linear, lambda x, w, b: x @ w.T + b, ((5, 4), (2, 4), (2,))),
    Row("linear", F.linear, lambda x, w: x @ w.T, ((2, 3, 4), (2, 4)), variant="no bias"),
    # Layers.
    Row(
        "batch_norm",
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.1, 1e-3),
        lambda x, w, b: ref.batch_norm_training(x, w, b, 1e-3),
        ((5, 3), (3,), (3,)),
    ),
    Row(
        "batch_norm_eval",
        lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b, False, 0.1, 1e-3),
        lambda x, w, b, m, v: ref.batch_norm(x, m, v, w, b, 1e-3),
        ((2, 3, 4), (3,), (3,)),
        fixed=(np.array([0.5, -0.5, 0.0]), np.array([1.0, 2.0, 0.5])),
    ),
    Row(
        "layer_norm",
        lambda x, w, b: F.layer_norm(x, (4,), w, b, 1e-3),
        lambda x, w, b: ref.layer_norm(x, w, b, 1e-3),
        ((2, 3, 4), (4,), (4,)),
    ),
    Row(
        "rms_norm",
        lambda x, w: F.rms_norm(x, (3, 4), w, 1e-3),
        lambda x, w: x / np.sqrt((x**2).mean((-2, -1), keepdims=True) + 1e-3) * w,
        ((2, 3, 4), (3, 4)),
    ),
    Row(
        "scaled_dot_product_attention",
        F.scaled_dot_product_attention,
        ref.attention,
        ((2, 3, 4), (2, 5, 4), (2, 5, 3)),
    ),
    Row(
        "scaled_dot_product_attention",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
        lambda q, k, v: ref.attention(q, k, v, causal=True, scale=0.3),
        ((2, 3, 4), (1, 2, 4), (2, 5)),
        variant="causal",
    ),
    Row(
        "scaled_dot_product_attention",
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m),
        ref.attention,
        ((2, 3, 4), (2, 5, 4), (2, 5, 3), (3, 5)),
        variant="mask",
    ),
    Row(
        "scaled_dot_product_attention",
        lambda q, k, v, keep: F.scaled_dot_product_attention(q, k, v, keep),
        lambda q, k, v, keep: ref.attention(q, k, v, np.where(keep, 0.0, -np.inf)),
        ((2, 3, 4), (2, 5, 4), (2, 5, 3)),
        # The second query sees no key.
        fixed=(np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 1]], dtype=bool),),
        variant="keep",
    ),
    # Losses.
    *loss("mse_loss", F.mse_loss, lambda x, y: (x - y) ** 2),
    *loss("l1_loss", F.l1_loss, lambda x, y: np.abs(x - y)),
    *loss("huber_loss", lambda x, y, **k: F.huber_loss(x, y, delta=0.7, **k), lambda x, y: ref.huber(x, y, 0.7)),
    *loss(
        "smooth_l1_loss", lambda x, y, **k: F.smooth_l1_loss(x, y, beta=0.7, **k), lambda x, y: ref.smooth_l1(x, y, 0.7)
    ),
    *loss("binary_cross_entropy", F.binary_cross_entropy, ref.bce, domains=((0.1, 0.9),)),
    *loss(
        "binary_cross_entropy",
        lambda x, y, w, **k: F.binary_cross_entropy(x, y, w, **k),
        ref.bce,
        domains=((0.1, 0.9),),
        shapes=((3, 4), (3, 4), (4,)),
        prefix="weight ",
    ),
    *loss(
        "binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, ref.bce_logits, domains=(REAL, (0, 1))
    ),
    Row(
        "binary_cross_entropy_with_logits",
        lambda x, y, w, p: F.binary_cross_entropy_with_logits(x, y, w, pos_weight=p),
        lambda x, y, w, p: ref.bce_logits(x, y, w, p).mean(),
        ((3, 4), (3, 4), (4,), (4,)),
        domains=(REAL, (0, 1), POSITIVE, POSITIVE),
        variant="weights",
    ),
    *(
        Row(
            "nll_loss",
            lambda x, t, k=settings: F.nll_loss(x, t, **k),
            lambda x, t, k=settings: ref.nll(x, t, **k),
            ((5, 3),),
            fixed=(TARGET,),
            variant=variant,
        )
        for variant, settings in {
            "": {},
            "sum": {"reduction": "sum"},
            "none": {"reduction": "none"},
            "ignore": {"ignore_index": 0},
        }.items()
    ),
    Row(
        "nll_loss",
        lambda x, w, t: F.nll_loss(x, t, w),
        lambda x, w, t: ref.nll(x, t, w),
        ((5, 3), (3,)),
        domains=(REAL, POSITIVE),
        fixed=(TARGET,),
        variant="weight",
    ),
    *(
        Row(
            "cross_entropy",
            lambda x, t, k=settings: F.cross_entropy(x, t, **k),
            lambda x, t, k=settings: ref.cross_entropy(x, t, **k),
            ((5, 3),),
            fixed=(TARGET,),
            variant=variant,
        )
        for variant, settings in {
            "": {},
            "sum": {"reduction": "sum"},
            "none": {"reduction": "none"},
            "ignore": {"ignore_index": 2},
            "smoothing": {"label_smoothing": 0.2},
            "smoothing and ignore": {"label_smoothing": 0.2, "ignore_index": 0},
        }.items()
    ),
    Row(
        "cross_entropy",
        lambda x, w, t: F.cross_entropy(x, t, w, label_smoothing=0.1),
        lambda x, w, t: ref.cross_entropy(x, t, w, label_smoothing=0.1),
        ((5, 3), (3,)),
        domains=(REAL, POSITIVE),
        fixed=(TARGET,),
        variant="weight",
    ),
    Row(
        "cross_entropy",
        lambda x, t: F.cross_entropy(x, t),
        lambda x, t: ref.cross_entropy(x, t),
        ((3, 3, 2),),
        fixed=(TARGET_2D,),
        variant="positions",
    ),
    Row(
        "cross_entropy",
        lambda x, q: F.cross_entropy(x, q, label_smoothing=0.1),
        lambda x, q: ref.cross_entropy(x, q, label_smoothing=0.1),
        ((5, 3), (5, 3)),
        domains=(REAL, (0.1, 0.9)),
        variant="probabilities",
    ),
]

ROWS += [
    *(
        Row(
            "conv",
            lambda x, w, *b, f=function, k=settings: f(x, w, *b, **k),
            lambda x, w, *b, k=settings: ref.conv(x, w, *b, **k),
            shapes,
            variant=variant,
        )
        for variant, function, shapes, settings in [
            ("2d", F.conv2d, ((2, 3, 5, 6), (4, 3, 3, 2), (4,)), {}),
            ("2d padded", F.conv2d, ((2, 2, 4, 5), (3, 2, 3, 3)), {"padding": (1, 1)}),
            ("2d strided", F.conv2d, ((1, 2, 7, 6), (2, 2, 3, 2), (2,)), {"stride": (2, 3), "padding": (1, 0)}),
            ("2d dilated", F.conv2d, ((1, 2, 7, 5), (2, 2, 2, 3)), {"dilation": (3, 2), "padding": (0, 1)}),
            ("2d groups", F.conv2d, ((2, 4, 4, 4), (6, 2, 2, 2), (6,)), {"groups": 2}),
            ("2d depthwise", F.conv2d, ((2, 3, 5, 4), (3, 1, 3, 3)), {"groups": 3, "padding": (1, 1)}),
            ("1d", F.conv1d, ((2, 3, 9), (4, 3, 3), (4,)), {"stride": (2,), "padding": (1,), "dilation": (1,)}),
            (
                "3d",
                F.conv3d,
                ((1, 2, 3, 4, 3), (2, 2, 2, 2, 2)),
                {"stride": (1, 2, 1), "padding": (0, 1, 0), "dilation": (1, 1, 1)},
            ),
        ]
    ),
    *(
        Row(
            "max_pool",
            lambda x, f=function, a=arguments: f(x, *a),
            lambda x, a=arguments: ref.windows(x, *a, fill=-np.inf).max(-1),
            (shape,),
            variant=variant,
        )
        for variant, function, shape, arguments in [
            ("2d", F.max_pool2d, (2, 3, 4, 6), ((2, 2), (2, 2), (0, 0))),
            ("2d overlapping", F.max_pool2d, (2, 5, 7), ((3, 2), (2, 1), (1, 1))),
            ("1d", F.max_pool1d, (2, 3, 9), ((4,), (2,), (1,))),
            ("3d", F.max_pool3d, (2, 4, 4, 3), ((2, 2, 1), (2, 1, 1), (1, 0, 0))),
        ]
    ),
    *(
        Row(
            "avg_pool",
            lambda x, f=function, a=arguments, k=settings: f(x, *a, **k),
            lambda x, a=arguments, r=reduce: r(x, *a),
            (shape,),
            variant=variant,
        )
        for variant, function, shape, arguments, settings, reduce in [
            ("2d", F.avg_pool2d, (2, 3, 4, 6), ((2, 2), (2, 2), (0, 0)), {}, ref.mean_pool),
            ("2d overlapping", F.avg_pool2d, (2, 5, 7), ((3, 2), (2, 1), (1, 1)), {}, ref.mean_pool),
            (
                "2d inside",
                F.avg_pool2d,
                (2, 5, 7),
                ((3, 3), (2, 2), (1, 1)),
                {"count_include_pad": False},
                lambda x, *a: ref.mean_pool(x, *a) / ref.mean_pool(np.ones_like(x), *a),
            ),
            (
                "2d divisor",
                F.avg_pool2d,
                (2, 5, 7),
                ((3, 3), (2, 2), (1, 1)),
                {"divisor_override": 5},
                lambda x, *a: ref.mean_pool(x, *a) * 9 / 5,
            ),
            ("1d", F.avg_pool1d, (2, 3, 9), ((4,), (3,), (1,)), {}, ref.mean_pool),
            ("3d", F.avg_pool3d, (2, 4, 4, 3), ((2, 2, 1), (2, 1, 1), (1, 0, 0)), {}, ref.mean_pool),
        ]
    ),
]

# Largest relative error in float64 and float32 for what is not elementwise; elementwise ops keep the ULP of the table.
# Sums of a few terms lose a few ULP; these bounds hold for the sizes above.
TOLERANCE: dict[str, tuple[float, float]] = {
    "default": (4e-15, 2e-6),
    # Differences of numbers that are close: the error is relative to the terms.
    "log_softmax": (2e-14, 4e-6),
    "cross_entropy": (2e-14, 4e-6),
    "batch_norm": (2e-14, 1e-5),
    "batch_norm_eval": (2e-14, 1e-5),
    "layer_norm": (2e-14, 1e-5),
    "scaled_dot_product_attention": (2e-14, 4e-6),
    "matmul": (2e-14, 4e-6),
    "linear": (2e-14, 4e-6),
    "conv": (2e-14, 8e-6),
    # gelu and silu are products of rounded factors; far below zero 1 + erf cancels.
    "gelu": (4e-14, 1e-5),
}

# ULP for elementwise names that `op_table()` does not hold or gives no bound for.
ULP: dict[str, float] = {
    "pow_constant": 2,
    "logaddexp": 6,
    "softplus": 6,
    "elu": 6,
    "leaky_relu": 1,
    "gelu": 500,  # 1 + erf(x/√2) cancels below zero
    "silu": 6,
    "positive": 0,
    "isnan": 0,
    "isinf": 0,
    "isfinite": 0,
    "clip": 0,
    "where": 0,
    "astype": 0,
}
