"""How PyTorch's recorded samples are called here: names and argument orders, and ops that are a few lines of others.

`resolve` gives None for what does not exist; those samples count as missing. Nothing is computed that the package does
not compute itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import wengert as wg
import wengert.nn.functional as F
from wengert import nn
from wengert import optim as wg_optim

Tensor = wg.Tensor
Op = Callable[..., Any]


def tensor(array: np.ndarray[Any, Any], requires_grad: bool) -> Tensor:
    return wg.tensor(array, requires_grad=requires_grad)


def array(t: Tensor) -> np.ndarray[Any, Any]:
    return t.detach().numpy()  # type: ignore[no-any-return]


def dtype(name: str) -> Any:
    found = getattr(wg, name, None)
    if found is None:
        raise wg.DTypeError(f"{name} is not held")
    return found


def grad(outs: Sequence[Tensor], cotangents: Sequence[Tensor], ins: Sequence[Tensor]) -> Sequence[Tensor | None]:
    # A result that no input reaches has no gradient.
    pairs = [(o, c) for o, c in zip(outs, cotangents, strict=True) if o.requires_grad]
    if not pairs:
        return [None] * len(ins)
    return wg.autograd.grad([o for o, _ in pairs], ins, [c for _, c in pairs], allow_unused=True)


class Softmax(nn.Softmax):
    """PyTorch gives a 0-d tensor one axis."""

    def forward(self, x: Tensor) -> Tensor:
        return along(wg.softmax)(x, self.dim)  # type: ignore[no-any-return]


class LogSoftmax(nn.LogSoftmax):
    """As above."""

    def forward(self, x: Tensor) -> Tensor:
        return along(wg.log_softmax)(x, self.dim)  # type: ignore[no-any-return]


def module(name: str) -> type | None:
    name = name.removeprefix("nn.")
    return {"Softmax": Softmax, "LogSoftmax": LogSoftmax}.get(name) or getattr(nn, name, None)


def optim(name: str) -> type | None:
    return getattr(wg_optim, name, None)


def parameter(array: np.ndarray[Any, Any]) -> Tensor:
    return nn.Parameter(wg.tensor(array))


# Ops whose arguments and their order are ours already, by PyTorch's name.
UNCHANGED = [
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "cos", "cosh", "erf", "erfc",
    "exp", "exp2", "expm1", "floor", "hypot", "log", "log10", "log1p", "log2", "logaddexp", "matmul", "maximum",
    "minimum", "reciprocal", "remainder", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh",
    "trunc", "isfinite", "isinf", "isnan", "logical_and", "logical_not", "logical_or", "logical_xor", "bitwise_and",
    "bitwise_or", "bitwise_xor", "floor_divide", "positive", "zeros_like", "ones_like", "relu",
]  # fmt: skip

SAME = dict(zip(UNCHANGED, UNCHANGED, strict=True)) | {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "bitwise_not": "bitwise_invert",
    "bmm": "matmul",
    "mm": "matmul",
    "mv": "matmul",
    "div": "divide",
    "dot": "matmul",
    "eq": "equal",
    "ge": "greater_equal",
    "gt": "greater",
    "le": "less_equal",
    "lt": "less",
    "mul": "multiply",
    "multiply": "multiply",
    "ne": "not_equal",
    "neg": "negative",
    "negative": "negative",
    "divide": "divide",
    "true_divide": "divide",
    "subtract": "subtract",
    "less": "less",
    "less_equal": "less_equal",
    "greater": "greater",
    "greater_equal": "greater_equal",
    "not_equal": "not_equal",
    "special.erf": "erf",
    "special.erfc": "erfc",
    "special.exp2": "exp2",
    "special.expit": "sigmoid",
    "special.expm1": "expm1",
    "special.log1p": "log1p",
    "nn.functional.relu": "relu",
    "nn.functional.silu": "silu",
    "nn.functional.tanh": "tanh",
    "nn.functional.sigmoid": "sigmoid",
}


def method(op: Op) -> Op:
    """PyTorch's elementwise ops are methods of their first argument, which a number has not."""

    def call(x: Tensor, *args: Any, **named: Any) -> Any:
        if not isinstance(x, Tensor):
            raise TypeError(f"{type(x).__name__} is no tensor")
        return op(x, *args, **named)

    return call


