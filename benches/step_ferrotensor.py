"""The steps in ferrotensor, on its CPU. It has no RMSprop and no convolution: those workloads are left out."""

from collections.abc import Callable
from typing import Any

import ferrotensor as ft
import ferrotensor.nn.functional as F
from ferrotensor import optim
from workloads import BETAS, EPS, MOMENTUM, WEIGHT_DECAY, Cnn, Dense, Gpt, Workload

VERSION = ft.__version__
Params = dict[str, ft.Tensor]


def _linear(p: Params, name: str, x: ft.Tensor) -> ft.Tensor:
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def _dense(workload: Dense, p: Params, x: ft.Tensor) -> ft.Tensor:
    last = len(workload.sizes) - 2
    for i in range(last + 1):
        x = _linear(p, str(2 * i), x)
        x = x if i == last else getattr(x, workload.activation)()
    return x


def _norm(p: Params, name: str, x: ft.Tensor) -> ft.Tensor:
    return F.layer_norm(x, p[f"{name}.weight"], p[f"{name}.bias"])


def _attention(workload: Gpt, p: Params, name: str, x: ft.Tensor) -> ft.Tensor:
    batch, block, width = x.shape
    shape = (batch, block, workload.heads, width // workload.heads)
    q, k, v = (part.reshape(shape).transpose(1, 2) for part in _linear(p, f"{name}.c_attn", x).chunk(3, -1))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return _linear(p, f"{name}.c_proj", y.transpose(1, 2).reshape(batch, block, width))


def _gpt(workload: Gpt, p: Params, tokens: list[int]) -> ft.Tensor:
    x = p["wte.weight"].index_select(0, tokens).reshape(workload.batch, workload.block, workload.width)
    x = x + p["wpe.weight"]
    for i in range(workload.layers):
        x = x + _attention(workload, p, f"h.{i}.attn", _norm(p, f"h.{i}.ln_1", x))
        y = _linear(p, f"h.{i}.mlp.c_fc", _norm(p, f"h.{i}.ln_2", x)).gelu()
        x = x + _linear(p, f"h.{i}.mlp.c_proj", y)
    return _norm(p, "ln_f", x) @ p["wte.weight"].T


def make(workload: Workload) -> Callable[[], float]:
    """A function that trains one step and returns the loss."""
    if isinstance(workload, Cnn) or workload.optimizer == "rmsprop":
        raise NotImplementedError("no convolution" if isinstance(workload, Cnn) else "no RMSprop")
    lookup = ("wte.weight", "wpe.weight")
    params: Params = {
        name: ft.tensor((v.T if v.ndim == 2 and name not in lookup else v).tolist(), requires_grad=True)
        for name, v in workload.parameters().items()
    }
    x, target = workload.data()
    data: Any = x.ravel().tolist() if isinstance(workload, Gpt) else ft.tensor(x.tolist())
    squared = isinstance(workload, Dense) and workload.loss == "mse"
    goal = ft.tensor(target.tolist())
    optimizer: Any
    if workload.optimizer == "sgd":
        optimizer = optim.SGD(params.values(), lr=workload.lr, momentum=MOMENTUM)
    else:
        decay = WEIGHT_DECAY if workload.optimizer == "adamw" else 0.0
        optimizer = optim.AdamW(params.values(), lr=workload.lr, betas=BETAS, eps=EPS, weight_decay=decay)

    def step() -> float:
        optimizer.zero_grad()
        out = _dense(workload, params, data) if isinstance(workload, Dense) else _gpt(workload, params, data)
        loss = F.mse_loss(out, goal) if squared else F.cross_entropy(out, goal)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step
