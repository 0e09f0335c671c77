"""The training steps that are compared: each network, its first parameters, its data and its target. Knows no library.

Parameters have PyTorch's names and layouts; a peer that wants others rearranges them once, before the first step.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]
Activation = Literal["tanh", "relu", "gelu"]
Loss = Literal["mse", "cross_entropy"]
Optimizer = Literal["sgd", "rmsprop", "adam", "adamw"]

MOMENTUM, DECAY, BETAS, EPS, WEIGHT_DECAY = 0.9, 0.99, (0.9, 0.999), 1e-8, 0.01


@dataclass(frozen=True)
class Dense:
    """A dense network; sizes from the input to the output."""

    sizes: tuple[int, ...]
    batch: int
    activation: Activation
    loss: Loss
    optimizer: Optimizer
    lr: float

    def parameters(self) -> dict[str, Array]:
        """Layer i is Sequential's entry 2 i: an activation stands between two layers."""
        rng, out = np.random.default_rng(1), {}
        for i, (fan, to) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            out[f"{2 * i}.weight"] = _normal(rng, (to, fan), 1 / math.sqrt(fan))
            out[f"{2 * i}.bias"] = np.zeros(to, np.float32)
        return out

    def data(self) -> tuple[Array, Array]:
        """A batch of inputs (batch, sizes[0]) and its targets."""
        rng = np.random.default_rng(2)
        x = _normal(rng, (self.batch, self.sizes[0]), 1)
        if self.loss == "cross_entropy":
            return x, rng.integers(0, self.sizes[-1], self.batch)
        return x, _normal(rng, (self.batch, self.sizes[-1]), 1)


@dataclass(frozen=True)
class Cnn:
    """Convolution 3 x 3, relu, convolution 3 x 3, relu, max pooling 2, dense, relu, dense: on square pictures."""

    batch: int = 64
    side: int = 28
    channels: tuple[int, int, int] = (1, 32, 64)
    hidden: int = 128
    classes: int = 10
    optimizer: Optimizer = "adam"
    lr: float = 1e-3

    @property
    def pooled(self) -> int:
        """The side of the pictures after pooling."""
        return (self.side - 4) // 2

    def parameters(self) -> dict[str, Array]:
        """Convolution weights (out, in, 3, 3)."""
        rng, (a, b, c) = np.random.default_rng(1), self.channels
        flat = c * self.pooled**2
        shapes = {"conv1": (b, a, 3, 3), "conv2": (c, b, 3, 3), "fc1": (self.hidden, flat)}
        shapes["fc2"] = (self.classes, self.hidden)
        out = {}
        for name, shape in shapes.items():
            out[f"{name}.weight"] = _normal(rng, shape, 1 / math.sqrt(math.prod(shape[1:])))
            out[f"{name}.bias"] = np.zeros(shape[0], np.float32)
        return out

    def data(self) -> tuple[Array, Array]:
        """Pictures (batch, channels, side, side) and classes (batch,)."""
        rng = np.random.default_rng(2)
        x = _normal(rng, (self.batch, self.channels[0], self.side, self.side), 1)
        return x, rng.integers(0, self.classes, self.batch)


@dataclass(frozen=True)
class Gpt:
    """A decoder like nanoGPT: learned positions, layer norm before each part, GELU (tanh form), tied embeddings."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    block: int = 64
    batch: int = 12
    vocabulary: int = 65
    optimizer: Optimizer = "adamw"
    lr: float = 1e-3

    def parameters(self) -> dict[str, Array]:
        """The head has no weight of its own: it uses wte.weight."""
        rng, w = np.random.default_rng(1), self.width
        out: dict[str, Array] = {}

        def dense(name: str, to: int, fan: int) -> None:
            out[f"{name}.weight"] = _normal(rng, (to, fan), 0.02)
            out[f"{name}.bias"] = np.zeros(to, np.float32)

        def norm(name: str) -> None:
            out[f"{name}.weight"], out[f"{name}.bias"] = np.ones(w, np.float32), np.zeros(w, np.float32)

        out["wte.weight"] = _normal(rng, (self.vocabulary, w), 0.02)
        out["wpe.weight"] = _normal(rng, (self.block, w), 0.02)
        for i in range(self.layers):
            norm(f"h.{i}.ln_1")
            dense(f"h.{i}.attn.c_attn", 3 * w, w)
            dense(f"h.{i}.attn.c_proj", w, w)
            norm(f"h.{i}.ln_2")
            dense(f"h.{i}.mlp.c_fc", 4 * w, w)
            dense(f"h.{i}.mlp.c_proj", w, 4 * w)
        norm("ln_f")
        return out

    def data(self) -> tuple[Array, Array]:
        """Tokens (batch, block) and the tokens that follow them."""
        text = np.random.default_rng(2).integers(0, self.vocabulary, (self.batch, self.block + 1))
        return text[:, :-1].copy(), text[:, 1:].copy()


def _normal(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


Workload = Dense | Cnn | Gpt

WORKLOADS: dict[str, Workload] = {
    "xor": Dense((2, 8, 1), 4, "tanh", "mse", "sgd", 0.05),
    "tabular": Dense((32, 64, 64, 1), 32, "relu", "mse", "adam", 1e-3),
    "deep": Dense((64, *[64] * 19, 64), 64, "tanh", "mse", "rmsprop", 1e-4),
    "mnist": Dense((784, 128, 10), 64, "relu", "cross_entropy", "adam", 1e-3),
    "mnist-wide": Dense((784, 512, 512, 10), 128, "relu", "cross_entropy", "adam", 1e-3),
    "gelu": Dense((1024, 2048, 2048, 2048, 1024), 256, "gelu", "mse", "adam", 1e-4),
    "cnn": Cnn(),
    "gpt": Gpt(),
}


@dataclass(frozen=True)
class Target:
    """The most that a step may take, as a share of the best peer's time (or of NumPy's alone)."""

    ordinary: float
    compiled: float
    against: Literal["best", "numpy"] = "best"
    first_ms: float | None = None  # the most that the first step may take, its plan built


TARGETS = {
    "xor": Target(0.4, 0.1, "numpy"),
    "tabular": Target(0.45, 0.3),
    "deep": Target(0.55, 0.45),
    "mnist": Target(0.55, 0.5, first_ms=5),
    "mnist-wide": Target(0.8, 0.75),
    "gelu": Target(0.8, 0.8),
    "cnn": Target(0.75, 0.75),
    "gpt": Target(0.75, 0.75, first_ms=30),
}
