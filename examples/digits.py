"""Classify handwritten digits with dropout and a learning-rate schedule, then save and load the weights."""

import random
import tempfile
from pathlib import Path

import wengert as wg
import wengert.nn.functional as F
from wengert import nn, optim
from wengert.datasets import load_digits

EPOCHS = 20
BATCH = 32


def build() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, 10),
    )


def accuracy(model: nn.Module, x: wg.Tensor, y: wg.Tensor) -> float:
    model.eval()
    with wg.no_grad():
        right = wg.argmax(model(x), axis=1) == y
    model.train()
    return float(right.astype(wg.float32).mean().item())


def main() -> None:
    wg.manual_seed(0)
    shuffler = random.Random(0)
    train_x, train_y, test_x, test_y = load_digits()
    model = build()
    optimizer = optim.AdamW(model.parameters(), lr=2e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)
    order = list(range(train_x.shape[0]))
    for epoch in range(EPOCHS):
        shuffler.shuffle(order)
        for first in range(0, len(order) - BATCH + 1, BATCH):
            rows = wg.tensor(order[first : first + BATCH])
            optimizer.zero_grad()
            loss = F.cross_entropy(model(wg.take(train_x, rows, axis=0)), wg.take(train_y, rows, axis=0))
            loss.backward()
            optimizer.step()
        schedule.step()
        print(f"epoch {epoch + 1:2}: loss {loss.item():.4f}, held out {accuracy(model, test_x, test_y):.1%}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.safetensors"
        wg.save(model.state_dict(), path)
        copy = build()
        copy.load_state_dict(wg.load(path))
    reached = accuracy(model, test_x, test_y)
    assert reached > 0.95
    assert accuracy(copy, test_x, test_y) == reached


if __name__ == "__main__":
    main()
