"""The training steps that are compared: what each network is, and its data. Knows no library."""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["tanh", "relu", "gelu"]
Loss = Literal["mse", "cross_entropy"]
Optimizer = Literal["sgd", "rmsprop", "adam"]


@dataclass(frozen=True)
class Workload:
    """A dense network and how it is trained; sizes from the input to the output."""

    name: str
    sizes: tuple[int, ...]
    batch: int
    activation: Activation
    loss: Loss
    optimizer: Optimizer
    lr: float


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("xor", (2, 8, 1), 4, "tanh", "mse", "sgd", 0.05),
        Workload("tabular", (32, 64, 64, 1), 32, "relu", "mse", "adam", 1e-3),
        Workload("deep", (64, *[64] * 19, 64), 64, "tanh", "mse", "rmsprop", 1e-4),
        Workload("mnist", (784, 128, 10), 64, "relu", "cross_entropy", "adam", 1e-3),
        Workload("mnist-wide", (784, 512, 512, 10), 128, "relu", "cross_entropy", "adam", 1e-3),
        Workload("gelu", (1024, 2048, 2048, 2048, 1024), 256, "gelu", "mse", "adam", 1e-4),
    )
}
