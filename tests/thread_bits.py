"""SHA-256 of the parameters after training, for any number of threads. `make thread-bits` runs this file in full."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

import numpy as np

import wengert as wg
from wengert import nn, optim

THREADS = (1, 2, 3, 4, 8)


class Cnn(nn.Module):
    """Large enough that its convolutions are cut over threads."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Linear(32 * 6 * 6, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        return self.head(self.features(x).reshape((x.shape[0], -1)))


class Decoder(nn.Module):
    """One block of causal attention over embedded tokens."""

    def __init__(self, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.tokens, self.norm = nn.Embedding(65, width), nn.LayerNorm(width)
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"))
        self.head = nn.Linear(4 * width, 65)

    def forward(self, tokens: wg.Tensor) -> wg.Tensor:
        x = self.tokens(tokens)
        batch, length, width = x.shape
        qkv = self.inputs(self.norm(x)).reshape((batch, length, 3, self.heads, width // self.heads))
        q, k, v = (qkv[:, :, part].permute_dims((0, 2, 1, 3)) for part in range(3))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(y.permute_dims((0, 2, 1, 3)).reshape((batch, length, width)))
        return self.head(self.network(x)).reshape((batch * length, 65))


def dense(*sizes: int) -> nn.Module:
    """A dense network with dropout before its last layer."""
    layers: list[nn.Module] = []
    for fan, to in itertools.pairwise(sizes):
        layers += [nn.Linear(fan, to), nn.ReLU()]
    return nn.Sequential(*layers[:-2], nn.Dropout(0.1), layers[-2])


def floats(*shape: int) -> wg.Tensor:
    """Numbers that do not depend on wengert."""
    return wg.tensor(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


def classes(count: int, limit: int) -> wg.Tensor:
    """Class indices."""
    return wg.tensor(np.random.default_rng(2).integers(0, limit, count))


Case = Callable[[], tuple[nn.Module, wg.Tensor, wg.Tensor]]

CASES: dict[str, Case] = {
    "tabular": lambda: (dense(32, 64, 64, 4), floats(32, 32), classes(32, 4)),
    "deep": lambda: (dense(*[64] * 14, 10), floats(64, 64), classes(64, 10)),
    "mnist": lambda: (dense(784, 128, 10), floats(64, 784), classes(64, 10)),
    "cnn": lambda: (Cnn(), floats(16, 1, 16, 16), classes(16, 10)),
    "gpt": lambda: (Decoder(), classes(8 * 32, 65).reshape((8, 32)), classes(8 * 32, 65)),
}


def digest(case: str, *, steps: int, threads: int, compiled: bool) -> str:
    """The hash of all parameters, in their order, after so many steps."""
    before = wg.get_num_threads()
    wg.set_num_threads(threads)
    try:
        wg.manual_seed(7)
        model, x, target = CASES[case]()
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)
        criterion = nn.CrossEntropyLoss()

        def train(x: wg.Tensor, target: wg.Tensor) -> wg.Tensor:
            optimizer.zero_grad()
            loss = criterion(model(x), target)
            loss.backward()
            optimizer.step()
            return loss

        step = wg.compile(train) if compiled else train
        for _ in range(steps):
            step(x, target)
        hashed = hashlib.sha256()
        for parameter in model.parameters():
            hashed.update(parameter.numpy().tobytes())
        return hashed.hexdigest()
    finally:
        wg.set_num_threads(before)


def main(steps: int = 200, runs: int = 10) -> None:
    """Ten runs of 200 steps for each number of threads, ordinary and compiled; ends with 1 if any two differ."""
    same = True
    for case in CASES:
        found: dict[str, list[str]] = {}
        for compiled in (False, True):
            for threads in THREADS:
                for _ in range(runs):
                    key = digest(case, steps=steps, threads=threads, compiled=compiled)
                    found.setdefault(key, []).append(f"{'compiled' if compiled else 'ordinary'} on {threads}")
        same &= len(found) == 1
        print(f"{case}: {sum(map(len, found.values()))} runs, {len(found)} hash{'' if len(found) == 1 else 'es'}")
        for key, where in found.items():
            print(f"  {key}: {len(where)} runs" if len(found) == 1 else f"  {key}: {', '.join(where)}")
    raise SystemExit(not same)


if __name__ == "__main__":
    main()
