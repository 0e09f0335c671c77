"""An error says which op, what it got, what would be right, the path of the module, and the user's line."""

from __future__ import annotations

import inspect
import re

import pytest

import wengert as wg
from wengert import _core, nn


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_the_line_of_a_shape_error() -> None:
    x, y = wg.ones((64, 120)), wg.ones((128, 10))
    here = line() + 2
    with pytest.raises(wg.ShapeError) as caught:
        x @ y
    message = str(caught.value)
    assert message.startswith("matmul: ")
    assert "(64, 120)" in message
    assert "(128, 10)" in message
    assert message.endswith(f"(test_error_lines.py:{here})")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 120), nn.ReLU())
        self.head = nn.Linear(128, 10)

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        return self.head(self.body(x))


def test_the_path_of_the_module() -> None:
    with pytest.raises(wg.ShapeError) as caught:
        Net()(wg.ones((64, 8)))
    assert re.fullmatch(
        r"linear: input \(64, 120\) ends in 120 but weight \(10, 128\) takes 128 \(head, test_error_lines.py:\d+\)",
        str(caught.value),
    )


def test_a_deep_path() -> None:
    with pytest.raises(wg.ShapeError, match=r"\(1\.body\.0, "):
        nn.Sequential(nn.Identity(), Net())(wg.ones((4, 7)))


def test_the_line_is_the_users_not_the_packages() -> None:
    with pytest.raises(wg.ShapeError) as caught:
        nn.MSELoss()(wg.ones((4,)), wg.ones((4, 1)))
    assert "test_error_lines.py" in str(caught.value)


def test_an_alien_error_passes_unchanged() -> None:
    class Broken(nn.Module):
        def forward(self, x: wg.Tensor) -> wg.Tensor:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nn.Sequential(Broken())(wg.ones((1,)))


def test_a_late_error_names_its_line_on_request() -> None:
    with wg.debug.lines():
        here = line() + 1
        y = _core.testing_op(wg.tensor([1.0]), "fail")
    with pytest.raises(ValueError, match=rf"test_error_lines\.py:{here}"):
        y.tolist()


def test_eager_raises_on_the_line() -> None:
    with wg.eager(), pytest.raises(ValueError, match="testing_op"):
        _core.testing_op(wg.tensor([1.0]), "fail")


def test_dim_says_axis() -> None:
    with pytest.raises(TypeError, match="axis"):
        wg.ones((2, 3)).sum(dim=0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="axis"):
        wg.softmax(wg.ones((2, 3)), dim=0)  # type: ignore[call-arg]
