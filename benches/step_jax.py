"""The steps in JAX with optax: the whole step is one jitted function that donates parameters and optimizer state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from workloads import BETAS, DECAY, EPS, MOMENTUM, WEIGHT_DECAY, Cnn, Dense, Gpt, Workload

VERSION = jax.__version__
Params = dict[str, jax.Array]


def _linear(p: Params, name: str, x: jax.Array) -> jax.Array:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def _dense(workload: Dense, p: Params, x: jax.Array) -> jax.Array:
    activate = {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": jax.nn.gelu}[workload.activation]
    last = len(workload.sizes) - 2
    for i in range(last + 1):
        x = _linear(p, str(2 * i), x)
        x = x if i == last else activate(x)
    return x


def _convolve(p: Params, name: str, x: jax.Array) -> jax.Array:
    y = jax.lax.conv_general_dilated(
        x, p[f"{name}.weight"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + p[f"{name}.bias"]


def _cnn(p: Params, x: jax.Array) -> jax.Array:
    x = jax.nn.relu(_convolve(p, "conv2", jax.nn.relu(_convolve(p, "conv1", x))))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return _linear(p, "fc2", jax.nn.relu(_linear(p, "fc1", x.reshape(x.shape[0], -1))))


def _norm(p: Params, name: str, x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
    return centred * scale * p[f"{name}.weight"] + p[f"{name}.bias"]


def _attention(workload: Gpt, p: Params, name: str, x: jax.Array) -> jax.Array:
    batch, block, width = x.shape
    shape = (batch, block, workload.heads, width // workload.heads)
    q, k, v = (part.reshape(shape) for part in jnp.split(_linear(p, f"{name}.c_attn", x), 3, axis=-1))
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return _linear(p, f"{name}.c_proj", y.reshape(batch, block, width))


def _gpt(workload: Gpt, p: Params, tokens: jax.Array) -> jax.Array:
    x = p["wte.weight"][tokens] + p["wpe.weight"]
    for i in range(workload.layers):
        x = x + _attention(workload, p, f"h.{i}.attn", _norm(p, f"h.{i}.ln_1", x))
        y = jax.nn.gelu(_linear(p, f"h.{i}.mlp.c_fc", _norm(p, f"h.{i}.ln_2", x)))
        x = x + _linear(p, f"h.{i}.mlp.c_proj", y)
    return _norm(p, "ln_f", x) @ p["wte.weight"].T


def _apply(workload: Workload, p: Params, x: jax.Array) -> jax.Array:
    if isinstance(workload, Dense):
        return _dense(workload, p, x)
    return _cnn(p, x) if isinstance(workload, Cnn) else _gpt(workload, p, x)


def _arrange(workload: Workload, name: str, value: Any) -> Any:
    """Dense weights (in, out); convolutions on NHWC with HWIO weights, which XLA runs fastest on the CPU."""
    if name == "fc1.weight" and isinstance(workload, Cnn):
        side = workload.pooled
        value = value.reshape(-1, workload.channels[2], side, side).transpose(0, 2, 3, 1).reshape(value.shape)
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 and name not in ("wte.weight", "wpe.weight") else value


def _optimizer(workload: Workload) -> optax.GradientTransformation:
    b1, b2 = BETAS
    if workload.optimizer == "sgd":
        return optax.sgd(workload.lr, momentum=MOMENTUM)
    if workload.optimizer == "rmsprop":
        return optax.rmsprop(workload.lr, decay=DECAY, eps=EPS, eps_in_sqrt=False)
    if workload.optimizer == "adam":
        return optax.adam(workload.lr, b1, b2, EPS)
    return optax.adamw(workload.lr, b1, b2, EPS, weight_decay=WEIGHT_DECAY)


def make(workload: Workload) -> Callable[[], float]:
    """A function that trains one step and returns the loss."""
    x, target = workload.data()
    x = x.transpose(0, 2, 3, 1) if isinstance(workload, Cnn) else x
    x, target = jnp.asarray(np.ascontiguousarray(x)), jnp.asarray(target)
    params = {name: jnp.asarray(_arrange(workload, name, v)) for name, v in workload.parameters().items()}
    optimizer = _optimizer(workload)
    state = optimizer.init(params)
    squared = isinstance(workload, Dense) and workload.loss == "mse"

    def loss_of(p: Params, x: jax.Array, target: jax.Array) -> jax.Array:
        out = _apply(workload, p, x)
        if squared:
            return jnp.square(out - target).mean()
        return optax.softmax_cross_entropy_with_integer_labels(out, target).mean()

    def update(p: Params, state: Any, x: jax.Array, target: jax.Array) -> tuple[Params, Any, jax.Array]:
        loss, grads = jax.value_and_grad(loss_of)(p, x, target)
        updates, state = optimizer.update(grads, state, p)
        return optax.apply_updates(p, updates), state, loss

    jitted = jax.jit(update, donate_argnums=(0, 1))

    def step() -> float:
        nonlocal params, state
        params, state, loss = jitted(params, state, x, target)
        return float(jax.block_until_ready(loss))

    return step
