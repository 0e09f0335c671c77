"""A character-level GPT: two layers that learn a short text, and write it on from its first letters."""

import wengert as wg
import wengert.nn.functional as F
from wengert import nn, optim

TEXT = "the quick brown fox jumps over the lazy dog; the lazy dog sleeps under the old oak tree. " * 4
BLOCK, BATCH, WIDTH, HEADS, LAYERS, STEPS = 32, 16, 64, 4, 2, 150

letters = sorted(set(TEXT))
tokens = wg.tensor([letters.index(letter) for letter in TEXT])


class Attention(nn.Module):
    """Causal attention of several heads."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        """Map x."""
        batch, block, _ = x.shape
        shape = (batch, block, HEADS, WIDTH // HEADS)
        query, key, value = (p.reshape(shape).permute_dims((0, 2, 1, 3)) for p in wg.split(self.inputs(x), 3, axis=-1))
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(y.permute_dims((0, 2, 1, 3)).reshape(x.shape))


class Block(nn.Module):
    """Attention, then a network for each letter."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.before_attention = Attention(), nn.LayerNorm(WIDTH)
        self.network = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256), nn.GELU(), nn.Linear(256, WIDTH))

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        """Map x."""
        x = x + self.attention(self.before_attention(x))
        return wg.add(x, self.network(x))


class GPT(nn.Module):
    """Scores of the next letter."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.positions = nn.Embedding(len(letters), WIDTH), nn.Embedding(BLOCK, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)], nn.LayerNorm(WIDTH))
        self.scores = nn.Linear(WIDTH, len(letters))

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        """Map x."""
        return self.scores(self.blocks(self.letters(x) + self.positions.weight[: x.shape[1]]))


wg.manual_seed(0)
model = GPT()
optimizer = optim.AdamW(model.parameters(), lr=3e-3)
losses = []
for step in range(STEPS):
    batch = wg.take(tokens, wg.randint(0, len(TEXT) - BLOCK - 1, (BATCH, 1)) + wg.arange(BLOCK + 1))
    loss = F.cross_entropy(model(batch[:, :-1]).reshape((-1, len(letters))), batch[:, 1:].reshape((-1,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if step % 30 == 0 or step == STEPS - 1:
        print(f"step {step:3}: loss {losses[-1]:.3f}")

written = list("the quick ")
with wg.no_grad():
    while len(written) < 60:
        seen = wg.tensor([[letters.index(letter) for letter in written[-BLOCK:]]])
        written.append(letters[int(wg.argmax(model(seen)[0, -1]).item())])
print("".join(written))
assert losses[-1] < 0.2 < 2.0 < losses[0], "the loss falls"
assert "".join(written) in TEXT, "it knows the text"
