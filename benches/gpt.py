"""The GPT of the benches: nanoGPT's, with its names, in wengert."""

from workloads import Gpt

import wengert as wg
import wengert.nn.functional as F
from wengert import nn


class Attention(nn.Module):
    """Causal self-attention of several heads."""

    def __init__(self, workload: Gpt) -> None:
        super().__init__()
        self.heads = workload.heads
        self.c_attn = nn.Linear(workload.width, 3 * workload.width)
        self.c_proj = nn.Linear(workload.width, workload.width)

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        batch, block, width = x.shape
        shape = (batch, block, self.heads, width // self.heads)
        parts = wg.split(self.c_attn(x), 3, axis=-1)
        query, key, value = (part.reshape(shape).permute_dims((0, 2, 1, 3)) for part in parts)
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.c_proj(y.permute_dims((0, 2, 1, 3)).reshape((batch, block, width)))


class Network(nn.Module):
    """Two layers for each token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """Attention and network, both on what is normalised, both added to what came."""

    def __init__(self, workload: Gpt) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(workload.width), nn.LayerNorm(workload.width)
        self.attn, self.mlp = Attention(workload), Network(workload.width)

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Scores of the next token (batch · block, vocabulary) from tokens (batch, block); tied weights.

    With checkpoint, the backward pass computes the inside of each block again.
    """

    def __init__(self, workload: Gpt, checkpoint: bool = False) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.wte = nn.Embedding(workload.vocabulary, workload.width)
        self.wpe = nn.Embedding(workload.block, workload.width)
        self.h = nn.ModuleList([Block(workload) for _ in range(workload.layers)])
        self.ln_f = nn.LayerNorm(workload.width)

    def forward(self, tokens: wg.Tensor) -> wg.Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = (wg.checkpoint(block) if self.checkpoint else block)(x)
        return F.linear(self.ln_f(x), self.wte.weight).reshape((-1, self.wte.num_embeddings))
