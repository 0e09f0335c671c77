"""What more than one network by hand needs: the parts and their gradients, and the optimizers."""

import numpy as np
from workloads import BETAS, DECAY, EPS, MOMENTUM, WEIGHT_DECAY, Array, Optimizer

_SCALE, _CUBE = np.float32(np.sqrt(2 / np.pi)), np.float32(0.044715)


def gelu(z: Array) -> tuple[Array, Array]:
    """0.5 z (1 + t), and t = tanh(sqrt(2 / pi) (z + 0.044715 z**3))."""
    t = z * z
    t *= _CUBE
    t += 1
    t *= z
    t *= _SCALE
    np.tanh(t, out=t)
    y = t + 1
    y *= z
    y *= np.float32(0.5)
    return y, t


def gelu_slope(z: Array, t: Array) -> Array:
    """0.5 (1 + t) + 0.5 z (1 - t**2) sqrt(2 / pi) (1 + 3 * 0.044715 z**2)."""
    inner = z * z
    inner *= 3 * _CUBE
    inner += 1
    inner *= _SCALE
    inner *= z
    inner *= 1 - t * t
    inner += t
    inner += 1
    inner *= np.float32(0.5)
    return inner


def relu_slope(y: Array) -> Array:
    """1 where relu let its input pass. As floats: multiplying by a mask converts it piece by piece, which is slower."""
    return (y > 0).astype(np.float32)


def cross_entropy(logits: Array, target: Array) -> tuple[float, Array]:
    """The mean loss over the rows and its gradient; overwrites the logits."""
    rows = np.arange(len(target))
    logits -= logits.max(axis=1, keepdims=True)
    picked = logits[rows, target]
    g = np.exp(logits, out=logits)
    total = g.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - picked))
    g /= total
    g[rows, target] -= 1
    g *= np.float32(1 / len(target))
    return loss, g


class Update:
    """Optimizer steps in place."""

    def __init__(self, kind: Optimizer, lr: float, params: dict[str, Array]) -> None:
        self.kind, self.lr, self.params, self.steps = kind, np.float32(lr), params, 0
        self.first = {name: np.zeros_like(p) for name, p in params.items()}
        self.second = {name: np.zeros_like(p) for name, p in params.items()}

    def apply(self, grads: dict[str, Array]) -> None:
        """Update each parameter; the gradients are free to be overwritten."""
        self.steps += 1
        b1, b2 = BETAS
        rate = np.float32(self.lr / (1 - b1**self.steps))
        root = np.float32(1 / np.sqrt(1 - b2**self.steps))
        for name, p in self.params.items():
            g, m, v = grads[name], self.first[name], self.second[name]
            if self.kind == "sgd":
                m *= np.float32(MOMENTUM)
                m += g
                p -= self.lr * m
                continue
            decay = np.float32(DECAY if self.kind == "rmsprop" else b2)
            if self.kind == "adamw":
                p *= np.float32(1 - self.lr * WEIGHT_DECAY)
            if self.kind != "rmsprop":
                m *= np.float32(b1)
                m += np.float32(1 - b1) * g
            square = g * g
            square *= 1 - decay
            v *= decay
            v += square
            scale = np.sqrt(v, out=square)
            if self.kind != "rmsprop":
                scale *= root
            scale += np.float32(EPS)
            np.divide(g if self.kind == "rmsprop" else m, scale, out=scale)
            scale *= self.lr if self.kind == "rmsprop" else rate
            p -= scale
