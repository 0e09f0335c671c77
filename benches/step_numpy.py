"""The steps in NumPy, written by hand: forward, backward and optimizer. Each network has a file of its own."""

from collections.abc import Callable

import numpy as np
import numpy_cnn
import numpy_dense
import numpy_gpt
from numpy_parts import Update
from workloads import Array, Cnn, Dense, Workload

VERSION = np.__version__
_LOOKUP = ("wte.weight", "wpe.weight")


def _arrange(workload: Workload, name: str, value: Array) -> Array:
    """Dense weights (in, out), convolutions (in * 9, out), pictures NHWC."""
    if name == "fc1.weight" and isinstance(workload, Cnn):
        side = workload.pooled
        value = value.reshape(-1, workload.channels[2], side, side).transpose(0, 2, 3, 1).reshape(value.shape)
    if value.ndim == 4:
        value = value.reshape(len(value), -1)
    return value.T.copy() if value.ndim == 2 and name not in _LOOKUP else value


def make(workload: Workload) -> Callable[[], float]:
    """A function that trains one step and returns the loss."""
    params = {name: _arrange(workload, name, value) for name, value in workload.parameters().items()}
    x, target = workload.data()
    if isinstance(workload, Dense):
        gradient = numpy_dense.gradient(workload, params, x, target)
    elif isinstance(workload, Cnn):
        gradient = numpy_cnn.gradient(workload, params, np.ascontiguousarray(x.transpose(0, 2, 3, 1)), target)
    else:
        gradient = numpy_gpt.gradient(workload, params, x, target)
    update = Update(workload.optimizer, workload.lr, params)

    def step() -> float:
        loss, grads = gradient()
        update.apply(grads)
        return loss

    return step
