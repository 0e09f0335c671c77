"""Where tensors are: names of devices, moves between them, and what follows a tensor to its device."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wengert as wg
from wengert import nn, optim

needs_gpu = pytest.mark.skipif(not wg.gpu.is_available(), reason="no GPU with a working driver")

VALUES: dict[str, Any] = {
    "float32": [1.5, -0.0, float("inf"), 3e-39, -7.25, 2.0],
    "int64": [2**62 + 1, -(2**63), 0, -1, 5, 2**32],
    "int32": [2**31 - 1, -(2**31), 0, -1, 5, 7],
    "uint8": [255, 0, 1, 128, 7, 9],
    "bool": [True, False, True, True, False, False],
}


def on(dtype: str, device: str = "gpu") -> wg.Tensor:
    return wg.tensor(VALUES[dtype], dtype=getattr(wg, dtype), device=device).reshape(6)


# Names.


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_other_names_for_gpus_are_told_the_name_here(name: str) -> None:
    with pytest.raises(wg.DeviceError, match='use "gpu"'):
        wg.zeros((2,), device=name)


@pytest.mark.parametrize("name", ["", "tpu", "cpu:1", "gpu:x", "GPU"])
def test_unknown_names_are_told_what_there_is(name: str) -> None:
    with pytest.raises(wg.DeviceError, match='use "cpu", "gpu"'):
        wg.zeros((2,), device=name)


def test_a_gpu_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(wg.DeviceError, match="gpu:200"):
        wg.zeros((2,), device="gpu:200")
    with pytest.raises(wg.DeviceError, match="gpu:200"):
        wg.ones((2,)).to("gpu:200")


def test_devices_are_values() -> None:
    device = wg.ones((2,)).device
    assert (str(device), repr(device), device.type, device.index) == ("cpu", "device('cpu')", "cpu", None)
    assert device == wg.Device("cpu")
    assert hash(device) == hash(wg.Device(device))
    gpu = wg.Device("gpu")
    assert (str(gpu), gpu.type, gpu.index) == ("gpu:0", "gpu", 0)
    assert gpu == wg.Device("gpu:0") != device
    assert wg.zeros((2,), device=device).device == device


def test_to_takes_a_device_a_dtype_or_both() -> None:
    x = wg.ones((2,))
    assert x.to(wg.int32).dtype == wg.int32
    assert x.to("cpu", wg.int64).dtype == wg.int64
    assert x.to(x.device).tolist() == x.cpu().tolist() == [1.0, 1.0]
    with pytest.raises(TypeError, match="one dtype"):
        x.to(wg.int32, wg.int64)


def test_on_the_cpu_a_move_keeps_the_history() -> None:
    w = wg.ones((2,), device="cpu")
    w.requires_grad_()
    (w.cpu() * w.to("cpu")).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [2.0, 2.0]


# Moves.


@needs_gpu
@pytest.mark.parametrize("dtype", VALUES)
def test_values_survive_the_way_there_and_back(dtype: str) -> None:
    x = on(dtype, "cpu")
    there = x.to("gpu")
    assert (str(there.device), there.dtype, there.shape) == ("gpu:0", x.dtype, (6,))
    assert there.nbytes == x.nbytes
    back = there.cpu()
    assert str(back.device) == "cpu"
    assert back.numpy().tobytes() == x.numpy().tobytes() == there.numpy().tobytes()
    assert there.tolist() == x.tolist()
    assert np.asarray(there).dtype == np.asarray(x).dtype


@needs_gpu
@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 7)])
def test_shapes_of_any_size_are_moved(dtype: str, shape: tuple[int, ...]) -> None:
    x = wg.ones(shape, dtype=getattr(wg, dtype))
    assert x.to("gpu").tolist() == x.tolist()


@needs_gpu
def test_strided_values_are_moved_in_their_order() -> None:
    x = wg.tensor(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    wg.eval(x)
    for window in (x[:, 1:], x[..., ::-2], wg.asarray(np.arange(12.0, dtype=np.float32).reshape(3, 4).T, copy=False)):
        assert window.to("gpu").tolist() == window.tolist()


@needs_gpu
@pytest.mark.parametrize(
    "data", [3.5, True, [1, 2], [[1.0], [2.0]], np.arange(4, dtype=np.int32), np.float32(2.0), [np.ones(2, np.float32)]]
)
def test_data_become_tensors_of_a_device(data: Any) -> None:
    there, here = wg.tensor(data, device="gpu"), wg.tensor(data)
    assert (str(there.device), there.dtype, there.tolist()) == ("gpu:0", here.dtype, here.tolist())
    assert str(wg.asarray(data, device="gpu").device) == "gpu:0"


@needs_gpu
def test_data_change_their_dtype_before_they_go() -> None:
    wide = np.array([1.5, 2.5])
    assert wg.tensor(wide, dtype=wg.float32, device="gpu").tolist() == [1.5, 2.5]
    assert wg.tensor(wg.tensor(wide), dtype=wg.float32, device="gpu").tolist() == [1.5, 2.5]
    assert wg.tensor(wide).to("gpu", wg.float32).to("cpu", wg.float64).dtype == wg.float64
    there = wg.tensor([1.5], device="gpu")
    assert wg.tensor(there, dtype=wg.float64, device="cpu").tolist() == [1.5]
    assert wg.tensor(there).device == there.device


@needs_gpu
def test_asarray_copies_only_to_another_device() -> None:
    there = wg.tensor([1.0], device="gpu")
    assert wg.asarray(there) is there
    assert wg.asarray(there, device="gpu") is there
    assert str(wg.asarray(there, device="cpu").device) == "cpu"
    with pytest.raises(ValueError, match="needs a copy"):
        wg.asarray(np.ones(2, np.float32), device="gpu", copy=False)


@needs_gpu
@pytest.mark.parametrize(
    "make",
    [
        lambda: wg.zeros((2,), dtype=wg.float64, device="gpu"),
        lambda: wg.tensor([1.0], dtype=wg.float64, device="gpu"),
        lambda: wg.tensor(np.ones(2), device="gpu"),
        lambda: wg.ones((2,), dtype=wg.float64).to("gpu"),
        lambda: wg.ones((2,), device="gpu").astype(wg.float64),
        lambda: wg.randn((2,), dtype=wg.float64, device="gpu"),
        lambda: nn.Linear(2, 1, dtype=wg.float64).to("gpu"),
    ],
)
def test_float64_is_refused_on_the_users_line(make: Callable[[], object]) -> None:
    with pytest.raises(wg.UnsupportedError, match=r"float64 is not supported on gpu:0.*test_devices\.py"):
        make()


@needs_gpu
def test_operands_on_two_devices_are_refused_on_the_users_line() -> None:
    here, there = wg.ones((2,)), wg.tensor([1.0, 2.0], device="gpu")
    with pytest.raises(wg.DeviceError, match=r"add: operands are on cpu and gpu:0.*x\.to\(\"gpu\"\).*test_devices\.py"):
        here + there
    with pytest.raises(wg.DeviceError, match="matmul"):
        there.reshape(1, 2) @ here.reshape(2, 1)
    with pytest.raises(wg.DeviceError, match="on gpu:0 and cpu"):
        nn.Linear(2, 1)(there)


@needs_gpu
def test_a_move_of_what_requires_a_gradient_is_refused() -> None:
    w = wg.ones((2,)).requires_grad_()
    for tensor in (w, w * 2.0):
        with pytest.raises(wg.GradError, match=r"x\.detach\(\)\.to\(\"gpu\"\)"):
            tensor.to("gpu")
    with wg.no_grad():
        moved = w.to("gpu")
    assert not moved.requires_grad
    assert moved.tolist() == [1.0, 1.0]
    assert wg.tensor([1.0], device="gpu", requires_grad=True).requires_grad


@needs_gpu
def test_copy_takes_values_from_any_device() -> None:
    here, there = wg.zeros((2,)), wg.tensor([1.0, 2.0], device="gpu")
    assert here.copy_(there).tolist() == [1.0, 2.0]
    there.copy_(wg.tensor([3.0, 4.0], requires_grad=True))
    assert (str(there.device), there.tolist(), there.requires_grad) == ("gpu:0", [3.0, 4.0], False)


@needs_gpu
def test_one_element_is_read() -> None:
    assert wg.tensor(2.5, device="gpu").item() == 2.5
    assert wg.tensor([2**40 + 1], device="gpu").item() == 2**40 + 1
    assert bool(wg.tensor(True, device="gpu")) is True
    assert float(wg.tensor(3, device="gpu")) == 3.0
    assert f"{wg.tensor(2.5, device='gpu'):.2f}" == "2.50"


@needs_gpu
def test_numpy_gets_a_copy_or_is_told_that_it_needs_one() -> None:
    there = wg.tensor([1.0, 2.0], device="gpu")
    assert np.asarray(there).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="needs a copy"):
        there.__array__(copy=False)


@needs_gpu
def test_print_says_where() -> None:
    assert repr(wg.tensor([1.0, 2.0], device="gpu")) == "tensor([1., 2.], device='gpu:0')"


@needs_gpu
def test_files_keep_values_and_not_places(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    wg.save({dtype: on(dtype) for dtype in VALUES}, path)
    for device in ("cpu", "gpu"):
        loaded = wg.load(path, device=device)
        assert all(loaded[dtype].device == wg.Device(device) for dtype in VALUES)
        assert all(loaded[dtype].tolist() == on(dtype, "cpu").tolist() for dtype in VALUES)
    assert str(wg.load(path)["bool"].device) == "cpu"


@needs_gpu
def test_copies_and_pickles_stay_on_the_device() -> None:
    x = wg.tensor([1.0, 2.0], device="gpu", requires_grad=True)
    for made in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert (str(made.device), made.tolist(), made.requires_grad) == ("gpu:0", [1.0, 2.0], True)


# Modules and optimizers.


@needs_gpu
def test_a_module_moves_its_parameters_buffers_and_gradients_in_place() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    module(wg.ones((4, 3))).sum().backward()
    parameters = list(module.parameters())
    before = {name: value.tolist() for name, value in module.state_dict().items()}
    gradients = [parameter.grad.tolist() for parameter in parameters if parameter.grad is not None]
    assert module.to("gpu") is module
    assert [id(p) for p in module.parameters()] == [id(p) for p in parameters]
    assert all(p.requires_grad and str(p.device) == "gpu:0" for p in parameters)
    assert all(str(buffer.device) == "gpu:0" for buffer in module.buffers())
    assert {name: value.tolist() for name, value in module.state_dict().items()} == before
    assert [p.grad.tolist() for p in parameters if p.grad is not None] == gradients
    assert all(p.grad is not None and str(p.grad.device) == "gpu:0" for p in parameters)
    module.cpu()
    assert {str(value.device) for value in module.state_dict().values()} == {"cpu"}
    assert {name: value.tolist() for name, value in module.state_dict().items()} == before


@needs_gpu
def test_a_module_moves_and_converts_in_one_call() -> None:
    module = nn.BatchNorm1d(2, dtype=wg.float64)
    module.to("gpu", wg.float32)
    assert module.weight is not None
    assert module.weight.dtype == wg.float32
    assert module.num_batches_tracked is not None
    assert module.num_batches_tracked.dtype == wg.int64
    with pytest.raises(wg.DTypeError, match="parameters are floats"):
        module.to("cpu", wg.int32)


@needs_gpu
def test_a_state_dict_is_loaded_to_where_the_module_is() -> None:
    module, other = nn.Linear(2, 1).to("gpu"), nn.Linear(2, 1)
    module.load_state_dict(other.state_dict())
    assert str(module.weight.device) == "gpu:0"
    assert module.weight.tolist() == other.weight.tolist()


@needs_gpu
def test_a_gradient_is_where_its_variable_is() -> None:
    w = wg.ones((2,)).requires_grad_()
    with pytest.raises(wg.DeviceError, match="the variable is on cpu and the value on gpu:0"):
        w.grad = wg.tensor([1.0, 1.0], device="gpu")


@needs_gpu
def test_loaded_optimizer_state_goes_to_the_parameters() -> None:
    here = nn.Linear(2, 1)
    optimizer = optim.Adam(here.parameters())
    here(wg.ones((1, 2))).sum().backward()
    optimizer.step()
    there = nn.Linear(2, 1).to("gpu")
    other = optim.Adam(there.parameters())
    other.load_state_dict(optimizer.state_dict())
    state = other.state[there.weight]
    moment = state["exp_avg"]
    assert isinstance(moment, wg.Tensor)
    assert str(moment.device) == "gpu:0"
    expected = optimizer.state[here.weight]["exp_avg"]
    assert isinstance(expected, wg.Tensor)
    assert moment.tolist() == expected.tolist()


# Training.


class Attention(nn.Module):
    """Token embeddings, one causal head beside the residual, and scores for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 12)
        self.norm = nn.LayerNorm(12)
        self.heads = nn.Linear(12, 36)
        self.out = nn.Linear(12, 11)

    def forward(self, tokens: wg.Tensor) -> wg.Tensor:
        x = self.embedding(tokens)
        query, key, value = wg.split(self.heads(self.norm(x)), 3, axis=-1)
        x = x + nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(x).reshape(-1, 11)


