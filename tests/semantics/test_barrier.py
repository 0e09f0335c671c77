"""`optimizer.step()` computes everything that is pending and named; recording stays bounded without any read."""

from __future__ import annotations

import wengert as wg
from counting import counting, pending
from wengert import nn, optim

PENDING_LIMIT = 8_192


def setup() -> tuple[nn.Module, optim.Optimizer, wg.Tensor]:
    model = nn.Linear(4, 1)
    return model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9), wg.ones((8, 4))


def test_a_step_leaves_nothing_pending() -> None:
    model, optimizer, x = setup()
    loss = (model(x) ** 2).mean()
    aside = wg.tensor([1.0, 2.0]) * 3.0
    loss.backward()
    assert pending() > 0
    optimizer.step()
    assert pending() == 0
    with counting() as seen:
        assert aside.tolist() == [3.0, 6.0]
        loss.item()
        [p.tolist() for p in model.parameters()]
    assert seen["plans"] == 0


def test_a_step_is_one_plan() -> None:
    model, optimizer, x = setup()
    wg.eval(x, *model.parameters())
    (model(x) ** 2).mean().backward()
    with counting() as seen:
        optimizer.step()
    assert seen["plans"] == 1


def test_two_groups_are_one_plan() -> None:
    a, b = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer = optim.Adam([{"params": a.parameters()}, {"params": b.parameters(), "lr": 1e-2}])
    x = wg.ones((8, 4))
    wg.eval(x, *a.parameters(), *b.parameters())
    (b(wg.relu(a(x))) ** 2).mean().backward()
    with counting() as seen:
        optimizer.step()
    assert seen["plans"] == 1


def test_eval_computes_several_in_one_plan() -> None:
    x = wg.tensor([1.0, 2.0])
    tensors = [x * float(i) for i in range(5)]
    with counting() as seen:
        wg.eval(*tensors)
        assert [t.tolist() for t in tensors] == [[i * 1.0, i * 2.0] for i in range(5)]
    assert seen["plans"] == 1


def test_a_loop_without_reads_stays_bounded() -> None:
    total = wg.tensor(0.0)
    most = 0
    for i in range(3 * PENDING_LIMIT):
        total = total + 1.0
        if i % 512 == 0:
            most = max(most, pending())
    assert most <= PENDING_LIMIT + 1
    assert total.item() == 3 * PENDING_LIMIT


def test_large_leaves_count() -> None:
    """256 MiB of data first used since the last evaluation is evaluated, though few nodes are pending."""
    total = wg.tensor(0.0)
    with counting() as seen:
        for _ in range(10):
            total = total + wg.from_numpy(memoryview(bytes(32 << 20)).cast("f")).sum()
        assert seen["plans"] >= 1
    assert pending() < 20
    assert total.item() == 0.0


def test_eager_computes_each_operation() -> None:
    x = wg.tensor([0.5, 1.5])
    lazy = wg.exp(x * 2.0) + 1.0
    with wg.eager(), counting() as seen:
        at_once = wg.exp(x * 2.0) + 1.0
        assert pending() <= 3
    assert seen["plans"] >= 3
    assert not wg.is_eager()
    assert at_once.tolist() == lazy.tolist()
