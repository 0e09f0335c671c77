"""The stub, the package's list of names and the compiled module agree."""

from __future__ import annotations

import ast
from pathlib import Path

import wengert as wg
import wengert.nn.functional as F
from wengert import _core, autograd, debug, random

STUB = Path(wg.__file__).with_name("_core.pyi")

# Names of the core that are reached elsewhere, or not meant for users.
INNER = {
    "Compiled", "Explanation", "Updater", "_rebuild", "clip_grad_norm", "convert_", "counters", "fill_",
    "gpu_devices", "gpu_reset", "grad_of", "host_call", "load_safetensors", "normal_", "note_replaced",
    "refuse_setting", "save_safetensors", "set_lines", "step", "testing_gpu", "testing_op", "uniform_", "zmul",
}  # fmt: skip


def stub_names() -> set[str]:
    tree = ast.parse(STUB.read_text())
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def test_the_stub_lists_what_the_module_has() -> None:
    listed = set(_core.__all__)
    assert listed == stub_names()
    for name in listed:
        assert hasattr(_core, name), name


def test_every_name_is_reached_from_the_package() -> None:
    reached = {*wg.__all__, *F.__all__, *debug.__all__, *random.__all__, *autograd.__all__} | INNER
    assert set(_core.__all__) - reached == set()
    assert set(_core.__all__) >= INNER


def test_every_listed_name_exists() -> None:
    for module in (wg, F, debug, random, autograd, wg.gpu, wg.nn, wg.optim):
        for name in module.__all__:
            assert hasattr(module, name), (module.__name__, name)
    assert sorted(wg.__all__) == sorted(set(wg.__all__))


def test_every_public_name_is_documented() -> None:
    for name in _core.__all__:
        thing = getattr(_core, name)
        if callable(thing):
            assert thing.__doc__, name


def test_names_of_the_standard() -> None:
    """Of the Python Array API 2024.12, those that exist here must be these."""
    for name in [
        "abs", "acos", "acosh", "add", "all", "any", "arange", "argmax", "argmin", "asarray", "asin", "asinh", "astype",
        "atan", "atan2", "atanh", "bitwise_and", "bitwise_invert", "bitwise_or", "bitwise_xor", "broadcast_to", "ceil",
        "clip", "concat", "cos", "cosh", "divide", "equal", "exp", "expand_dims", "expm1", "flip", "floor",
        "floor_divide", "full", "full_like", "greater", "greater_equal", "hypot", "isfinite", "isinf", "isnan", "less",
        "less_equal", "log", "log10", "log1p", "log2", "logaddexp", "logical_and", "logical_not", "logical_or",
        "logical_xor", "matmul", "matrix_transpose", "max", "maximum", "mean", "min", "minimum", "moveaxis", "multiply",
        "negative", "not_equal", "ones", "ones_like", "permute_dims", "positive", "pow", "prod", "reciprocal",
        "remainder", "reshape", "round", "sign", "sin", "sinh", "sqrt", "square", "squeeze", "stack", "std", "subtract",
        "sum", "take", "take_along_axis", "tan", "tanh", "trunc", "var", "where", "zeros", "zeros_like",
    ]:  # fmt: skip
        assert name in wg.__all__, name
