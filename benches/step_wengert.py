"""The steps in wengert: ordinary code, as a user writes it; compiled is the same function under wg.compile."""

from collections.abc import Callable

from gpt import GPT
from workloads import BETAS, DECAY, EPS, MOMENTUM, WEIGHT_DECAY, Cnn, Dense, Gpt, Workload

import wengert as wg
from wengert import nn, optim
from wengert.nn import functional as F

VERSION = wg.__version__


def _dense(workload: Dense) -> nn.Module:
    activations = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": lambda: nn.GELU(approximate="tanh")}
    layers: list[nn.Module] = []
    for i, o in zip(workload.sizes, workload.sizes[1:], strict=False):
        layers += [nn.Linear(i, o), activations[workload.activation]()]
    return nn.Sequential(*layers[:-1])


class _Cnn(nn.Module):
    def __init__(self, workload: Cnn) -> None:
        super().__init__()
        a, b, c = workload.channels
        self.conv1, self.conv2 = nn.Conv2d(a, b, 3), nn.Conv2d(b, c, 3)
        self.fc1 = nn.Linear(c * workload.pooled**2, workload.hidden)
        self.fc2 = nn.Linear(workload.hidden, workload.classes)

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = F.max_pool2d(x, 2)
        return self.fc2(F.relu(self.fc1(x.reshape((x.shape[0], -1)))))


def _model(workload: Workload, checkpoint: bool) -> nn.Module:
    if checkpoint and not isinstance(workload, Gpt):
        raise NotImplementedError("only the GPT is large enough to pay")
    if isinstance(workload, Dense):
        return _dense(workload)
    if isinstance(workload, Cnn):
        return _Cnn(workload)
    return GPT(workload, checkpoint)


def _optimizer(workload: Workload, model: nn.Module) -> optim.Optimizer:
    parameters = model.parameters()
    if workload.optimizer == "sgd":
        return optim.SGD(parameters, lr=workload.lr, momentum=MOMENTUM)
    if workload.optimizer == "rmsprop":
        return optim.RMSprop(parameters, lr=workload.lr, alpha=DECAY, eps=EPS)
    if workload.optimizer == "adam":
        return optim.Adam(parameters, lr=workload.lr, betas=BETAS, eps=EPS)
    return optim.AdamW(parameters, lr=workload.lr, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)


def make(workload: Workload, mode: str = "ordinary", device: str = "cpu") -> Callable[[], float]:
    """A function that trains one step and returns the loss; mode is ordinary, compiled or checkpoint."""
    model = _model(workload, checkpoint=mode == "checkpoint").to(device)
    model.load_state_dict({name: wg.tensor(value) for name, value in workload.parameters().items()})
    x, target = (wg.tensor(part, device=device) for part in workload.data())
    target = target.reshape((-1,)) if isinstance(workload, Gpt) else target
    wg.eval(x, target)
    squared = isinstance(workload, Dense) and workload.loss == "mse"
    criterion = nn.MSELoss() if squared else nn.CrossEntropyLoss()
    optimizer = _optimizer(workload, model)

    def train(x: wg.Tensor, target: wg.Tensor) -> wg.Tensor:
        optimizer.zero_grad()
        loss = criterion(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

    if mode == "compiled":
        train = wg.compile(train)
    return lambda: train(x, target).item()
