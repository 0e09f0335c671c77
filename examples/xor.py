"""Learn exclusive or with one hidden layer, in ordinary training code."""

import wengert as wg
import wengert.nn.functional as F
from wengert import nn, optim


class Net(nn.Module):
    """Two inputs, eight hidden units, one logit."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        """Map points (N, 2) to logits (N, 1)."""
        return self.out(wg.tanh(self.hidden(x)))


def main() -> None:
    wg.manual_seed(0)
    x = wg.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = wg.tensor([[0.0], [1.0], [1.0], [0.0]])
    net = Net()
    optimizer = optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    for step in range(301):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(net(x), y)
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step:3}: loss {loss.item():.4f}")

    with wg.no_grad():
        probability = wg.sigmoid(net(x))
    for (a, b), (p,) in zip(x.tolist(), probability.tolist(), strict=True):
        print(f"{a:.0f} xor {b:.0f}: {p:.3f}")
    assert loss.item() < 0.05
    assert [p > 0.5 for (p,) in probability.tolist()] == [False, True, True, False]


if __name__ == "__main__":
    main()
