"""The steps in wengert: ordinary code, as a user writes it."""

from collections.abc import Callable

from workloads import Workload

import wengert as wg
from wengert import nn, optim

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": lambda: nn.GELU(approximate="tanh")}


def make(workload: Workload) -> Callable[[], float]:
    """A function that trains one step and returns the loss."""
    wg.manual_seed(0)
    layers: list[nn.Module] = []
    for i, o in zip(workload.sizes, workload.sizes[1:], strict=False):
        layers += [nn.Linear(i, o), _ACTIVATIONS[workload.activation]()]
    model = nn.Sequential(*layers[:-1])
    x = wg.randn((workload.batch, workload.sizes[0]))
    classes = workload.sizes[-1]
    criterion: nn.Module
    if workload.loss == "cross_entropy":
        target, criterion = wg.randint(0, classes, (workload.batch,)), nn.CrossEntropyLoss()
    else:
        target, criterion = wg.randn((workload.batch, classes)), nn.MSELoss()
    wg.eval(x, target)
    optimizer: optim.Optimizer
    if workload.optimizer == "sgd":
        optimizer = optim.SGD(model.parameters(), lr=workload.lr, momentum=0.9)
    elif workload.optimizer == "rmsprop":
        optimizer = optim.RMSprop(model.parameters(), lr=workload.lr)
    else:
        optimizer = optim.Adam(model.parameters(), lr=workload.lr)

    def step() -> float:
        optimizer.zero_grad()
        loss = criterion(model(x), target)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step
