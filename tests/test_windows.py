"""Convolutions and pools beyond the generated tests: words for padding, positions, what is refused, the layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import references as ref
import wengert as wg
import wengert.nn.functional as F
from wengert import nn


def sample(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def test_one_example_needs_no_batch() -> None:
    x, w = wg.tensor(sample(3, 5, 6)), wg.tensor(sample(4, 3, 2, 3))
    np.testing.assert_array_equal(F.conv2d(x, w).numpy(), F.conv2d(x.reshape((1, 3, 5, 6)), w).numpy()[0])
    assert F.conv1d(wg.ones((2, 7)), wg.ones((3, 2, 3))).shape == (3, 5)
    assert F.max_pool2d(wg.ones((3, 4, 4)), 2).shape == (3, 2, 2)


@pytest.mark.parametrize("taps", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_keeps_the_extents(taps: int, dilation: int) -> None:
    x, w = sample(2, 2, 9, 8), sample(3, 2, taps, taps)
    total = dilation * (taps - 1)
    padded = np.pad(x, [(0, 0), (0, 0), *[(total // 2, total - total // 2)] * 2])
    want = ref.conv(padded, w, dilation=(dilation, dilation))
    got = F.conv2d(wg.tensor(x), wg.tensor(w), padding="same", dilation=dilation)
    assert got.shape == (2, 3, 9, 8)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-12)


def test_positions_count_in_the_plane() -> None:
    x = sample(2, 3, 6, 7)
    values, positions = F.max_pool2d(wg.tensor(x), (3, 2), (2, 2), (1, 0), return_indices=True)
    assert positions.dtype == wg.int64
    flat = np.take_along_axis(x.reshape(2, 3, -1), positions.numpy().reshape(2, 3, -1), 2)
    np.testing.assert_array_equal(flat.reshape(values.shape), values.numpy())
    large = sample(1, 1, 20, 20)
    values, positions = F.max_pool2d(wg.tensor(large), 18, 1, dilation=1, return_indices=True)
    np.testing.assert_array_equal(large.ravel()[positions.numpy()], values.numpy())


def test_rounding_up_drops_windows_that_start_in_the_padding_behind() -> None:
    x = wg.ones((1, 1, 5))
    assert F.max_pool1d(x, 2, 2).shape == (1, 1, 2)
    assert F.max_pool1d(x, 2, 2, ceil_mode=True).shape == (1, 1, 3)
    assert F.max_pool1d(wg.ones((1, 1, 4)), 2, 3, 1, ceil_mode=True).shape == (1, 1, 2)
    assert F.avg_pool1d(x, 2, 2, ceil_mode=True).tolist() == [[[1.0, 1.0, 1.0]]]


@pytest.mark.parametrize("extent", range(1, 8))
@pytest.mark.parametrize(
    ("taps", "stride", "padding"), [(3, 2, 0), (3, 2, 1), (4, 3, 0), (2, 3, 1), (5, 4, 2), (3, 5, 0)]
)
def test_rounding_up_counts_windows_as_torch_does(extent: int, taps: int, stride: int, padding: int) -> None:
    x = sample(1, 1, extent)
    count = -(-(extent + 2 * padding - taps) // stride) + 1
    count -= (count - 1) * stride >= extent + padding
    if count < 1:
        for refused in (F.max_pool1d, F.avg_pool1d):
            with pytest.raises(wg.ShapeError, match=f"the kernel covers {taps}"):
                refused(wg.tensor(x), taps, stride, padding, ceil_mode=True)
        return
    largest, at = F.max_pool1d(wg.tensor(x), taps, stride, padding, ceil_mode=True, return_indices=True)
    means = F.avg_pool1d(wg.tensor(x), taps, stride, padding, ceil_mode=True)
    assert largest.shape == means.shape == (1, 1, count)
    for window in range(count):
        start = window * stride - padding
        inside = x[0, 0, max(start, 0) : start + taps]
        assert largest[0, 0, window].item() == inside.max()
        assert x[0, 0, at[0, 0, window].item()] == inside.max()
        positions = min(start + taps, extent + padding) - start
        np.testing.assert_allclose(means[0, 0, window].item(), inside.sum() / positions, rtol=1e-12)


def test_a_window_larger_than_the_input_is_rounded_up_to_one() -> None:
    x = wg.tensor([[[[1.0, 2.0], [3.0, 5.0]]]], requires_grad=True)
    y = nn.MaxPool2d(3, 2, ceil_mode=True)(x)
    assert y.tolist() == [[[[5.0]]]]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[[0.0, 0.0], [0.0, 1.0]]]]
    assert nn.AvgPool2d(3, 2, ceil_mode=True)(x).tolist() == [[[[2.75]]]]


def test_positions_that_nobody_asks_for_are_not_computed() -> None:
    x = wg.ones((1, 1, 4, 4))
    wg.eval(x)

    def plan_bytes(pool: Callable[[], wg.Tensor]) -> int:
        wg.debug.clear_plan_cache()
        wg.eval(pool())
        cache = wg.debug.plan_cache()
        assert cache["plans"] == 1
        return cache["bytes"]

    # The positions are found from the taps by a row program of their own.
    assert 2 * plan_bytes(lambda: F.max_pool2d(x, 2)) < plan_bytes(lambda: F.max_pool2d(x, 2, return_indices=True)[0])


@pytest.mark.parametrize("size", [(2, 4), (3, 5), (7, None), 1])
def test_adaptive_windows_cover_the_axes(size: Any) -> None:
    x = sample(2, 3, 7, 8)
    asked = size if isinstance(size, tuple) else (size, size)
    sizes = [n if n else extent for n, extent in zip(asked, (7, 8), strict=True)]
    want = np.empty((2, 3, *sizes))
    for i, j in np.ndindex(*sizes):
        rows = slice(i * 7 // sizes[0], -(-(i + 1) * 7 // sizes[0]))
        columns = slice(j * 8 // sizes[1], -(-(j + 1) * 8 // sizes[1]))
        want[..., i, j] = x[..., rows, columns].mean((-2, -1))
    np.testing.assert_allclose(F.adaptive_avg_pool2d(wg.tensor(x), size).numpy(), want, rtol=1e-12, atol=1e-12)


def test_empty_batches() -> None:
    layer = nn.Conv2d(2, 3, 3)
    y = layer(wg.ones((0, 2, 5, 5)))
    assert y.shape == (0, 3, 3, 3)
    y.sum().backward()
    assert layer.weight.grad is not None
    assert wg.all(layer.weight.grad == 0.0).item()
    assert F.max_pool2d(wg.ones((0, 2, 4, 4)), 2).shape == (0, 2, 2, 2)


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "channels": (
        lambda: F.conv2d(wg.ones((1, 3, 5, 5)), wg.ones((4, 2, 3, 3))),
        wg.ShapeError,
        r"conv2d: input \(1, 3, 5, 5\) has 3 channels but weight \(4, 2, 3, 3\) with 1 groups takes 2",
    ),
    "kernel": (
        lambda: F.conv2d(wg.ones((1, 2, 5, 3)), wg.ones((4, 2, 3, 3)), dilation=2, padding=(1, 0)),
        wg.ShapeError,
        r"conv2d: weight \(4, 2, 3, 3\) covers 5 along axis 3 of the input, which has 3",
    ),
    "weight": (lambda: F.conv1d(wg.ones((1, 2, 5)), wg.ones((4, 2))), wg.ShapeError, "weight .* must have 3 axes"),
    "input": (lambda: F.conv2d(wg.ones((5, 5)), wg.ones((4, 2, 3, 3))), wg.ShapeError, "must have 4 axes, or 3"),
    "bias": (
        lambda: F.conv1d(wg.ones((1, 2, 5)), wg.ones((4, 2, 3)), wg.ones((3,))),
        wg.ShapeError,
        r"bias \(3,\) does not fit weight \(4, 2, 3\): it must be \(4,\)",
    ),
    "groups": (
        lambda: F.conv1d(wg.ones((1, 2, 5)), wg.ones((4, 1, 3)), groups=3),
        ValueError,
        "3 groups do not divide",
    ),
    "integers": (
        lambda: F.conv1d(wg.ones((1, 2, 5), dtype=wg.int64), wg.ones((4, 2, 3))),
        wg.DTypeError,
        "input is int64",
    ),
    "stride": (lambda: F.conv1d(wg.ones((1, 2, 5)), wg.ones((4, 2, 3)), stride=0), ValueError, "stride 0"),
    "large": (lambda: F.conv1d(wg.ones((1, 2, 5)), wg.ones((4, 2, 3)), padding=2**62), ValueError, r"below 2\^31"),
    "entries": (
        lambda: F.conv2d(wg.ones((1, 2, 5, 5)), wg.ones((4, 2, 3, 3)), stride=(1, 2, 3)),
        ValueError,
        "stride has 3 entries, it takes one, or 2",
    ),
    "same with a stride": (
        lambda: F.conv1d(wg.ones((1, 2, 5)), wg.ones((4, 2, 3)), stride=2, padding="same"),
        ValueError,
        "needs stride 1, not 2",
    ),
    "word": (lambda: F.conv1d(wg.ones((1, 2, 5)), wg.ones((4, 2, 3)), padding="full"), ValueError, 'padding="full"'),
    "pool padding": (lambda: F.max_pool2d(wg.ones((1, 2, 5, 5)), 3, padding=2), ValueError, "at most half"),
    "pool kernel": (lambda: F.avg_pool2d(wg.ones((1, 2, 5, 2)), 3), wg.ShapeError, "covers 3 along axis 3 of input"),
    "pool of padding": (
        lambda: F.max_pool1d(wg.ones((1, 1, 1)), 2, 1, 1, 2),
        wg.ShapeError,
        "window 0 along axis 2 .* holds padding only",
    ),
    "pool of integers": (lambda: F.max_pool1d(wg.arange(6).reshape((1, 6)), 2), wg.DTypeError, "int64"),
    "divisor": (
        lambda: F.avg_pool2d(wg.ones((1, 2, 5, 5)), 2, divisor_override=0),
        ValueError,
        "divisor_override is 0",
    ),
    "adaptive": (lambda: F.adaptive_avg_pool1d(wg.ones((1, 2, 5)), -1), ValueError, "output_size -1 is negative"),
    "layer groups": (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "in_channels=3 must be divisible by groups=2"),
    "layer same": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding="same"), ValueError, "needs stride 1"),
    "layer mode": (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), ValueError, "use zeros, reflect"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name: str) -> None:
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()


class TestLayers:
    def test_parameters_start_as_in_pytorch(self) -> None:
        wg.manual_seed(1)
        layer = nn.Conv2d(4, 8, (3, 5), groups=2)
        assert (layer.weight.shape, layer.bias.shape) == ((8, 2, 3, 5), (8,))
        bound = 1 / math.sqrt(2 * 3 * 5)
        weight = layer.weight.numpy()
        assert np.abs(weight).max() <= bound < np.abs(weight).max() * 1.05
        assert abs(weight.std() - bound / math.sqrt(3)) < 0.1 * bound
        assert list(layer.state_dict()) == ["weight", "bias"]

    @pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
    def test_padding_modes_are_those_of_numpy(self, mode: str) -> None:
        layer = nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode=mode).double()
        x = sample(2, 2, 5, 4)
        names = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
        padded = np.pad(x, [(0, 0), (0, 0), (2, 2), (1, 1)], names[mode])  # type: ignore[call-overload]
        want = ref.conv(padded, layer.weight.detach().numpy(), layer.bias.detach().numpy())
        np.testing.assert_allclose(layer(wg.tensor(x)).detach().numpy(), want, rtol=1e-12, atol=1e-12)

    def test_reprs_are_those_of_pytorch(self) -> None:
        expected = {
            "Conv2d(1, 32, kernel_size=(3, 3), stride=(1, 1))": nn.Conv2d(1, 32, 3),
            "Conv1d(4, 8, kernel_size=(3,), stride=(2,), padding=(1,), dilation=(2,), groups=2, bias=False)": nn.Conv1d(
                4, 8, 3, 2, 1, 2, 2, bias=False
            ),
            "Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=same, padding_mode=reflect)": nn.Conv2d(
                4, 8, 3, padding="same", padding_mode="reflect"
            ),
            "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)": nn.MaxPool2d(2),
            "AvgPool2d(kernel_size=2, stride=2, padding=0)": nn.AvgPool2d(2),
            "AvgPool1d(kernel_size=(2,), stride=(2,), padding=(0,))": nn.AvgPool1d(2),
            "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)": nn.BatchNorm2d(3),
        }
        for text, layer in expected.items():
            assert repr(layer) == text

    def test_batch_norm_keeps_statistics_of_channels(self) -> None:
        layer = nn.BatchNorm2d(3).double()
        x = sample(4, 3, 5, 2)
        y = layer(wg.tensor(x)).detach().numpy()
        mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * mean.ravel(), rtol=1e-12)
        with pytest.raises(wg.ShapeError, match=r"BatchNorm2d: input \(4, 3\) must have the axes \(N, C, H, W\)"):
            layer(wg.ones((4, 3)))
        assert nn.BatchNorm2d(3, bias=False).bias is None

    def test_a_network_trains(self) -> None:
        wg.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
        x = wg.tensor(sample(16, 1, 8, 8), dtype=wg.float32)
        y = (x[:, 0, :4].mean(axis=(1, 2)) > x[:, 0, 4:].mean(axis=(1, 2))).astype(wg.int64)
        optimizer = wg.optim.Adam(net.parameters(), lr=0.02)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.1 * losses[0]