def plane_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 2 * 2, 11),
    )


def line_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 6, 5, dilation=2, stride=2),
        nn.Tanh(),
        nn.Conv1d(6, 6, 3, groups=6),
        nn.AdaptiveAvgPool1d(4),
        nn.Flatten(),
        nn.Linear(24, 11),
    )


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "planes": (plane_net, (3, 4, 16, 16)),
    "lines": (line_net, (3, 4, 40)),
    "attention": (Attention, (3, 20)),
}


def trained(net: str, device: str, compiled: bool) -> tuple[list[float], list[Any]]:
    make, shape = NETS[net]
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape).astype(np.float32) if len(shape) > 2 else rng.integers(0, 11, shape)
    y = rng.integers(0, 11, shape[:1] if len(shape) > 2 else (60,))
    wg.manual_seed(5)
    model = make()
    model.to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, labels = wg.tensor(x, device=device), wg.tensor(y, device=device)

    def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    call = wg.compile(step) if compiled else step
    losses = [call(images, labels).item() for _ in range(5)]
    return losses, [parameter.tolist() for parameter in model.parameters()]


@needs_gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("net", NETS)
def test_nets_train_alike_on_both(net: str, compiled: bool) -> None:
    losses, parameters = trained(net, "gpu", compiled)
    want, expected = trained(net, "cpu", compiled)
    assert want[-1] < want[0]
    np.testing.assert_allclose(losses, want, rtol=1e-5)
    for got, value in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-5)
