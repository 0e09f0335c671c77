"""Classify handwritten digits with a small convolutional network: two convolutions, max pooling, batch norm."""

import random
import time

import wengert as wg
import wengert.nn.functional as F
from wengert import nn, optim
from wengert.datasets import load_digits

EPOCHS = 6
BATCH = 32


def build() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same", bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 10),
    )


def pictures(x: wg.Tensor) -> wg.Tensor:
    """Rows of 64 pixels as (n, channels, height, width)."""
    return x.reshape((-1, 1, 8, 8))


def accuracy(model: nn.Module, x: wg.Tensor, y: wg.Tensor) -> float:
    model.eval()
    with wg.no_grad():
        right = wg.argmax(model(pictures(x)), axis=1) == y
    model.train()
    return float(right.astype(wg.float32).mean().item())


def main() -> None:
    wg.manual_seed(0)
    shuffler = random.Random(0)
    train_x, train_y, test_x, test_y = load_digits()
    model = build()
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    order = list(range(train_x.shape[0]))
    start = time.perf_counter()
    for epoch in range(EPOCHS):
        shuffler.shuffle(order)
        for first in range(0, len(order) - BATCH + 1, BATCH):
            rows = wg.tensor(order[first : first + BATCH])
            x, y = pictures(wg.take(train_x, rows, axis=0)), wg.take(train_y, rows, axis=0)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}, held out {accuracy(model, test_x, test_y):.1%}")
    print(f"{time.perf_counter() - start:.1f} s")
    assert accuracy(model, test_x, test_y) > 0.97


if __name__ == "__main__":
    main()