def scaled(op: Op) -> Op:
    """PyTorch's `alpha`: op(x, alpha · y)."""
    return lambda x, y, *, alpha=1: op(x, y if alpha == 1 else alpha * y)


def reduction(op: Op) -> Op:
    def call(x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        x = x if dtype is None else x.astype(dtype)
        axis = None if dim is None or dim == () or dim == [] or x.ndim == 0 else dim
        return op(x, axis=axis, keepdims=keepdim)  # type: ignore[no-any-return]

    return call


def variance(op: Op) -> Op:
    def call(x: Tensor, *args: Any, correction: float | None = None, unbiased: bool = True, **named: Any) -> Tensor:
        positional = list(args)
        if positional and isinstance(positional[0], bool):
            unbiased = positional.pop(0)
        names = ("dim", "unbiased", "keepdim")
        named = {**dict(zip(names, positional, strict=False)), **named}
        unbiased = named.get("unbiased", unbiased)
        if correction is None:
            correction = 1.0 if unbiased else 0.0
        dim = named.get("dim")
        axis = None if dim in (None, (), []) or x.ndim == 0 else dim
        return op(x, axis=axis, correction=float(correction), keepdims=named.get("keepdim", False))  # type: ignore[no-any-return]

    return call


def along(op: Op) -> Op:
    def call(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
        x = x if dtype is None else x.astype(dtype)
        return op(x.reshape(1), axis=dim).reshape(()) if x.ndim == 0 else op(x, axis=dim)  # type: ignore[no-any-return]

    return call


def extreme(over_axes: Op, of_two: Op) -> Op:
    def call(x: Tensor, *args: Any, **named: Any) -> Any:
        if args and isinstance(args[0], Tensor):
            return of_two(x, *args, **named)
        if not args and not named:
            return over_axes(x)
        raise wg.UnsupportedError("extremes with indices")

    return call


def loss(op: Op) -> Op:
    """PyTorch broadcasts the target of an elementwise loss, with a warning; here the caller does."""

    def call(x: Tensor, target: Tensor, *args: Any, **named: Any) -> Tensor:
        named.pop("size_average", None)
        named.pop("reduce", None)
        return op(x, target, *args, **named)  # type: ignore[no-any-return]

    return call


def shape_of(args: tuple[Any, ...]) -> Any:
    return args[0] if len(args) == 1 and not isinstance(args[0], int) else args


def transpose(x: Tensor, a: int, b: int) -> Tensor:
    axes = list(range(x.ndim))
    if axes:
        axes[a], axes[b] = axes[b], axes[a]
    return wg.permute_dims(x, axes)


def expand(x: Tensor, *args: Any) -> Tensor:
    wanted = shape_of(args)
    added = len(wanted) - x.ndim
    return wg.broadcast_to(x, tuple(x.shape[i - added] if n == -1 else n for i, n in enumerate(wanted)))


def flip(x: Tensor, dims: Any) -> Tensor:
    return wg.flip(x, dims) if dims != () else x


def narrow(x: Tensor, dim: int, start: Any, length: int) -> Tensor:
    start = start.item() if isinstance(start, Tensor) else start
    if not -x.ndim <= dim < x.ndim or length < 0 or not -x.shape[dim] <= start <= x.shape[dim]:
        raise IndexError(f"narrow: axis {dim}, start {start}, length {length} of {x.shape}")
    start += x.shape[dim] if start < 0 else 0
    if start + length > x.shape[dim]:
        raise IndexError(f"narrow: start {start} and length {length} of {x.shape}")
    return slice_axis(x, dim, start, start + length, 1)


def slice_axis(x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Tensor:
    dim += x.ndim if dim < 0 else 0
    return x[(slice(None),) * dim + (slice(start, end, step),)]


def squeeze(x: Tensor, dim: Any = None) -> Tensor:
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = tuple(d for d in dims if x.ndim and x.shape[d] == 1)
    return wg.squeeze(x, axes) if axes else x


def split(x: Tensor, size: Any, dim: int = 0) -> tuple[Tensor, ...]:
    length = x.shape[dim]
    sizes = [min(size, length - i) for i in range(0, length, size)] if isinstance(size, int) else list(size)
    ends = np.cumsum(sizes).tolist()
    return tuple(slice_axis(x, dim, end - n, end) for n, end in zip(sizes, ends, strict=True))


def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    dim += x.ndim if dim < 0 else 0
    return tuple(x[(slice(None),) * dim + (i,)] for i in range(x.shape[dim]))


def select(x: Tensor, dim: int, index: int) -> Tensor:
    return x[(slice(None),) * (dim % x.ndim) + (index,)]


def cat(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    """PyTorch leaves out tensors of shape (0,)."""
    return wg.concat([x for x in xs if x.shape != (0,)] or xs, axis=dim)


def beside(x: Tensor, dim: int, index: Tensor) -> tuple[slice, ...]:
    """The part of x that an index reaches which is shorter along the other axes."""
    return tuple(slice(None) if a == dim % x.ndim else slice(0, n) for a, n in enumerate(index.shape))


def scatter_add(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    if x.ndim == 0:
        return scatter_add(x.reshape(1), 0, index.reshape(-1), src.reshape(-1)).reshape(())
    part = beside(x, dim, index)
    result = x.clone()
    result[part] = wg.scatter_add(x[part], index, src[tuple(slice(0, n) for n in index.shape)], axis=dim)
    return result


def take_along_dim(x: Tensor, index: Tensor, dim: int | None = None) -> Tensor:
    if dim is None:
        return wg.take_along_axis(x.reshape(-1), index.reshape(-1), axis=0)
    shapes = [tuple(1 if a == dim % t.ndim else n for a, n in enumerate(t.shape)) for t in (x, index)]
    common = np.broadcast_shapes(*shapes)
    x, index = (
        wg.broadcast_to(t, tuple(t.shape[a] if a == dim % t.ndim else n for a, n in enumerate(common)))
        for t in (x, index)
    )
    return wg.take_along_axis(x, index, axis=dim)


def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    if index.size == 0:
        return x.reshape(-1)[:0].reshape(index.shape)
    if x.ndim and index.ndim:
        x = x[beside(x, dim, index)]
    else:
        x, index = x.reshape(-1), index.reshape(-1)
        return wg.take_along_axis(x, index, axis=0).reshape(())
    return wg.take_along_axis(x, index, axis=dim)


def arange(*args: Any, start: Any = None, end: Any = None, step: Any = None, **named: Any) -> Tensor:
    positional = [*args, *(v for v in (start, end, step) if v is not None)]
    return wg.arange(*positional, **named)


def logit(x: Tensor, eps: float | None = None) -> Tensor:
    if eps is not None:
        x = wg.where(x < eps, eps, wg.where(x > 1 - eps, 1 - eps, x))
    return wg.log(x / (1 - x))


def one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    return wg.one_hot(x, int(x.max().item()) + 1 if num_classes == -1 else num_classes)


def cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None = None, **named: Any) -> Tensor:
    return loss(F.cross_entropy)(x, target, weight, **named)  # type: ignore[no-any-return]


def std_mean(x: Tensor, *args: Any, **named: Any) -> tuple[Tensor, Tensor]:
    return variance(wg.std)(x, *args, **named), _mean_beside(x, args, named)


def var_mean(x: Tensor, *args: Any, **named: Any) -> tuple[Tensor, Tensor]:
    return variance(wg.var)(x, *args, **named), _mean_beside(x, args, named)


def _mean_beside(x: Tensor, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    dims = [a for a in args if not isinstance(a, bool)]
    dim = named.get("dim", dims[0] if dims else None)
    keep = named.get("keepdim", args[2] if len(args) > 2 else False)
    return reduction(wg.mean)(x, dim, keep)  # type: ignore[no-any-return]


OPS: dict[str | tuple[str, str], Op] = {
    "add": scaled(wg.add),
    "sub": scaled(wg.subtract),
    "subtract": scaled(wg.subtract),
    "rsub": method(lambda x, y, *, alpha=1: y - (x if alpha == 1 else alpha * x)),
    "pow": wg.pow,
    "__radd__": lambda x, y: y + x,
    "__rmul__": lambda x, y: y * x,
    "__rsub__": lambda x, y: y - x,
    "__rdiv__": lambda x, y: y / x,
    "__rpow__": lambda x, y: y**x,
    "__rmod__": lambda x, y: y % x,
    "__rmatmul__": lambda x, y: y @ x,
    "__rand__": lambda x, y: y & x,
    "__ror__": lambda x, y: y | x,
    "__rxor__": lambda x, y: y ^ x,
    "__getitem__": lambda x, i: x[tuple(i) if isinstance(i, list) else i],
    ("div", "floor_rounding"): lambda x, y, rounding_mode: wg.floor(wg.divide(x, y)),
    ("div", "trunc_rounding"): lambda x, y, rounding_mode: wg.trunc(wg.divide(x, y)),
    ("div", "no_rounding_mode"): lambda x, y, rounding_mode=None: wg.divide(x, y),
    ("round", ""): wg.round,
    ("round", "decimals_0"): lambda x, decimals: wg.round(x),
    "sgn": wg.sign,
    "fmod": lambda x, y: x - wg.trunc(x / y) * y,
    "rad2deg": lambda x: x * (180.0 / np.pi),
    "deg2rad": lambda x: x * (np.pi / 180.0),
    "clamp": lambda x, min=None, max=None: wg.clip(x, min, max),
    "clip": lambda x, min=None, max=None: wg.clip(x, min, max),
    "clamp_min": lambda x, min: wg.clip(x, min, None),
    "clamp_max": lambda x, max: wg.clip(x, None, max),
    "lerp": lambda x, y, w: x + w * (y - x),
    "addcmul": lambda x, a, b, *, value=1: x + value * a * b,
    "addcdiv": lambda x, a, b, *, value=1: x + value * a / b,
    "addmm": lambda x, a, b, *, beta=1, alpha=1: beta * x + alpha * (a @ b),
    ("addmm", "decomposed"): lambda x, a, b, *, beta=1, alpha=1: beta * x + alpha * (a @ b),
    "addmv": lambda x, a, b, *, beta=1, alpha=1: beta * x + alpha * (a @ b),
    "baddbmm": lambda x, a, b, *, beta=1, alpha=1: beta * x + alpha * (a @ b),
    "addbmm": lambda x, a, b, *, beta=1, alpha=1: beta * x + alpha * (a @ b).sum(axis=0),
    "addr": lambda x, a, b, *, beta=1, alpha=1: beta * x + alpha * (a.reshape(-1, 1) * b),
    "outer": lambda a, b: a.reshape(-1, 1) * b,
    "ger": lambda a, b: a.reshape(-1, 1) * b,
    "vdot": lambda a, b: a @ b,
    "inner": lambda a, b: a @ b.mT if a.ndim > 1 and b.ndim > 1 else a * b if not a.ndim or not b.ndim else a @ b,
    "where": lambda x, condition, y: wg.where(condition, x, y),
    "masked_fill": lambda x, mask, value: wg.where(mask, value, x),
    "heaviside": lambda x, values: wg.where(x == 0, values, (x > 0).astype(x.dtype)),
    "isclose": lambda x, y, rtol=1e-5, atol=1e-8, equal_nan=False: (
        (x == y)
        | (wg.isfinite(x) & wg.isfinite(y) & (wg.abs(x - y) <= atol + rtol * wg.abs(y)))
        | (wg.isnan(x) & wg.isnan(y) & equal_nan)
    ),
    "nan_to_num": lambda x, nan=0.0: wg.where(wg.isnan(x), nan, x),
    "xlogy": lambda x, y: wg.where((x == 0) & ~wg.isnan(y), 0.0, x * wg.log(y)),
    "isreal": lambda x: x == x,
    "equal": lambda x, y: x.shape == y.shape and bool(wg.all(x == y)),
    "logit": logit,
    # Reductions.
    "sum": reduction(wg.sum),
    "mean": reduction(wg.mean),
    "prod": reduction(wg.prod),
    "amax": reduction(wg.max),
    "amin": reduction(wg.min),
    "all": reduction(wg.all),
    "any": reduction(wg.any),
    "argmax": reduction(wg.argmax),
    "argmin": reduction(wg.argmin),
    "logsumexp": reduction(wg.logsumexp),
    "count_nonzero": lambda x, dim=None: reduction(wg.sum)((x != 0).astype(wg.int64), dim),
    "var": variance(wg.var),
    "std": variance(wg.std),
    "var_mean": var_mean,
    "std_mean": std_mean,
    ("var", "unbiased"): variance(wg.var),
    ("std", "unbiased"): variance(wg.std),
    ("var_mean", "unbiased"): var_mean,
    ("std_mean", "unbiased"): std_mean,
    ("max", "binary"): method(wg.maximum),
    ("min", "binary"): method(wg.minimum),
    ("max", "reduction_no_dim"): extreme(wg.max, wg.maximum),
    ("min", "reduction_no_dim"): extreme(wg.min, wg.minimum),
    "softmax": along(wg.softmax),
    ("softmax", "with_dtype"): along(wg.softmax),
    "log_softmax": along(wg.log_softmax),
    ("log_softmax", "with_dtype"): along(wg.log_softmax),
    # Rearrangements.
    "reshape": lambda x, *a: wg.reshape(x, shape_of(a)),
    "view": lambda x, *a: wg.reshape(x, shape_of(a)),
    "reshape_as": lambda x, y: wg.reshape(x, y.shape),
    "view_as": lambda x, y: wg.reshape(x, y.shape),
    "ravel": lambda x: wg.reshape(x, (-1,)) if x.size else wg.reshape(x, (0,)),
    "flatten": lambda x, start_dim=0, end_dim=-1: wg.flatten(x, start_dim, end_dim),
    "unflatten": lambda x, dim, sizes: wg.reshape(x, (*x.shape[: dim % x.ndim], *sizes, *x.shape[dim % x.ndim + 1 :])),
    "permute": lambda x, *a: wg.permute_dims(x, shape_of(a)),
    "transpose": transpose,
    "swapaxes": transpose,
    "t": lambda x: x.T if x.ndim == 2 else x,
    "T": lambda x: wg.permute_dims(x, tuple(range(x.ndim))[::-1]),
    "mT": lambda x: x.mT,
    "movedim": wg.moveaxis,
    "moveaxis": wg.moveaxis,
    "expand": expand,
    "expand_as": lambda x, y: wg.broadcast_to(x, y.shape),
    "broadcast_to": lambda x, shape: wg.broadcast_to(x, shape),
    "broadcast_tensors": lambda *xs: [wg.broadcast_to(x, np.broadcast_shapes(*(y.shape for y in xs))) for x in xs],
    "squeeze": squeeze,
    ("squeeze", "multiple"): squeeze,
    "unsqueeze": lambda x, dim: wg.expand_dims(x, dim),
    "flip": lambda x, *a, dims=None: flip(x, shape_of(a) if dims is None else dims),
    "fliplr": lambda x: wg.flip(x, 1),
    "flipud": lambda x: wg.flip(x, 0),
    "cat": cat,
    "concat": cat,
    "concatenate": cat,
    "stack": lambda xs, dim=0: wg.stack(xs, axis=dim),
    "slice": slice_axis,
    "narrow": narrow,
    "select": select,
    "split": split,
    ("split", "list_args"): split,
    "split_with_sizes": split,
    "unbind": unbind,
    "contiguous": lambda x: x,
    "clone": lambda x, **_: x.clone(),
    "item": lambda x: x.item(),
    # Selections.
    "gather": gather,
    "index_select": lambda x, dim, i: wg.take(x, i, axis=dim),
    "scatter_add": scatter_add,
    "index_add": lambda x, dim, i, src, *, alpha=1: wg.index_add(x, i, alpha * src, axis=dim),
    "take_along_dim": take_along_dim,
    # Layers.
    "nn.functional.linear": F.linear,
    **{
        f"nn.functional.{name}{axes}d": getattr(F, f"{name}{axes}d")
        for name in ("conv", "max_pool", "avg_pool", "adaptive_avg_pool")
        for axes in (1, 2, 3)
        if hasattr(F, f"{name}{axes}d")
    },
    "nn.functional.leaky_relu": lambda x, negative_slope=0.01: F.leaky_relu(x, negative_slope),
    "nn.functional.elu": lambda x, alpha=1.0: F.elu(x, alpha),
    "nn.functional.gelu": lambda x, approximate="none": F.gelu(x, approximate),
    "nn.functional.logsigmoid": lambda x: -F.softplus(-x),
    "nn.functional.softsign": lambda x: x / (1 + wg.abs(x)),
    "nn.functional.tanhshrink": lambda x: x - wg.tanh(x),
    "nn.functional.hardtanh": lambda x, min_val=-1.0, max_val=1.0: wg.clip(x, min_val, max_val),
    "nn.functional.relu6": lambda x: wg.clip(x, 0.0, 6.0),
    "nn.functional.softmin": lambda x, dim, dtype=None: along(wg.softmax)(-x, dim, dtype),
    ("nn.functional.softmin", "with_dtype"): lambda x, dim, dtype=None: along(wg.softmax)(-x, dim, dtype),
    "nn.functional.dropout": lambda x, p=0.5, training=True: F.dropout(x, p, training),
    "nn.functional.layer_norm": F.layer_norm,
    "nn.functional.rms_norm": F.rms_norm,
    "nn.functional.embedding": lambda weight, input, **named: F.embedding(input, weight, **named),
    "nn.functional.scaled_dot_product_attention": F.scaled_dot_product_attention,
    "nn.functional.batch_norm": F.batch_norm,
    "nn.functional.one_hot": one_hot,
    "nn.functional.mse_loss": loss(F.mse_loss),
    "nn.functional.l1_loss": loss(F.l1_loss),
    "nn.functional.huber_loss": loss(F.huber_loss),
    "nn.functional.smooth_l1_loss": loss(F.smooth_l1_loss),
    "nn.functional.binary_cross_entropy": loss(F.binary_cross_entropy),
    "nn.functional.binary_cross_entropy_with_logits": loss(F.binary_cross_entropy_with_logits),
    "nn.functional.nll_loss": loss(F.nll_loss),
    "nn.functional.cross_entropy": cross_entropy,
    # Making.
    "arange": arange,
    "full_like": lambda x, value, dtype=None, device=None: wg.full_like(x, value, dtype=dtype),
    "zeros_like": lambda x, dtype=None, device=None: wg.zeros_like(x, dtype=dtype),
    "ones_like": lambda x, dtype=None, device=None: wg.ones_like(x, dtype=dtype),
    "full": lambda shape, value, dtype=None, device=None: wg.full(shape, value, dtype=dtype, device=device),
    "zeros": lambda *a, dtype=None, device=None: wg.zeros(shape_of(a), dtype=dtype, device=device),
    "ones": lambda *a, dtype=None, device=None: wg.ones(shape_of(a), dtype=dtype, device=device),
}


def resolve(op: str, variant: str) -> Op | None:
    if (op, variant) in OPS:
        return OPS[op, variant]
    if variant and (op, "") in OPS:
        return None
    if op in OPS:
        return OPS[op]
    found = getattr(wg, SAME[op], None) if op in SAME else None
    return None if found is None else method(found)
