"""The steps in PyTorch with its fused optimizers; compiled compiles model and loss: the optimizer gets slower by it."""

import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from workloads import BETAS, DECAY, EPS, MOMENTUM, WEIGHT_DECAY, Cnn, Dense, Gpt, Workload

torch.set_num_threads(os.cpu_count() or 1)
VERSION = torch.__version__.split("+")[0]


class _Dense(nn.Sequential):
    def __init__(self, workload: Dense) -> None:
        activations = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": lambda: nn.GELU(approximate="tanh")}
        layers: list[nn.Module] = []
        for i, o in zip(workload.sizes, workload.sizes[1:], strict=False):
            layers += [nn.Linear(i, o), activations[workload.activation]()]
        super().__init__(*layers[:-1])


class _Cnn(nn.Module):
    def __init__(self, workload: Cnn) -> None:
        super().__init__()
        a, b, c = workload.channels
        self.conv1, self.conv2 = nn.Conv2d(a, b, 3), nn.Conv2d(b, c, 3)
        self.fc1 = nn.Linear(c * workload.pooled**2, workload.hidden)
        self.fc2 = nn.Linear(workload.hidden, workload.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc2(F.relu(self.fc1(F.max_pool2d(x, 2).flatten(1))))


class _Attention(nn.Module):
    def __init__(self, workload: Gpt) -> None:
        super().__init__()
        self.heads = workload.heads
        self.c_attn = nn.Linear(workload.width, 3 * workload.width)
        self.c_proj = nn.Linear(workload.width, workload.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, block, width = x.shape
        q, k, v = self.c_attn(x).view(batch, block, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(batch, block, width))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class _Block(nn.Module):
    def __init__(self, workload: Gpt) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(workload.width), nn.LayerNorm(workload.width)
        self.attn, self.mlp = _Attention(workload), _Mlp(workload.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class _Gpt(nn.Module):
    def __init__(self, workload: Gpt) -> None:
        super().__init__()
        self.wte = nn.Embedding(workload.vocabulary, workload.width)
        self.wpe = nn.Embedding(workload.block, workload.width)
        self.h = nn.ModuleList(_Block(workload) for _ in range(workload.layers))
        self.ln_f = nn.LayerNorm(workload.width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight).flatten(0, 1)


def _model(workload: Workload) -> nn.Module:
    if isinstance(workload, Dense):
        return _Dense(workload)
    return _Cnn(workload) if isinstance(workload, Cnn) else _Gpt(workload)


def _optimizer(workload: Workload, model: nn.Module) -> torch.optim.Optimizer:
    lr = workload.lr
    if workload.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, fused=True)
    if workload.optimizer == "rmsprop":
        return torch.optim.RMSprop(model.parameters(), lr=lr, alpha=DECAY, eps=EPS)
    if workload.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=lr, betas=BETAS, eps=EPS, fused=True)
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, fused=True)


def make(workload: Workload, mode: str = "eager") -> Callable[[], float]:
    """A function that trains one step and returns the loss; mode is eager or compiled."""
    model = _model(workload)
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in workload.parameters().items()})
    x, target = (torch.from_numpy(part) for part in workload.data())
    target = target.flatten() if isinstance(workload, Gpt) else target
    if isinstance(workload, Cnn):
        # The layout that its convolutions run fastest in; the values are the same.
        model, x = (part.to(memory_format=torch.channels_last) for part in (model, x))
    criterion = F.mse_loss if isinstance(workload, Dense) and workload.loss == "mse" else F.cross_entropy
    optimizer = _optimizer(workload, model)

    def loss_of(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return criterion(model(x), target)

    if mode == "compiled":
        loss_of = torch.compile(loss_of, dynamic=False, fullgraph=True)

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(x, target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
