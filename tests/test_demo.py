"""The demo: it learns, its flags work, and it shows the vanishing gradient."""

import re

import pytest

import wengert as wg
from wengert import demo
from wengert.datasets import load_digits


def test_the_demo_reaches_its_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([]) == 0
    printed = capsys.readouterr().out
    (accuracy,) = re.findall(r"test accuracy ([\d.]+) %", printed)
    assert float(accuracy) >= 96.0
    assert printed.count("epoch ") == 20
    assert "\r" not in printed
    table = [line for line in printed.splitlines() if re.match(r" +\d+  +\d\.\de", line)]
    assert len(table) == demo.DEEP


@pytest.mark.parametrize("activation", demo.ACTIVATIONS)
@pytest.mark.parametrize("optimizer", demo.OPTIMIZERS)
def test_the_flags(activation: str, optimizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--layers", "1", "--epochs", "1", "--activation", activation, "--optimizer", optimizer]
    assert demo.main(flags) == 0
    assert f"64-{demo.WIDTH}-10, {activation}, {optimizer}" in capsys.readouterr().out


@pytest.mark.skipif(not wg.gpu.is_available(), reason="no GPU, real or software")
def test_the_demo_runs_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for device in ("cpu", "gpu"):
        assert demo.main(["--layers", "1", "--epochs", "3", "--device", device]) == 0
        printed.append(capsys.readouterr().out)
    assert "weights on gpu:0" in printed[1]
    (here, there) = (float(re.findall(r"epoch   3/3 .* loss ([\d.]+)", text)[0]) for text in printed)
    assert there == pytest.approx(here, rel=1e-2)


@pytest.mark.parametrize(
    "flags", [["--device", "tpu"], ["--layers", "0"], ["--epochs", "-1"], ["--activation", "none"]]
)
def test_wrong_flags_are_refused(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        demo.main(flags)
    assert stopped.value.code == 2


def test_the_gradient_vanishes_with_sigmoid_and_not_with_relu() -> None:
    digits = load_digits()
    sigmoid, relu = demo.gradient_norms("sigmoid", digits), demo.gradient_norms("relu", digits)
    assert len(sigmoid) == len(relu) == demo.DEEP
    assert sigmoid[0] < 1e-3 * sigmoid[-1]
    assert relu[0] > 0.05 * relu[-1]
