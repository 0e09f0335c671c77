"""The compiled core: tensors, operations, differentiation, evaluation. Users reach all of it through `wengert`."""

import builtins
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, SupportsIndex, TypeVar, final, overload

from typing_extensions import disjoint_base

__all__ = [
    "AxisError",
    "CompileError",
    "Compiled",
    "DType",
    "DTypeError",
    "Device",
    "DeviceError",
    "DeviceLostError",
    "Explanation",
    "FormatError",
    "GradError",
    "InternalError",
    "ShapeError",
    "Tensor",
    "UnsupportedError",
    "Updater",
    "WengertError",
    "__version__",
    "_rebuild",
    "abs",
    "acos",
    "acosh",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "add",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "asarray",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bernoulli",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_or",
    "bitwise_xor",
    "bool",
    "broadcast_to",
    "ceil",
    "checkpoint",
    "clear_plan_cache",
    "clip",
    "clip_grad_norm",
    "compile",
    "concat",
    "conv1d",
    "conv2d",
    "conv3d",
    "convert_",
    "cos",
    "cosh",
    "counters",
    "cross_entropy",
    "custom_gradient",
    "detach",
    "divide",
    "dropout",
    "eager",
    "elu",
    "embedding",
    "enable_grad",
    "equal",
    "erf",
    "erfc",
    "eval",
    "exp",
    "exp2",
    "expand_dims",
    "expm1",
    "fill_",
    "flatten",
    "flip",
    "float32",
    "float64",
    "floor",
    "floor_divide",
    "from_numpy",
    "full",
    "full_like",
    "gelu",
    "get_num_threads",
    "get_rng_state",
    "gpu_counters",
    "gpu_devices",
    "gpu_reset",
    "grad",
    "grad_of",
    "greater",
    "greater_equal",
    "host_call",
    "huber_loss",
    "hvp",
    "hypot",
    "index_add",
    "initial_seed",
    "int32",
    "int64",
    "is_eager",
    "is_grad_enabled",
    "isfinite",
    "isinf",
    "isnan",
    "jvp",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "less",
    "less_equal",
    "linear",
    "load_safetensors",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_softmax",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "manual_seed",
    "matmul",
    "matrix_transpose",
    "max",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "mse_loss",
    "multiply",
    "negative",
    "nll_loss",
    "no_grad",
    "normal_",
    "not_equal",
    "note_replaced",
    "one_hot",
    "ones",
    "ones_like",
    "op_table",
    "permute_dims",
    "plan_cache",
    "positive",
    "pow",
    "prod",
    "rand",
    "randint",
    "randn",
    "reciprocal",
    "refuse_setting",
    "relu",
    "remainder",
    "reshape",
    "rms_norm",
    "round",
    "rsqrt",
    "save_safetensors",
    "scaled_dot_product_attention",
    "scatter_add",
    "set_eager",
    "set_grad_enabled",
    "set_lines",
    "set_num_threads",
    "set_rng_state",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "step",
    "subtract",
    "sum",
    "take",
    "take_along_axis",
    "tan",
    "tanh",
    "tensor",
    "testing_gpu",
    "testing_op",
    "trunc",
    "uint8",
    "uniform_",
    "unstack",
    "value_and_grad",
    "var",
    "vector_norm",
    "verify",
    "vjp",
    "vmap",
    "where",
    "zeros",
    "zeros_like",
    "zmul",
]

# Numbers are weak: beside a tensor they take its dtype. `float` stands for int and bool too.
_Operand = Tensor | float
_Axis = int | Sequence[int] | None
_Shape = SupportsIndex | Sequence[SupportsIndex]
_Ints = int | Sequence[int]
_Reduction = Literal["none", "mean", "sum"]
_DeviceLike = Device | str
_Index = Any  # int, slice, None, ..., bool or integer tensors, or a tuple of these
_Bool = builtins.bool  # the name is taken by the dtype below
_T = TypeVar("_T", bound=Tensor)
_P = ParamSpec("_P")
_F = TypeVar("_F", bound=Callable[..., Any])

class WengertError(Exception):
    """The root of the errors that this package defines."""

class ShapeError(WengertError, ValueError):
    """Shapes that do not fit."""

class DTypeError(WengertError, TypeError):
    """An element type that the operation does not take."""

class AxisError(WengertError, IndexError, ValueError):
    """An axis that does not exist, or one named twice."""

class DeviceError(WengertError, RuntimeError):
    """Tensors on different devices, or a device that does not exist."""

class DeviceLostError(DeviceError):
    """A device that is gone, and the tensors on it with it."""

class GradError(WengertError, RuntimeError):
    """Differentiation that cannot be done as asked."""

