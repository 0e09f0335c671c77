"""The steps in tinygrad: TinyJit over the whole step, on the CPU device."""

import os
from collections.abc import Callable
from importlib.metadata import version
from shutil import which

os.environ.setdefault("DEV", "CPU")
if "CC" not in os.environ and not which("clang"):
    # tinygrad calls clang; without a plain one the newest numbered one will do.
    found = [name for number in range(30, 12, -1) if which(name := f"clang-{number}")]
    os.environ["CC"] = found[0] if found else "clang"

from tinygrad import Context, Tensor, TinyJit, nn  # it reads the environment at import
from workloads import BETAS, DECAY, EPS, MOMENTUM, WEIGHT_DECAY, Cnn, Dense, Gpt, Workload

VERSION = version("tinygrad")
Params = dict[str, Tensor]


def _linear(p: Params, name: str, x: Tensor) -> Tensor:
    return x.linear(p[f"{name}.weight"].T, p[f"{name}.bias"])


def _dense(workload: Dense, p: Params, x: Tensor) -> Tensor:
    last = len(workload.sizes) - 2
    for i in range(last + 1):
        x = _linear(p, str(2 * i), x)
        x = x if i == last else getattr(x, workload.activation)()
    return x


def _cnn(p: Params, x: Tensor) -> Tensor:
    x = x.conv2d(p["conv1.weight"], p["conv1.bias"]).relu()
    x = x.conv2d(p["conv2.weight"], p["conv2.bias"]).relu()
    return _linear(p, "fc2", _linear(p, "fc1", x.max_pool2d(2).flatten(1)).relu())


def _norm(p: Params, name: str, x: Tensor) -> Tensor:
    return x.layernorm(eps=1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def _attention(workload: Gpt, p: Params, name: str, x: Tensor) -> Tensor:
    batch, block, width = x.shape
    qkv = _linear(p, f"{name}.c_attn", x).reshape(batch, block, 3, workload.heads, width // workload.heads)
    q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
    y = q.scaled_dot_product_attention(k, v, is_causal=True)
    return _linear(p, f"{name}.c_proj", y.transpose(1, 2).reshape(batch, block, width))


def _gpt(workload: Gpt, p: Params, tokens: Tensor) -> Tensor:
    x = p["wte.weight"][tokens] + p["wpe.weight"]
    for i in range(workload.layers):
        x = x + _attention(workload, p, f"h.{i}.attn", _norm(p, f"h.{i}.ln_1", x))
        y = _linear(p, f"h.{i}.mlp.c_fc", _norm(p, f"h.{i}.ln_2", x)).gelu()
        x = x + _linear(p, f"h.{i}.mlp.c_proj", y)
    return (_norm(p, "ln_f", x) @ p["wte.weight"].T).flatten(0, 1)


class RMSprop(nn.optim.Optimizer):
    """tinygrad has none of its own: the same rule in its own terms."""

    def __init__(self, params: list[Tensor], lr: float) -> None:
        super().__init__(params, lr, fused=False)
        self.second = self._new_optim_param()

    def _step(self, params: list[Tensor], grads: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        updates = []
        for v, g in zip(self.second, grads, strict=True):
            v.assign(DECAY * v + (1 - DECAY) * (g * g))
            updates.append(self.lr * g / (v.sqrt() + EPS))
        return updates, self.second


def _optimizer(workload: Workload, params: list[Tensor]) -> nn.optim.Optimizer:
    if workload.optimizer == "sgd":
        return nn.optim.SGD(params, lr=workload.lr, momentum=MOMENTUM)
    if workload.optimizer == "rmsprop":
        return RMSprop(params, workload.lr)
    if workload.optimizer == "adam":
        return nn.optim.Adam(params, lr=workload.lr, b1=BETAS[0], b2=BETAS[1], eps=EPS)
    return nn.optim.AdamW(params, lr=workload.lr, b1=BETAS[0], b2=BETAS[1], eps=EPS, weight_decay=WEIGHT_DECAY)


def make(workload: Workload) -> Callable[[], float]:
    """A function that trains one step and returns the loss."""
    x, target = (Tensor(part).realize() for part in workload.data())
    target = target.flatten().realize() if isinstance(workload, Gpt) else target
    params = {name: Tensor(value).realize() for name, value in workload.parameters().items()}
    for tensor in params.values():
        tensor.is_param_(True)
    optimizer = _optimizer(workload, list(params.values()))

    @TinyJit
    def train() -> Tensor:
        optimizer.zero_grad()
        if isinstance(workload, Dense):
            out = _dense(workload, params, x)
        else:
            out = _cnn(params, x) if isinstance(workload, Cnn) else _gpt(workload, params, x)
        squared = isinstance(workload, Dense) and workload.loss == "mse"
        loss = (out - target).square().mean() if squared else out.sparse_categorical_crossentropy(target)
        loss.backward()
        return loss.realize(*optimizer.schedule_step())

    def step() -> float:
        with Context(TRAINING=1):
            return float(train().item())

    return step
