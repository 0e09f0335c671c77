"""The demo behind `python -m wengert`: a digit classifier, then the vanishing gradient.

All arithmetic goes through the package. What is printed is plain lines; on a terminal the progress stays on one line.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import wengert as wg
import wengert.nn.functional as F
from wengert import nn, optim
from wengert.datasets import Digits, load_digits

WIDTH = 128
BATCH = 32
DEEP = 10
BAR = 24
SHADES = " .:-=+*#%@"

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], optim.Optimizer]] = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=0.1, momentum=0.9),
    "rmsprop": lambda parameters: optim.RMSprop(parameters, lr=1e-3),
    "adam": lambda parameters: optim.Adam(parameters, lr=2e-3),
    "adamw": lambda parameters: optim.AdamW(parameters, lr=2e-3),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo with command-line arguments.

    Args:
        arguments: the flags, `sys.argv` by default; `--help` lists them.

    Returns:
        The exit status, 0.
    """
    options = _parser().parse_args(arguments)
    wg.manual_seed(options.seed)
    digits = load_digits(device=options.device)
    model = network(options.layers, options.activation).to(options.device)
    optimizer = OPTIMIZERS[options.optimizer](model.parameters())
    weights = sum(math.prod(parameter.shape) for parameter in model.parameters())
    sizes = "-".join(map(str, [64] + [WIDTH] * options.layers + [10]))
    seen, held_out = digits.train_x.shape[0], digits.test_x.shape[0]
    print(f"wengert {wg.__version__}: {seen} handwritten digits to learn from, {held_out} held out")
    print(
        f"network {sizes}, {options.activation}, {options.optimizer}: {weights:,} weights on {digits.train_x.device}\n"
    )
    train(model, optimizer, digits, epochs=options.epochs, seed=options.seed)
    print()
    show_predictions(model, digits)
    print()
    show_vanishing_gradient(digits)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wengert",
        description="Train a classifier of handwritten digits, show what it learned, then show the vanishing gradient.",
    )
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu", help="between the layers (default: relu)")
    parser.add_argument("--layers", type=_count, default=2, help=f"hidden layers of {WIDTH} units each (default: 2)")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd", help="the update rule (default: sgd)")
    parser.add_argument("--epochs", type=_count, default=20, help="passes over the training data (default: 20)")
    parser.add_argument("--device", type=_device, default="cpu", help='"cpu" or "gpu" (default: cpu)')
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the order (default: 0)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count from 1 up")
    return int(text)


def _device(text: str) -> str:
    try:
        wg.zeros((), device=text)
    except wg.DeviceError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def network(layers: int, activation: str) -> nn.Sequential:
    """Build a classifier of 64 pixels into 10 digits.

    Args:
        layers: the number of hidden layers.
        activation: a key of `ACTIVATIONS`.

    Returns:
        The network, with the default initial weights.
    """
    modules: list[nn.Module] = []
    for inputs in [64] + [WIDTH] * (layers - 1):
        modules += [nn.Linear(inputs, WIDTH), ACTIVATIONS[activation]()]
    return nn.Sequential(*modules, nn.Linear(WIDTH, 10))


def train(model: nn.Module, optimizer: optim.Optimizer, digits: Digits, *, epochs: int, seed: int) -> None:
    """Train `model` on shuffled batches and print the progress, the test accuracy and the time.

    Args:
        model: maps images (N, 64) to logits (N, 10).
        optimizer: updates the parameters of `model`.
        digits: the data, on the device of `model`.
        epochs: passes over the training data.
        seed: of the order of the samples.
    """
    shuffler = random.Random(seed)
    order = list(range(digits.train_x.shape[0]))
    seconds = 0.0
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        shuffler.shuffle(order)
        losses = []
        for first in range(0, len(order) - BATCH + 1, BATCH):
            rows = wg.tensor(order[first : first + BATCH], device=digits.train_x.device)
            x, y = wg.take(digits.train_x, rows, axis=0), wg.take(digits.train_y, rows, axis=0)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        seconds += time.perf_counter() - start
        progress = _bar(epoch / epochs)
        mean = math.fsum(losses) / len(losses)
        _show(f"epoch {epoch:3}/{epochs} {progress} loss {mean:.4f}", last=epoch == epochs)
    right = count_right(model, digits)
    total = digits.test_y.shape[0]
    print(f"\ntest accuracy {100 * right / total:.1f} %: {right} of {total} digits it has not seen")
    print(f"training took {seconds:.2f} s, {1000 * seconds / epochs:.1f} ms an epoch")