class CompileError(WengertError, RuntimeError):
    """A step that cannot be compiled."""

class UnsupportedError(WengertError, NotImplementedError):
    """Something that this version or device does not do."""

class FormatError(WengertError, ValueError):
    """A file that is not what it should be."""

class InternalError(WengertError, RuntimeError):
    """A mistake in the package itself."""

@final
class DType:
    """An element type."""

    @property
    def name(self) -> str: ...
    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
    @property
    def is_floating_point(self) -> _Bool: ...
    def __eq__(self, other: object, /) -> _Bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> Any: ...

float32: Final[DType]
float64: Final[DType]
int64: Final[DType]
int32: Final[DType]
uint8: Final[DType]
bool: Final[DType]  # in the module `wengert`: `wg.bool`

@final
class Device:
    """Where a tensor's values are; `str` of it is "cpu" or "gpu:0"."""

    def __new__(cls, name: _DeviceLike, /) -> Device:
        """Name a device: "cpu", "gpu" (the first one), "gpu:1"."""

    @property
    def type(self) -> str: ...
    @property
    def index(self) -> int | None: ...
    def __eq__(self, other: object, /) -> _Bool: ...
    def __hash__(self) -> int: ...

@disjoint_base
class Tensor:
    """A handle on a value that exists or is recorded. It can be subclassed.

    `Tensor(data)` is a new handle, without history, on the value of the tensor `data`, or on a copy of other data.
    """

    def __new__(cls, data: Any, *, dtype: DType | None = None) -> Self: ...
    __hash__: Callable[[], int]  # by identity
    __array_ufunc__: None
    __array_priority__: float

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> DType: ...
    @property
    def device(self) -> Device: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int:
        """The number of elements."""
    @property
    def nbytes(self) -> int: ...
    @property
    def T(self) -> Tensor:
        """The transpose of a tensor of two axes."""
    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
    @property
    def requires_grad(self) -> _Bool: ...
    @requires_grad.setter
    def requires_grad(self, on: _Bool) -> None: ...
    @property
    def grad(self) -> Tensor | None: ...
    @grad.setter
    def grad(self, grad: Tensor | None) -> None: ...
    @property
    def is_leaf(self) -> _Bool:
        """Whether this is a variable, or a value without history."""

    # Reads: each computes what is pending and needed.
    def item(self) -> Any:
        """The only element, as a Python number."""
    def tolist(self) -> Any:
        """Nested lists of Python numbers; a number for a 0-d tensor."""
    def numpy(self) -> Any:
        """A read-only NumPy array on the same memory."""
    def __array__(self, dtype: Any = None, copy: _Bool | None = None) -> Any: ...
    def __bool__(self) -> _Bool: ...
    def __float__(self) -> float: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Tensor]:
        """Parts along the first axis; a 0-d tensor raises TypeError."""
    def __format__(self, spec: str, /) -> str: ...
    def __deepcopy__(self, memo: Any, /) -> Self: ...
    def __reduce__(self) -> Any: ...

    # Differentiation.
    def backward(
        self,
        gradient: Tensor | None = None,
        *,
        retain_graph: _Bool = False,
        create_graph: _Bool = False,
        strict: _Bool = False,
    ) -> None:
        """Add the gradient of this tensor to `.grad` of the variables it depends on."""
    def requires_grad_(self, requires_grad: _Bool = True) -> Self: ...
    def detach(self) -> Tensor: ...
    def clone(self) -> Tensor: ...
    def copy_(self, source: Any) -> Self:
        """Take the values of `source`, broadcast and cast. For variables and plain values, in any grad mode."""

    # Conversion.
    def astype(self, dtype: DType, /, *, copy: _Bool = True) -> Tensor: ...
    def to(self, target: DType | _DeviceLike, dtype: DType | None = None, /) -> Tensor:
        """This tensor on another device, or with another element type, or both.

        A move between devices evaluates the tensor and copies the value. No gradient passes through it.

        Args:
            target: a device ("cpu", "gpu", "gpu:1") or an element type.
            dtype: the element type, after a device.

        Raises:
            DeviceError: no such device.
            GradError: a move of a tensor that requires a gradient, outside `no_grad`.
            UnsupportedError: float64 on a GPU.
        """

    def cpu(self) -> Tensor:
        """This tensor on the CPU: itself if it is there."""

    # Operators.
    def __add__(self, other: _Operand, /) -> Tensor: ...
    def __radd__(self, other: _Operand, /) -> Tensor: ...
    def __sub__(self, other: _Operand, /) -> Tensor: ...
    def __rsub__(self, other: _Operand, /) -> Tensor: ...
    def __mul__(self, other: _Operand, /) -> Tensor: ...
    def __rmul__(self, other: _Operand, /) -> Tensor: ...
    def __truediv__(self, other: _Operand, /) -> Tensor: ...
    def __rtruediv__(self, other: _Operand, /) -> Tensor: ...
    def __floordiv__(self, other: _Operand, /) -> Tensor: ...
    def __rfloordiv__(self, other: _Operand, /) -> Tensor: ...
    def __mod__(self, other: _Operand, /) -> Tensor: ...
    def __rmod__(self, other: _Operand, /) -> Tensor: ...
    def __pow__(self, other: _Operand, mod: None = None, /) -> Tensor: ...
    def __rpow__(self, other: _Operand, mod: None = None, /) -> Tensor: ...
    def __and__(self, other: _Operand, /) -> Tensor: ...
    def __rand__(self, other: _Operand, /) -> Tensor: ...
    def __or__(self, other: _Operand, /) -> Tensor: ...
    def __ror__(self, other: _Operand, /) -> Tensor: ...
    def __xor__(self, other: _Operand, /) -> Tensor: ...
    def __rxor__(self, other: _Operand, /) -> Tensor: ...
    def __iadd__(self, other: _Operand, /) -> Self: ...
    def __isub__(self, other: _Operand, /) -> Self: ...
    def __imul__(self, other: _Operand, /) -> Self: ...
    def __itruediv__(self, other: _Operand, /) -> Self: ...
    def __lt__(self, other: _Operand, /) -> Tensor: ...
    def __le__(self, other: _Operand, /) -> Tensor: ...
    def __gt__(self, other: _Operand, /) -> Tensor: ...
    def __ge__(self, other: _Operand, /) -> Tensor: ...
    def __eq__(self, other: _Operand, /) -> Tensor: ...  # type: ignore[override]
    def __ne__(self, other: _Operand, /) -> Tensor: ...  # type: ignore[override]
    def __matmul__(self, other: Tensor, /) -> Tensor: ...
    def __rmatmul__(self, other: Tensor, /) -> Tensor: ...
    def __neg__(self) -> Tensor: ...
    def __pos__(self) -> Tensor: ...
    def __abs__(self) -> Tensor: ...
    def __invert__(self) -> Tensor: ...
    def __getitem__(self, index: _Index, /) -> Tensor: ...
    def __setitem__(self, index: _Index, value: _Operand, /) -> None: ...

    # The functions of the same names.
    def abs(self) -> Tensor: ...
    def square(self) -> Tensor: ...
    def sign(self) -> Tensor: ...
    def exp(self) -> Tensor: ...
    def log(self) -> Tensor: ...
    def sqrt(self) -> Tensor: ...
    def sin(self) -> Tensor: ...
    def cos(self) -> Tensor: ...
    def tanh(self) -> Tensor: ...
    def sigmoid(self) -> Tensor: ...
    def relu(self) -> Tensor: ...
    def clip(self, min: _Operand | None = None, max: _Operand | None = None) -> Tensor: ...
    def pow(self, exponent: _Operand, /) -> Tensor: ...
    @overload
    def reshape(self, shape: Sequence[SupportsIndex], /) -> Tensor: ...
    @overload
    def reshape(self, *shape: SupportsIndex) -> Tensor: ...
    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Tensor: ...
    def squeeze(self, axis: int | Sequence[int]) -> Tensor: ...
    def expand_dims(self, axis: int) -> Tensor: ...
    def broadcast_to(self, shape: _Shape) -> Tensor: ...
    def permute_dims(self, axes: Sequence[int]) -> Tensor: ...
    def sum(self, axis: _Axis = None, *, dtype: DType | None = None, keepdims: _Bool = False) -> Tensor: ...
    def prod(self, axis: _Axis = None, *, dtype: DType | None = None, keepdims: _Bool = False) -> Tensor: ...
    def mean(self, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
    def max(self, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
    def min(self, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
    def var(self, axis: _Axis = None, *, correction: float = 0.0, keepdims: _Bool = False) -> Tensor: ...
    def std(self, axis: _Axis = None, *, correction: float = 0.0, keepdims: _Bool = False) -> Tensor: ...
    def all(self, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
    def any(self, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
    def argmax(self, axis: int | None = None, *, keepdims: _Bool = False) -> Tensor: ...
    def argmin(self, axis: int | None = None, *, keepdims: _Bool = False) -> Tensor: ...
    def softmax(self, axis: int = -1) -> Tensor: ...
    def log_softmax(self, axis: int = -1) -> Tensor: ...

# Making tensors. Data and shapes are checked at once; nothing is computed.
def tensor(
    data: Any, *, dtype: DType | None = None, device: _DeviceLike | None = None, requires_grad: _Bool = False
) -> Tensor:
    """Copy numbers, nested lists, buffers, arrays or a tensor."""

def asarray(
    obj: Any, *, dtype: DType | None = None, device: _DeviceLike | None = None, copy: _Bool | None = None
) -> Tensor:
    """Return a tensor as it is, or copy other data; `copy=False` shares a buffer: do not write to it while pending."""

def from_numpy(array: Any, *, copy: _Bool = True) -> Tensor: ...
def zeros(shape: _Shape, *, dtype: DType | None = None, device: _DeviceLike | None = None) -> Tensor: ...
def ones(shape: _Shape, *, dtype: DType | None = None, device: _DeviceLike | None = None) -> Tensor: ...
def full(
    shape: _Shape, fill_value: float, *, dtype: DType | None = None, device: _DeviceLike | None = None
) -> Tensor: ...
def zeros_like(x: Tensor, /, *, dtype: DType | None = None, device: _DeviceLike | None = None) -> Tensor: ...
def ones_like(x: Tensor, /, *, dtype: DType | None = None, device: _DeviceLike | None = None) -> Tensor: ...
def full_like(
    x: Tensor, /, fill_value: float, *, dtype: DType | None = None, device: _DeviceLike | None = None
) -> Tensor: ...
def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: DType | None = None,
    device: _DeviceLike | None = None,
) -> Tensor: ...
def one_hot(indices: Tensor, num_classes: int, *, dtype: DType | None = None) -> Tensor:
    """1 where the new last axis counts to the index, else 0.

    An index that is known already must be a class; one that is computed later and is none gives a row of zeros.
    """

# Random numbers. Equal seeds give equal streams; results depend on neither threads nor plans.
def rand(shape: _Shape, *, dtype: DType | None = None, device: _DeviceLike | None = None) -> Tensor: ...
def randn(shape: _Shape, *, dtype: DType | None = None, device: _DeviceLike | None = None) -> Tensor: ...
def randint(
    low: int, high: int, shape: _Shape, *, dtype: DType | None = None, device: _DeviceLike | None = None
) -> Tensor: ...
def bernoulli(p: Tensor, /) -> Tensor:
    """1 with probability p, else 0, of the shape and dtype of p."""

def manual_seed(seed: int) -> None: ...
def initial_seed() -> int: ...
def get_rng_state() -> tuple[int, int]:
    """The seed and the number of streams used."""

def set_rng_state(state: tuple[int, int], /) -> None: ...

# Elementwise functions.
def abs(x: Tensor, /) -> Tensor: ...
def acos(x: Tensor, /) -> Tensor: ...
def acosh(x: Tensor, /) -> Tensor: ...
def asin(x: Tensor, /) -> Tensor: ...
def asinh(x: Tensor, /) -> Tensor: ...
def atan(x: Tensor, /) -> Tensor: ...
def atanh(x: Tensor, /) -> Tensor: ...
def ceil(x: Tensor, /) -> Tensor: ...
def cosh(x: Tensor, /) -> Tensor: ...
def erfc(x: Tensor, /) -> Tensor: ...
def exp2(x: Tensor, /) -> Tensor: ...
def floor(x: Tensor, /) -> Tensor: ...
def log10(x: Tensor, /) -> Tensor: ...
def log2(x: Tensor, /) -> Tensor: ...
def round(x: Tensor, /) -> Tensor: ...
def rsqrt(x: Tensor, /) -> Tensor: ...
def sinh(x: Tensor, /) -> Tensor: ...
def tan(x: Tensor, /) -> Tensor: ...
def trunc(x: Tensor, /) -> Tensor: ...
def negative(x: Tensor, /) -> Tensor: ...
def positive(x: Tensor, /) -> Tensor: ...
def square(x: Tensor, /) -> Tensor: ...
def sign(x: Tensor, /) -> Tensor: ...
def reciprocal(x: Tensor, /) -> Tensor: ...
def exp(x: Tensor, /) -> Tensor: ...
def expm1(x: Tensor, /) -> Tensor: ...
def log(x: Tensor, /) -> Tensor: ...
def log1p(x: Tensor, /) -> Tensor: ...
def sqrt(x: Tensor, /) -> Tensor: ...
def erf(x: Tensor, /) -> Tensor: ...
def sin(x: Tensor, /) -> Tensor: ...
def cos(x: Tensor, /) -> Tensor: ...
def tanh(x: Tensor, /) -> Tensor: ...
def sigmoid(x: Tensor, /) -> Tensor: ...
def relu(x: Tensor, /) -> Tensor: ...
def softplus(x: Tensor, /) -> Tensor: ...
def isnan(x: Tensor, /) -> Tensor: ...
def isinf(x: Tensor, /) -> Tensor: ...
def isfinite(x: Tensor, /) -> Tensor: ...
def logical_not(x: Tensor, /) -> Tensor: ...
def bitwise_invert(x: Tensor, /) -> Tensor: ...
def atan2(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def hypot(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def logaddexp(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def add(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def subtract(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def multiply(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def divide(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def floor_divide(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def remainder(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def pow(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def maximum(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def minimum(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def equal(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def not_equal(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def less(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def less_equal(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def greater(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def greater_equal(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def logical_and(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def logical_or(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def logical_xor(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def bitwise_and(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def bitwise_or(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def bitwise_xor(x1: _Operand, x2: _Operand, /) -> Tensor: ...
def zmul(x1: _Operand, x2: _Operand, /) -> Tensor:
    """The product in which zero times anything is zero."""

def elu(x: Tensor, /, alpha: float = 1.0) -> Tensor: ...
def silu(x: Tensor, /) -> Tensor: ...
def leaky_relu(x: Tensor, /, negative_slope: float = 0.01) -> Tensor: ...
def gelu(x: Tensor, /, approximate: Literal["none", "tanh"] = "none") -> Tensor: ...
def clip(x: Tensor, /, min: _Operand | None = None, max: _Operand | None = None) -> Tensor: ...
def where(condition: Tensor, x1: _Operand, x2: _Operand, /) -> Tensor: ...
def astype(x: Tensor, dtype: DType, /, *, copy: _Bool = True) -> Tensor: ...
def detach(x: Tensor, /) -> Tensor: ...

# Reductions. `axis=None` is all axes.
def sum(x: Tensor, /, axis: _Axis = None, *, dtype: DType | None = None, keepdims: _Bool = False) -> Tensor: ...
def prod(x: Tensor, /, axis: _Axis = None, *, dtype: DType | None = None, keepdims: _Bool = False) -> Tensor: ...
def mean(x: Tensor, /, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
def max(x: Tensor, /, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
def min(x: Tensor, /, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
def var(x: Tensor, /, axis: _Axis = None, *, correction: float = 0.0, keepdims: _Bool = False) -> Tensor: ...
def std(x: Tensor, /, axis: _Axis = None, *, correction: float = 0.0, keepdims: _Bool = False) -> Tensor: ...
def all(x: Tensor, /, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
def any(x: Tensor, /, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
def argmax(x: Tensor, /, axis: int | None = None, *, keepdims: _Bool = False) -> Tensor: ...
def argmin(x: Tensor, /, axis: int | None = None, *, keepdims: _Bool = False) -> Tensor: ...
def logsumexp(x: Tensor, /, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor: ...
def vector_norm(x: Tensor, /, axis: _Axis = None, *, keepdims: _Bool = False) -> Tensor:
    """The Euclidean norm over the axes."""

def softmax(x: Tensor, /, axis: int = -1) -> Tensor: ...
def log_softmax(x: Tensor, /, axis: int = -1) -> Tensor: ...

# Rearrangements and selections.
def reshape(x: Tensor, /, shape: _Shape) -> Tensor: ...
def flatten(x: Tensor, /, start_axis: int = 0, end_axis: int = -1) -> Tensor: ...
def permute_dims(x: Tensor, /, axes: Sequence[int]) -> Tensor: ...
def matrix_transpose(x: Tensor, /) -> Tensor: ...
def moveaxis(x: Tensor, source: int | Sequence[int], destination: int | Sequence[int], /) -> Tensor: ...
def expand_dims(x: Tensor, /, axis: int) -> Tensor: ...
def squeeze(x: Tensor, /, axis: int | Sequence[int]) -> Tensor: ...
def broadcast_to(x: Tensor, /, shape: _Shape) -> Tensor: ...
def flip(x: Tensor, /, axis: _Axis = None) -> Tensor: ...
def concat(arrays: Sequence[Tensor], /, axis: int | None = 0) -> Tensor: ...
def split(x: Tensor, indices_or_sections: int | Sequence[int], /, axis: int = 0) -> tuple[Tensor, ...]:
    """Parts of x along an axis: so many equal ones, or cut before the indices given."""

def stack(arrays: Sequence[Tensor], /, axis: int = 0) -> Tensor: ...
def take(x: Tensor, indices: Tensor, /, axis: int | None = None) -> Tensor: ...
def take_along_axis(x: Tensor, indices: Tensor, /, axis: int = -1) -> Tensor: ...
def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, which they lack."""

def scatter_add(x: Tensor, indices: Tensor, updates: Tensor, /, axis: int = -1) -> Tensor:
    """X with each update added at its index along the axis: the transpose of `take_along_axis`."""

def index_add(x: Tensor, indices: Tensor, updates: Tensor, /, axis: int = 0) -> Tensor:
    """X with whole slices added at the indices (1-d) along the axis: the transpose of `take`."""

# Products.
def matmul(x1: Tensor, x2: Tensor, /) -> Tensor: ...
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor: ...

# Convolutions and pools.
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Ints = 1,
    padding: _Ints | str = 0,
    dilation: _Ints = 1,
    groups: int = 1,
) -> Tensor: ...
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Ints = 1,
    padding: _Ints | str = 0,
    dilation: _Ints = 1,
    groups: int = 1,
) -> Tensor: ...
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Ints = 1,
    padding: _Ints | str = 0,
    dilation: _Ints = 1,
    groups: int = 1,
) -> Tensor: ...
@overload
def max_pool1d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    dilation: _Ints = 1,
    ceil_mode: _Bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...
@overload
def max_pool1d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    dilation: _Ints = 1,
    ceil_mode: _Bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool1d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    dilation: _Ints = 1,
    ceil_mode: _Bool = False,
    return_indices: _Bool = False,
) -> Tensor | tuple[Tensor, Tensor]: ...
@overload
def max_pool2d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    dilation: _Ints = 1,
    ceil_mode: _Bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...
@overload
def max_pool2d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    dilation: _Ints = 1,
    ceil_mode: _Bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool2d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    dilation: _Ints = 1,
    ceil_mode: _Bool = False,
    return_indices: _Bool = False,
) -> Tensor | tuple[Tensor, Tensor]: ...
@overload
def max_pool3d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    dilation: _Ints = 1,
    ceil_mode: _Bool = False,
    return_indices: Literal[False] = False,
) -> Tensor: ...
@overload
def max_pool3d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    dilation: _Ints = 1,
    ceil_mode: _Bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def max_pool3d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    dilation: _Ints = 1,
    ceil_mode: _Bool = False,
    return_indices: _Bool = False,
) -> Tensor | tuple[Tensor, Tensor]: ...
def avg_pool1d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    ceil_mode: _Bool = False,
    count_include_pad: _Bool = True,
    divisor_override: int | None = None,
) -> Tensor: ...
def avg_pool2d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    ceil_mode: _Bool = False,
    count_include_pad: _Bool = True,
    divisor_override: int | None = None,
) -> Tensor: ...
def avg_pool3d(
    input: Tensor,
    kernel_size: _Ints,
    stride: _Ints | None = None,
    padding: _Ints = 0,
    ceil_mode: _Bool = False,
    count_include_pad: _Bool = True,
    divisor_override: int | None = None,
) -> Tensor: ...
def adaptive_avg_pool1d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor: ...
def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor: ...
def adaptive_avg_pool3d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor: ...

# Layers in one call.
def dropout(input: Tensor, p: float = 0.5, training: _Bool = True) -> Tensor: ...
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: _Bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over all axes but 1. In training, given running statistics are rebound to their new values.

    Fewer than two values a channel raise ShapeError in training; otherwise a missing running_mean or running_var raises
    ValueError.
    """

def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last axes, which normalized_shape names."""

def rms_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Normalise over the last axes by the root of the mean square: input / √(mean input² + eps) · weight."""

def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """The rows of weight that input names; the row at padding_idx gets no gradient."""

def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: _Bool = False,
    scale: float | None = None,
    enable_gqa: _Bool = False,
) -> Tensor:
    """softmax(scale·query·keyᵀ + attn_mask)·value over the last two axes; holds no more than a tile of scores."""

# Losses. `weight` arguments are tensors; input and target have equal shapes unless said otherwise.
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: _Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor: ...
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: _Reduction = "mean",
) -> Tensor: ...
def mse_loss(input: Tensor, target: Tensor, *, reduction: _Reduction = "mean") -> Tensor: ...
def l1_loss(input: Tensor, target: Tensor, *, reduction: _Reduction = "mean") -> Tensor: ...
def huber_loss(input: Tensor, target: Tensor, *, reduction: _Reduction = "mean", delta: float = 1.0) -> Tensor: ...
def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: _Reduction = "mean", beta: float = 1.0) -> Tensor:
    """`beta=0` is `l1_loss`."""

def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: _Reduction = "mean"
) -> Tensor: ...
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: _Reduction = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor: ...

# Filling variables and plain values: no history, allowed outside `no_grad`; an expression raises GradError.
def uniform_(tensor: _T, low: float = 0.0, high: float = 1.0) -> _T: ...
def normal_(tensor: _T, mean: float = 0.0, std: float = 1.0) -> _T: ...
def fill_(tensor: _T, value: float) -> _T: ...
def convert_(tensor: _T, target: DType | _DeviceLike, dtype: DType | None = None, /) -> _T:
    """Change device or dtype, or both, in place: the handle stays the same variable; its gradient is converted too."""

# Grad mode, evaluation, debugging. The classes work with `with` and, the first three, as decorators.
@final
class no_grad:
    def __new__(cls) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def __call__(self, fun: _F, /) -> _F: ...

@final
class enable_grad:
    def __new__(cls) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def __call__(self, fun: _F, /) -> _F: ...

@final
class set_grad_enabled:
    """Takes effect at once; as a context manager it restores the mode before at the end."""

    def __new__(cls, mode: _Bool) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def __call__(self, fun: _F, /) -> _F: ...

@final
class eager:
    """Evaluate after each operation, in this thread, inside `with`."""

    def __new__(cls, on: _Bool = True) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

def is_grad_enabled() -> _Bool: ...
def set_eager(on: _Bool, /) -> None:
    """The same for all threads, until set again."""

def is_eager() -> _Bool: ...
def eval(*tensors: Tensor) -> None:
    """Compute these tensors, all in one plan."""

def set_num_threads(n: int, /) -> None: ...
def get_num_threads() -> int: ...
def set_lines(on: _Bool, /) -> _Bool:
    """Whether each node remembers the line that recorded it; returns the setting before."""

# Transforms. Functions take tensors and give one tensor, or a tuple of tensors where said.
@overload
def grad(fun: Callable[..., Any], argnums: int = 0, *, has_aux: Literal[False] = False) -> Callable[..., Tensor]: ...
@overload
def grad(
    fun: Callable[..., Any], argnums: tuple[int, ...], *, has_aux: Literal[False] = False
) -> Callable[..., tuple[Tensor, ...]]: ...
@overload
def grad(
    fun: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: Literal[True]
) -> Callable[..., tuple[Any, Any]]: ...
@overload
def value_and_grad(
    fun: Callable[..., Any], argnums: int = 0, *, has_aux: Literal[False] = False
) -> Callable[..., tuple[Tensor, Tensor]]: ...
@overload
def value_and_grad(
    fun: Callable[..., Any], argnums: tuple[int, ...], *, has_aux: Literal[False] = False
) -> Callable[..., tuple[Tensor, tuple[Tensor, ...]]]: ...
@overload
def value_and_grad(
    fun: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: Literal[True]
) -> Callable[..., tuple[tuple[Tensor, Any], Any]]: ...
def vjp(fun: Callable[..., Any], *primals: Tensor) -> tuple[Any, Callable[..., tuple[Tensor, ...]]]:
    """The value of fun, and the function, callable again, from a cotangent of it to those of the primals."""

def jvp(
    fun: Callable[..., Any], primals: Tensor | Sequence[Tensor], tangents: Tensor | Sequence[Tensor]
) -> tuple[Any, Any]: ...
def hvp(fun: Callable[..., Any], primals: Tensor | Sequence[Tensor], tangents: Tensor | Sequence[Tensor]) -> Any:
    """The Hessian times the tangents: a tensor, or a tuple if there are several primals."""

def vmap(
    fun: _F, in_axes: int | Sequence[int | None] | None = 0, out_axes: int | Sequence[int] = 0
) -> Callable[..., Any]: ...
def checkpoint(fun: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """A function like fun that keeps nothing of its inside: its gradient computes it again."""

def custom_gradient(fun: Callable[..., tuple[Tensor, Callable[..., Any]]]) -> Callable[..., Tensor]:
    """Fun gives its value and a function from the cotangent of it to that of each argument (one, or a tuple)."""

def grad_of(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grad_outputs: Sequence[Tensor | None] | None = None,
    *,
    retain_graph: _Bool | None = None,
    create_graph: _Bool = False,
    allow_unused: _Bool = False,
) -> tuple[Tensor | None, ...]: ...

# Optimizers.
@final
class Updater:
    """One update rule over the parameters of one group, with their state.

    Rules, the numbers each takes in `step`, in order, and the state of a parameter:
      sgd: lr, momentum, dampening, weight_decay, nesterov, maximize; momentum_buffer
      rmsprop: lr, alpha, eps, weight_decay, momentum, centered, maximize; step, square_avg, momentum_buffer, grad_avg
      adam: lr, beta1, beta2, eps, weight_decay, amsgrad, maximize; step, exp_avg, exp_avg_sq, max_exp_avg_sq
      adamw: as adam, with the decay of the weights apart from the gradient
    State that a setting does not need is absent. A parameter without a gradient is left alone by a step.
    """

    def __new__(cls, rule: str, params: Sequence[Tensor]) -> Self: ...
    def prepare(self, owner: object, group: dict[str, Any], /) -> None:
        """Evaluate the parameters and make the zeros that a first step of this group starts from."""
    def state(self, index: int, /) -> dict[str, Tensor | int]:
        """The state of parameter `index`; empty before its first step."""
    def set_state(self, index: int, state: dict[str, Tensor | int], /) -> None: ...
    def zero_grad(self, set_to_none: _Bool = True) -> None: ...

def step(owner: object, updaters: list[Updater], groups: list[Any], /) -> None:
    """Record the updates of all groups of an optimizer, then evaluate them and everything pending: the barrier."""

def host_call(call: Callable[[], None], dicts: list[dict[str, Any]], /) -> None:
    """In a traced step: writes down a call of a method that changes only these dicts of settings and numbers."""

def note_replaced(tensor: Tensor, /) -> None:
    """Says that a module has another tensor, or none, in the place of this one."""

def refuse_setting(name: str, /) -> None:
    """In a traced step: refuses a change of this setting of an optimizer."""

@final
class Compiled:
    """A function that `compile` made. Call it as the function itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __get__(self, instance: Any, owner: Any | None = None, /) -> Any: ...
    def run(self, *args: Any) -> Any:
        """Run many steps: each tensor argument holds theirs along its first axis, other arguments are the same for all.

        Returns:
            What the function gives back, with the tensors of all steps stacked along a new first axis.
        """
    def explain(self) -> Explanation:
        """What the compiled function does.

        Its kernels with their ops, bytes, operations and measured time, how numbers are found, what changes, what was
        baked, and why the last refused call was refused.
        """

@final
class Explanation:
    """What `explain` gives: print it, or look at `signatures`."""

    @property
    def signatures(self) -> list[dict[str, Any]]:
        """A dict for each signature: calls, plans with their kernels, numbers, states, host data."""
    @property
    def refused(self) -> str | None:
        """Why the last call that was refused could not be compiled; None if none was."""

def compile(fun: Callable[..., Any], /) -> Compiled:
    """Compile a step: its first two calls of a signature run as ordinary code, later ones without Python."""

def clip_grad_norm(params: Sequence[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Scale the gradients so that their norm is at most max_norm; returns the norm before, unevaluated.

    norm_type: 1, 2 or inf. The scale is min(1, max_norm / (norm + 1e-6)).
    """

# Files.
def save_safetensors(
    path: str | PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None: ...
def load_safetensors(
    path: str | PathLike[str], device: _DeviceLike | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in the order of the file, and the metadata."""

def _rebuild(
    cls: type[Tensor],
    data: bytes,
    shape: Sequence[int],
    dtype: DType,
    requires_grad: _Bool,
    attributes: Any,
    device: _DeviceLike | None = None,
    /,
) -> Tensor:
    """Make a pickled tensor again."""

# What there is, and what happened: for tests and `wengert.debug`.
def op_table() -> list[dict[str, Any]]:
    """One entry for each op: name, kind, doc, inputs, domain, ulp, gpu_ulp, attrs, reads (masks), differentiable."""

def plan_cache() -> dict[str, Any]:
    """hits, misses, plans, bytes."""

def clear_plan_cache() -> None: ...
def counters() -> dict[str, int]:
    """Plans (run so far), hits, misses, nodes_computed, pending (in this thread), live_nodes."""

def gpu_devices() -> list[str]:
    """The GPUs that can be used, by name, "gpu:0" first."""

def gpu_reset() -> None:
    """Closes all GPUs and forgets what there are: tensors on them are lost."""

def gpu_counters() -> dict[str, int]:
    """submits, dispatches, reads, pipelines, bind_groups (made so far), memory (bytes held), of all open GPUs."""

def verify(step: Callable[[], Any], devices: Sequence[str | Device]) -> tuple[Any, list[dict[str, Any]], str | None]:
    """Calls `step` and checks each op of the plans that it runs on each device.

    Returns what it gave, one entry (op, device, times, worst) for each op and device, and the first divergence in
    words, or None.
    """

def testing_gpu(behaviour: Literal["fail_allocation", "lose"], n: int) -> None:
    """For tests: the nth allocation of GPU memory by this thread from now on fails, or GPU n is lost."""

def testing_op(x: Tensor, behaviour: Literal["fail", "sleep", "panic"], seconds: float = 0.0) -> Tensor:
    """The identity, which at evaluation fails with ValueError("testing_op: fail"), sleeps, or panics."""

__version__: str
