"""The GPT in NumPy by hand: forward and backward of each part side by side."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy_parts import cross_entropy, gelu, gelu_slope
from workloads import Array, Gpt

Params = dict[str, Array]


class Model:
    """Parameters, gradients, and what the backward pass needs from the forward pass, by the name of the part."""

    def __init__(self, workload: Gpt, p: Params) -> None:
        self.workload, self.p = workload, p
        self.grads: Params = {}
        self.kept: dict[str, Any] = {}
        block = workload.block
        self.future = np.where(np.tri(block, dtype=bool), np.float32(0), np.float32(-np.inf))

    def linear(self, name: str, x: Array) -> Array:
        """Rows of inputs to rows of outputs."""
        self.kept[name] = x
        y = x @ self.p[f"{name}.weight"]
        y += self.p[f"{name}.bias"]
        return y

    def linear_back(self, name: str, g: Array) -> Array:
        """The gradient of the input."""
        self.grads[f"{name}.weight"] = self.kept[name].T @ g
        self.grads[f"{name}.bias"] = g.sum(axis=0)
        return g @ self.p[f"{name}.weight"].T

    def norm(self, name: str, x: Array) -> Array:
        """Layer norm over the last axis."""
        centred = x - x.mean(axis=1, keepdims=True)
        scale = 1 / np.sqrt(np.mean(centred * centred, axis=1, keepdims=True) + np.float32(1e-5))
        centred *= scale
        self.kept[name] = centred, scale
        return centred * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def norm_back(self, name: str, g: Array) -> Array:
        """The gradient of the input."""
        hat, scale = self.kept[name]
        self.grads[f"{name}.weight"] = (g * hat).sum(axis=0)
        self.grads[f"{name}.bias"] = g.sum(axis=0)
        g = g * self.p[f"{name}.weight"]
        g -= g.mean(axis=1, keepdims=True) + hat * np.mean(g * hat, axis=1, keepdims=True)
        g *= scale
        return g

    def attention(self, name: str, x: Array) -> Array:
        """Causal attention over heads."""
        w = self.workload
        qkv = self.linear(f"{name}.c_attn", x).reshape(w.batch, w.block, 3, w.heads, -1)
        q, k, v = np.ascontiguousarray(qkv.transpose(2, 0, 3, 1, 4))
        scores = q @ k.swapaxes(2, 3)
        scores *= np.float32(1 / np.sqrt(q.shape[3]))
        scores += self.future
        scores -= scores.max(axis=3, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=3, keepdims=True)
        self.kept[name] = q, k, v, scores
        y = (scores @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        return self.linear(f"{name}.c_proj", y)

    def attention_back(self, name: str, g: Array) -> Array:
        """The gradient of the input."""
        w = self.workload
        q, k, v, scores = self.kept[name]
        shape = g.shape
        g = self.linear_back(f"{name}.c_proj", g).reshape(w.batch, w.block, w.heads, -1).transpose(0, 2, 1, 3)
        out = np.empty((w.batch, w.block, 3, w.heads, q.shape[3]), np.float32)
        parts = out.transpose(2, 0, 3, 1, 4)
        parts[2] = scores.swapaxes(2, 3) @ g
        slope = g @ v.swapaxes(2, 3)
        slope -= (slope * scores).sum(axis=3, keepdims=True)
        slope *= scores
        slope *= np.float32(1 / np.sqrt(q.shape[3]))
        parts[0], parts[1] = slope @ k, slope.swapaxes(2, 3) @ q
        return self.linear_back(f"{name}.c_attn", out.reshape(shape[0], 3 * shape[1]))

    def mlp(self, name: str, x: Array) -> Array:
        """Widen four times, gelu, narrow."""
        z = self.linear(f"{name}.c_fc", x)
        y, t = gelu(z)
        self.kept[name] = z, t
        return self.linear(f"{name}.c_proj", y)

    def mlp_back(self, name: str, g: Array) -> Array:
        """The gradient of the input."""
        g = self.linear_back(f"{name}.c_proj", g)
        g *= gelu_slope(*self.kept[name])
        return self.linear_back(f"{name}.c_fc", g)


def gradient(workload: Gpt, p: Params, x: Array, target: Array) -> Callable[[], tuple[float, Params]]:
    """A function that returns the loss and the gradients; dense weights are (in, out)."""
    model = Model(workload, p)
    tokens, goal = x.ravel(), target.ravel()
    hot = np.eye(workload.vocabulary, dtype=np.float32)[tokens].T.copy()

    def run() -> tuple[float, Params]:
        h = p["wte.weight"][tokens].reshape(workload.batch, workload.block, -1) + p["wpe.weight"]
        h = h.reshape(len(tokens), -1)
        for i in range(workload.layers):
            h = h + model.attention(f"h.{i}.attn", model.norm(f"h.{i}.ln_1", h))
            h = h + model.mlp(f"h.{i}.mlp", model.norm(f"h.{i}.ln_2", h))
        final = model.norm("ln_f", h)
        loss, g = cross_entropy(final @ p["wte.weight"].T, goal)
        model.grads["wte.weight"] = g.T @ final
        g = model.norm_back("ln_f", g @ p["wte.weight"])
        for i in range(workload.layers - 1, -1, -1):
            g += model.norm_back(f"h.{i}.ln_2", model.mlp_back(f"h.{i}.mlp", g))
            g += model.norm_back(f"h.{i}.ln_1", model.attention_back(f"h.{i}.attn", g))
        model.grads["wpe.weight"] = g.reshape(workload.batch, workload.block, -1).sum(axis=0)
        model.grads["wte.weight"] += hot @ g
        return loss, model.grads

    return run