def count_right(model: nn.Module, digits: Digits) -> int:
    """Count the held-out digits that `model` names rightly.

    Args:
        model: maps images (N, 64) to logits (N, 10).
        digits: the data.

    Returns:
        The number of right answers.
    """
    with wg.no_grad():
        right = wg.argmax(model(digits.test_x), axis=1) == digits.test_y
        return int(right.astype(wg.int64).sum().item())


def show_predictions(model: nn.Module, digits: Digits, *, count: int = 8) -> None:
    """Draw the first held-out digits and, under each, what `model` takes it for.

    Args:
        model: maps images (N, 64) to logits (N, 10).
        digits: the data.
        count: how many digits to draw.
    """
    images = digits.test_x[:count]
    with wg.no_grad():
        answers = wg.argmax(model(images), axis=1).tolist()
    shades = (images * (len(SHADES) - 1) + 0.5).astype(wg.int64).tolist()
    for row in range(0, 64, 8):
        print("  ".join("".join(SHADES[shade] for shade in image[row : row + 8]) for image in shades).rstrip())
    labels = digits.test_y[:count].tolist()
    names = [f"{a}" if a == label else f"{a}, not {label}" for a, label in zip(answers, labels, strict=True)]
    print("  ".join(f"{name:^8}" for name in names).rstrip())


def gradient_norms(activation: str, digits: Digits) -> list[float]:
    """Measure the gradient of the loss in each layer of a deep network before any training.

    The weights start as suits the activation: Kaiming for relu, Xavier for the others.

    Args:
        activation: a key of `ACTIVATIONS`.
        digits: the data; one batch of it is used.

    Returns:
        The Euclidean norm of the gradient of each weight matrix, first layer first.
    """
    model = network(DEEP - 1, activation).to(digits.train_x.device)
    weights = [parameter for parameter in model.parameters() if len(parameter.shape) == 2]
    for weight in weights:
        if activation == "relu":
            nn.init.kaiming_uniform_(weight, nonlinearity="relu")
        else:
            nn.init.xavier_uniform_(weight)
    F.cross_entropy(model(digits.train_x[:256]), digits.train_y[:256]).backward()
    norms = []
    for weight in weights:
        assert weight.grad is not None
        norms.append(wg.sqrt((weight.grad * weight.grad).sum()).item())
    return norms


def show_vanishing_gradient(digits: Digits) -> None:
    """Print the gradient norm of each of ten sigmoid layers beside that of ten ReLU layers, with bars.

    Args:
        digits: the data.
    """
    columns = {activation: gradient_norms(activation, digits) for activation in ("sigmoid", "relu")}
    print(f"The vanishing gradient: norm of the gradient in each of {DEEP} layers, before training.")
    print("The bars are logarithmic: four marks are a factor of ten.\n")
    print("layer  " + "   ".join(f"{name:<{BAR + 9}}" for name in columns).rstrip())
    for layer, norms in enumerate(zip(*columns.values(), strict=True), start=1):
        cells = "   ".join(f"{norm:8.1e} {_bar(_decades(norm))}" for norm in norms)
        print(f"{layer:5}  {cells}".rstrip())
    last_to_first = {name: norms[-1] / norms[0] if norms[0] else math.inf for name, norms in columns.items()}
    print("\nFrom the last layer to the first the gradient shrinks by a factor of")
    print(", ".join(f"{factor:,.0f} with {name}" for name, factor in last_to_first.items()) + ".")


def _decades(norm: float) -> float:
    """Map 1e-6 … 1 to 0 … 1 on a logarithmic scale."""
    return min(1.0, max(0.0, 1 + math.log10(norm) / 6)) if norm > 0 else 0.0


def _bar(part: float) -> str:
    mark = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    return f"{mark * round(BAR * part):<{BAR}}"


def _show(line: str, *, last: bool) -> None:
    """Print a line of progress: over the one before on a terminal, under it elsewhere."""
    if sys.stdout.isatty():
        print(f"\r{line}", end="\n" if last else "", flush=True)
    else:
        print(line, flush=True)
