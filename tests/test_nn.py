"""Modules: registration, walking, modes, state, hooks, repr; containers; initial values; layers with state."""

from __future__ import annotations

import copy
import math
import pickle
import weakref
from typing import Any

import numpy as np
import pytest

import references as ref
import wengert as wg
import wengert.nn.functional as F
from wengert import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.scale = nn.Parameter(wg.ones((4,)))
        self.register_buffer("seen", wg.zeros(()))
        self.register_buffer("scratch", wg.zeros((2,)), persistent=False)
        self.rest = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Sequential(nn.ReLU(), nn.Linear(4, 2))])
        self.nothing: nn.Module | None = None

    def forward(self, x: wg.Tensor) -> Any:
        return self.rest[1](self.rest[0](self.first(x) * self.scale))


NAMES = ["scale", "first.weight", "first.bias", "rest.0.weight", "rest.1.1.weight", "rest.1.1.bias"]


class TestRegistration:
    def test_parameters_modules_and_buffers_are_listed(self) -> None:
        net = Net()
        assert [name for name, _ in net.named_parameters()] == NAMES
        assert [name for name, _ in net.named_buffers()] == ["seen", "scratch"]
        assert [name for name, _ in net.named_modules()] == [
            "", "first", "rest", "rest.0", "rest.1", "rest.1.0", "rest.1.1",
        ]  # fmt: skip
        assert [name for name, _ in net.named_children()] == ["first", "rest"]
        assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in net.parameters())

    def test_plain_attribute_access(self) -> None:
        net = Net()
        assert net.__dict__["scale"] is net.scale is dict(net.named_parameters())["scale"]

    def test_reassignment_and_deletion(self) -> None:
        net = Net()
        other = nn.Parameter(wg.zeros((4,)))
        net.scale = other
        assert dict(net.named_parameters())["scale"] is other
        with pytest.raises(TypeError, match="scale is a parameter"):
            net.scale = wg.zeros((4,))
        with pytest.raises(TypeError, match="first is a module"):
            net.first = 3
        net.scale = None
        assert "scale" not in dict(net.named_parameters())
        assert net.scale is None
        net.scale = nn.Parameter(wg.ones((4,)))
        del net.scale
        assert not hasattr(net, "scale")
        assert "scale" not in dict(net.named_parameters())
        net.scale = 3.0
        assert net.scale == 3.0
        with pytest.raises(AttributeError):
            del net.absent

    def test_a_name_changes_its_kind(self) -> None:
        net = Net()
        net.seen = wg.ones(())
        assert net.state_dict()["seen"].item() == 1.0
        net.first = nn.Parameter(wg.ones((1,)))
        assert "first" not in dict(net.named_children())
        assert "first" in dict(net.named_parameters())
        net.seen = nn.Identity()
        assert "seen" not in dict(net.named_buffers())

    def test_none_is_listed_nowhere_and_reserved(self) -> None:
        net = Net()
        net.register_parameter("maybe", None)
        net.register_buffer("later", None)
        assert net.maybe is None
        assert "maybe" not in net.state_dict()
        net.later = wg.ones((2,))
        assert net.state_dict()["later"].shape == (2,)

    def test_wrong_names_and_kinds(self) -> None:
        net = Net()
        for name in ("", "a.b", "scale"):
            with pytest.raises(KeyError):
                net.register_buffer(name, wg.zeros(()))
        with pytest.raises(KeyError):
            net.register_parameter("first", nn.Parameter(wg.zeros(())))
        with pytest.raises(TypeError):
            net.register_parameter("p", wg.zeros(()))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            net.register_buffer("b", 3)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            net.add_module("m", wg.zeros(()))  # type: ignore[arg-type]

    def test_before_init(self) -> None:
        class Early(nn.Module):
            def __init__(self) -> None:
                self.layer = nn.Linear(1, 1)

        with pytest.raises(AttributeError, match=r"super\(\)\.__init__"):
            Early()

    def test_shared_members_are_listed_once(self) -> None:
        shared = nn.Linear(2, 2)
        net = nn.Sequential(shared, nn.ReLU(), shared)
        assert len(list(net.parameters())) == 2
        assert len(list(net.modules())) == 3
        assert len(list(net.named_parameters(remove_duplicate=False))) == 4
        assert sorted(net.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]

    def test_lookups(self) -> None:
        net = Net()
        assert net.get_submodule("") is net
        assert net.get_submodule("rest.1.1") is net.rest[1][1]
        assert net.get_parameter("first.weight") is net.first.weight
        assert net.get_buffer("seen") is net.seen
        for call in (net.get_submodule, net.get_parameter, net.get_buffer):
            with pytest.raises(AttributeError, match="absent"):
                call("first.absent")

    def test_forward_is_demanded(self) -> None:
        with pytest.raises(NotImplementedError, match="Module"):
            nn.Module()(1)


class TestModes:
    def test_train_and_eval(self) -> None:
        net = Net()
        assert all(m.training for m in net.modules())
        assert net.eval() is net
        assert not any(m.training for m in net.modules())
        assert net.train() is net
        assert all(m.training for m in net.modules())
        with pytest.raises(ValueError, match="mode"):
            net.train(1)  # type: ignore[arg-type]

    def test_requires_grad_and_zero_grad(self) -> None:
        net = Net()
        net(wg.ones((2, 3))).sum().backward()
        assert all(p.grad is not None for p in net.parameters())
        net.zero_grad(set_to_none=False)
        assert all(not p.grad.abs().sum().item() for p in net.parameters())
        net.zero_grad()
        assert all(p.grad is None for p in net.parameters())
        net.requires_grad_(False)
        assert not any(p.requires_grad for p in net.parameters())

    def test_dtype_changes_keep_the_parameters(self) -> None:
        net = Net()
        before = list(net.parameters())
        net(wg.ones((2, 3))).sum().backward()
        assert net.double() is net
        assert all(p is q for p, q in zip(before, net.parameters(), strict=True))
        assert {p.dtype for p in net.parameters()} == {wg.float64}
        assert all(p.requires_grad and p.grad.dtype == wg.float64 for p in net.parameters())
        assert net.seen.dtype == wg.float64
        assert net(wg.ones((2, 3), dtype=wg.float64)).dtype == wg.float64
        assert net.float().first.weight.dtype == wg.float32
        with pytest.raises(wg.DTypeError):
            net.to(wg.int64)
        assert nn.BatchNorm1d(2).double().num_batches_tracked.dtype == wg.int64
        assert net.cpu() is net

    def test_apply_visits_children_first(self) -> None:
        seen = []
        Net().apply(lambda m: seen.append(type(m).__name__))
        assert seen == ["Linear", "Linear", "ReLU", "Linear", "Sequential", "ModuleList", "Net"]


class TestState:
    def test_state_dict_is_a_snapshot_without_temporary_buffers(self) -> None:
        net = Net()
        state = net.state_dict()
        assert list(state) == ["scale", "seen", *NAMES[1:]]
        assert not any(t.requires_grad for t in state.values())
        with wg.no_grad():
            net.scale += 1.0
        assert state["scale"].tolist() == [1.0] * 4
        assert net.state_dict(keep_vars=True)["scale"] is net.scale
        assert next(iter(net.state_dict(prefix="net."))) == "net.scale"

    def test_load_round_trip(self) -> None:
        a, b = Net(), Net()
        before = list(b.parameters())
        assert b.load_state_dict(a.state_dict()) == ([], [])
        assert all(p is q for p, q in zip(before, b.parameters(), strict=True))
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert p.tolist() == q.tolist()

    def test_strict_load_lists_everything_and_loads_nothing(self) -> None:
        net = Net()
        state = {name: value * 0.0 + 7.0 for name, value in net.state_dict().items()}
        del state["first.bias"]
        state["more.weight"] = wg.ones((1,))
        state["rest.0.weight"] = wg.ones((4, 5))
        before = [p.tolist() for p in net.parameters()]
        with pytest.raises(RuntimeError) as caught:
            net.load_state_dict(state)
        for part in ("Net", "missing: first.bias", "unexpected: more.weight", "rest.0.weight is (4, 4)", "(4, 5)"):
            assert part in str(caught.value)
        assert [p.tolist() for p in net.parameters()] == before
        with pytest.raises(RuntimeError, match="size mismatch"):
            net.load_state_dict(state, strict=False)
        assert [p.tolist() for p in net.parameters()] == before
        del state["rest.0.weight"]
        keys = net.load_state_dict(state, strict=False)
        assert keys.missing_keys == ["first.bias", "rest.0.weight"]
        assert keys.unexpected_keys == ["more.weight"]
        assert net.scale.tolist() == [7.0] * 4

    def test_arrays_load(self) -> None:
        layer = nn.Linear(2, 1)
        layer.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": np.array([3.0])})
        assert layer.weight.tolist() == [[1.0, 2.0]]
        assert layer.weight.dtype == wg.float32

    def test_deepcopy_pickle_and_weakref(self) -> None:
        net = Net()
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert other.scale is not net.scale
            assert isinstance(other.scale, nn.Parameter)
            assert other.__dict__["scale"] is other._parameters["scale"]
            assert [p.tolist() for p in other.parameters()] == [p.tolist() for p in net.parameters()]
            with wg.no_grad():
                other.scale += 1.0
            assert net.scale.tolist() == [1.0] * 4
        assert weakref.ref(net)() is net


class TestHooks:
    def test_order_replacement_and_removal(self) -> None:
        layer, seen = nn.Identity(), []
        first = layer.register_forward_pre_hook(lambda m, args: seen.append("pre"))
        layer.register_forward_pre_hook(lambda m, args: (args[0] + 1.0,), prepend=True)
        layer.register_forward_hook(lambda m, args, out: out * 10.0)
        last = layer.register_forward_hook(lambda m, args, kwargs, out: seen.append(kwargs), with_kwargs=True)
        assert layer(wg.tensor(1.0)).item() == 20.0
        assert seen == ["pre", {}]
        first.remove()
        first.remove()
        with last:
            pass
        assert layer(wg.tensor(1.0)).item() == 20.0
        assert seen == ["pre", {}]

    def test_keyword_arguments(self) -> None:
        class Add(nn.Module):
            def forward(self, x: float, *, y: float) -> float:
                return x + y

        module = Add()
        module.register_forward_pre_hook(lambda m, args, kwargs: (args, {"y": 10.0}), with_kwargs=True)
        assert module(1.0, y=2.0) == 11.0
        module.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
        with pytest.raises(TypeError, match="hook"):
            module(1.0, y=2.0)


class TestCalls:
    def test_a_subclass_of_a_layer_may_take_other_arguments(self) -> None:
        class Gated(nn.Linear):
            def forward(self, x: wg.Tensor, gate: float, *, shift: float = 0.0) -> wg.Tensor:  # type: ignore[override]
                return super().forward(x) * gate + shift

        layer = Gated(2, 2)
        assert layer(wg.ones((2,)), 0.0, shift=3.0).tolist() == [3.0, 3.0]

        class Twice(nn.Sequential):
            def forward(self, x: wg.Tensor) -> Any:
                return super().forward(super().forward(x))

        assert Twice(nn.Identity())(wg.ones(())).item() == 1.0

    def test_a_subclass_of_a_loss_may_take_other_arguments(self) -> None:
        class Scaled(nn.MSELoss):
            def forward(self, input: wg.Tensor, target: wg.Tensor, scale: float, *, shift: float = 0.0) -> wg.Tensor:  # type: ignore[override]
                return super().forward(input, target) * scale + shift

        assert Scaled()(wg.ones((2,)), wg.zeros((2,)), 2.0, shift=3.0).item() == 5.0

    def test_losses_take_their_arguments_by_name_and_run_hooks(self) -> None:
        seen = []
        loss = nn.MSELoss()
        loss.register_forward_pre_hook(lambda module, args: seen.append((module, len(args))))
        loss.register_forward_hook(lambda module, args, output: output + 1)
        assert loss(target=wg.zeros((2,)), input=wg.ones((2,))).item() == 2.0
        assert seen == [(loss, 2)]

    def test_layers_take_their_input_by_name_and_run_hooks(self) -> None:
        layer = nn.ReLU()
        layer.register_forward_hook(lambda m, args, out: out + float(len(args)))
        assert layer(input=wg.tensor(-1.0)).item() == 1.0
        with pytest.raises(TypeError):
            layer()


class TestContainers:
    def test_sequential(self) -> None:
        net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        assert len(net) == 3
        assert isinstance(net[-1], nn.Linear)
        assert isinstance(net[:2], nn.Sequential)
        assert len(net[:2]) == 2
        assert net[:2][0] is net[0]
        net.insert(1, nn.Tanh())
        assert [type(m).__name__ for m in net] == ["Linear", "Tanh", "ReLU", "Linear"]
        del net[1]
        assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
        net[1] = nn.GELU()
        assert isinstance(net[1], nn.GELU)
        net.append(nn.Identity()).extend([nn.Identity()])
        assert len(net) == 5
        assert isinstance(net.pop(4), nn.Identity)
        for bad in (7, -8):
            with pytest.raises(IndexError):
                net[bad]
        named = nn.Sequential({"a": nn.Linear(1, 1), "b": nn.ReLU()})
        assert list(named.state_dict()) == ["a.weight", "a.bias"]
        assert isinstance(named[1], nn.ReLU)
        assert list(named[1:]._modules) == ["b"]

    def test_module_list(self) -> None:
        layers = nn.ModuleList([nn.Linear(1, 1)])
        layers += [nn.Linear(1, 1)]
        assert len(layers) == 2
        assert layers[1] in layers
        assert isinstance(layers[:1], nn.ModuleList)
        with pytest.raises(NotImplementedError):
            layers(1)

    def test_module_dict(self) -> None:
        heads = nn.ModuleDict({"a": nn.Linear(1, 1)})
        heads["b"] = nn.ReLU()
        heads.update([("c", nn.Tanh())])
        assert list(heads) == list(heads.keys()) == ["a", "b", "c"]
        assert isinstance(heads.pop("b"), nn.ReLU)
        del heads["c"]
        assert "a" in heads
        with pytest.raises(KeyError):
            del heads["z"]
        heads.clear()
        assert len(heads) == 0

    def test_repr(self) -> None:
        assert repr(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Dropout(0.25)))) == (
            "Sequential(\n"
            "  (0): Linear(in_features=2, out_features=3, bias=True)\n"
            "  (1): Sequential(\n"
            "    (0): Dropout(p=0.25)\n"
            "  )\n"
            ")"
        )
        assert repr(nn.BatchNorm1d(3)) == (
            "BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"
        )
        assert repr(nn.Parameter(wg.zeros((1,)))).startswith("Parameter containing:\n")


class TestInit:
    def test_gains(self) -> None:
        assert nn.init.calculate_gain("relu") == math.sqrt(2)
        assert nn.init.calculate_gain("tanh") == 5 / 3
        assert nn.init.calculate_gain("leaky_relu", 3) == math.sqrt(0.2)
        assert nn.init.calculate_gain("leaky_relu") == math.sqrt(2 / (1 + 0.01**2))
        for bad in (("swish", None), ("leaky_relu", True)):
            with pytest.raises(ValueError, match="calculate_gain"):
                nn.init.calculate_gain(*bad)

    @pytest.mark.parametrize(
        ("fill", "low", "high"),
        [
            (nn.init.xavier_uniform_, *(s * math.sqrt(6 / 300) for s in (-1, 1))),
            (lambda t: nn.init.kaiming_uniform_(t, a=math.sqrt(5)), *(s / math.sqrt(200) for s in (-1, 1))),
            (
                lambda t: nn.init.kaiming_uniform_(t, mode="fan_out", nonlinearity="relu"),
                *(s * math.sqrt(6 / 100) for s in (-1, 1)),
            ),
            (lambda t: nn.init.uniform_(t, 2.0, 3.0), 2.0, 3.0),
        ],
    )
    def test_uniform(self, fill: Any, low: float, high: float) -> None:
        wg.manual_seed(0)
        a = fill(wg.zeros((100, 200), dtype=wg.float64)).numpy()
        assert low <= a.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < a.max() <= high
        assert abs(a.mean() - (low + high) / 2) < 0.02 * (high - low)
        assert abs(a.std() / ((high - low) / math.sqrt(12)) - 1) < 0.02

    @pytest.mark.parametrize(
        ("fill", "mean", "std"),
        [
            (nn.init.xavier_normal_, 0.0, math.sqrt(2 / 300)),
            (lambda t: nn.init.kaiming_normal_(t, nonlinearity="relu"), 0.0, math.sqrt(2 / 200)),
            (lambda t: nn.init.normal_(t, 1.0, 0.5), 1.0, 0.5),
        ],
    )
    def test_normal(self, fill: Any, mean: float, std: float) -> None:
        wg.manual_seed(0)
        a = fill(wg.zeros((100, 200), dtype=wg.float64)).numpy()
        assert abs(a.mean() - mean) < 4 * std / math.sqrt(a.size)
        assert abs(a.std() / std - 1) < 0.02
        assert abs((((a - mean) / std) ** 4).mean() - 3) < 0.2

    def test_linear_starts_between_its_bounds(self) -> None:
        wg.manual_seed(0)
        layer = nn.Linear(100, 50)
        for p in layer.parameters():
            assert 0.08 < p.abs().max().item() <= 0.1

    def test_refusals(self) -> None:
        for fill in (nn.init.xavier_uniform_, nn.init.kaiming_normal_):
            with pytest.raises(wg.ShapeError, match="two axes"):
                fill(wg.zeros((3,)))
        with pytest.raises(ValueError, match="mode"):
            nn.init.kaiming_uniform_(wg.zeros((3, 3)), mode="fan")  # type: ignore[arg-type]
        nn.init.kaiming_uniform_(wg.zeros((0, 0)))


class TestBatchNorm:
    @pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5)])
    def test_training_and_running_statistics(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        layer = nn.BatchNorm1d(3, momentum=0.3).double()
        mean, var, axes = np.zeros(3), np.ones(3), (0, *range(2, len(shape)))
        for n in range(1, 4):
            x = rng.normal(2.0, 3.0, shape)
            want = ref.batch_norm_training(x, np.ones(3), np.zeros(3), 1e-5)
            np.testing.assert_allclose(layer(wg.tensor(x)).numpy(), want, rtol=1e-10, atol=1e-12)
            mean = 0.7 * mean + 0.3 * x.mean(axes)
            var = 0.7 * var + 0.3 * x.var(axes, ddof=1)
            np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
            np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-12)
            assert layer.num_batches_tracked.item() == n
        x = rng.normal(size=shape)
        want = ref.batch_norm(x, mean, var, np.ones(3), np.zeros(3), 1e-5)
        np.testing.assert_allclose(layer.eval()(wg.tensor(x)).numpy(), want, rtol=1e-10)
        assert layer.num_batches_tracked.item() == 3

    def test_cumulative_mean(self) -> None:
        layer = nn.BatchNorm1d(1, momentum=None)
        for batch in ([1.0, 3.0], [5.0, 7.0], [6.0, 8.0]):
            layer(wg.tensor(batch).reshape(2, 1))
        assert layer.running_mean.item() == pytest.approx(5.0)

    def test_statistics_carry_no_history(self) -> None:
        layer = nn.BatchNorm1d(2)
        layer(wg.ones((4, 2)).requires_grad_()).sum().backward()
        assert not layer.running_mean.requires_grad
        assert layer.weight.grad is not None

    def test_without_statistics_or_weights(self) -> None:
        layer = nn.BatchNorm1d(2, affine=False, track_running_stats=False)
        assert list(layer.state_dict()) == []
        x = wg.tensor([[0.0, 1.0], [2.0, 5.0]])
        assert layer.eval()(x).tolist() == layer.train()(x).tolist()

    def test_refusals(self) -> None:
        for shape in ((2,), (2, 2, 2, 2)):
            with pytest.raises(wg.ShapeError):
                nn.BatchNorm1d(2)(wg.ones(shape))
        with pytest.raises(wg.ShapeError):
            nn.BatchNorm1d(3)(wg.ones((4, 2)))
        with pytest.raises(wg.ShapeError):
            nn.BatchNorm1d(3)(wg.ones((1, 3)))
        nn.BatchNorm1d(3).eval()(wg.ones((1, 3)))


class TestDropout:
    def test_mask_scale_and_gradient(self) -> None:
        wg.manual_seed(0)
        x = wg.ones((100, 100)).requires_grad_()
        y = nn.Dropout(0.2)(x)
        y.sum().backward()
        values = y.numpy()
        assert set(np.unique(values)) == {np.float32(0.0), np.float32(1.25)}
        assert abs((values == 0).mean() - 0.2) < 0.02
        np.testing.assert_array_equal(x.grad.numpy(), values)

    def test_masks_differ_from_call_to_call_and_follow_the_seed(self) -> None:
        layer, x = nn.Dropout(0.5), wg.ones((64,))
        wg.manual_seed(3)
        first, second = layer(x).tolist(), layer(x).tolist()
        assert first != second
        wg.manual_seed(3)
        assert layer(x).tolist() == first

    def test_the_ends_and_evaluation(self) -> None:
        x = wg.tensor([1.0, 2.0])
        assert nn.Dropout(0.0)(x).tolist() == [1.0, 2.0]
        assert nn.Dropout(1.0)(x).tolist() == [0.0, 0.0]
        assert nn.Dropout(0.9).eval()(x).tolist() == [1.0, 2.0]
        for p in (-0.1, 1.1, math.nan):
            with pytest.raises(ValueError, match="probability"):
                nn.Dropout(p)


class TestLayers:
    def test_modules_equal_functions(self) -> None:
        wg.manual_seed(0)
        x, y = wg.randn((5, 3)), wg.rand((5, 3))
        pairs = [
            (nn.ReLU(), F.relu),
            (nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
            (nn.ELU(1.5), lambda x: F.elu(x, 1.5)),
            (nn.SiLU(), F.silu),
            (nn.Tanh(), F.tanh),
            (nn.Sigmoid(), F.sigmoid),
            (nn.GELU(), F.gelu),
            (nn.GELU("tanh"), lambda x: F.gelu(x, "tanh")),
            (nn.Softmax(1), lambda x: F.softmax(x, 1)),
            (nn.LogSoftmax(dim=0), lambda x: F.log_softmax(x, 0)),
            (nn.Flatten(0), lambda x: x.reshape(15)),
            (nn.Identity(1, two=2), lambda x: x),
            (nn.LayerNorm(3), lambda x: F.layer_norm(x, 3)),
        ]
        for module, function in pairs:
            assert module(x).tolist() == function(x).tolist(), module
        for module, function in [
            (nn.MSELoss(), F.mse_loss),
            (nn.L1Loss(), F.l1_loss),
            (nn.HuberLoss(), F.huber_loss),
            (nn.SmoothL1Loss(), F.smooth_l1_loss),
            (nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits),
        ]:
            assert module(x, y).item() == function(x, y).item(), module

    def test_settings_are_checked(self) -> None:
        for make in (
            lambda: nn.MSELoss(reduction="average"),  # type: ignore[arg-type]
            lambda: nn.CrossEntropyLoss(label_smoothing=1.5),
            lambda: nn.HuberLoss(delta=0.0),
            lambda: nn.SmoothL1Loss(beta=-1.0),
            lambda: nn.GELU("erf"),  # type: ignore[arg-type]
        ):
            with pytest.raises(ValueError, match="not"):
                make()

    def test_losses_demand_equal_shapes(self) -> None:
        for loss in (
            nn.MSELoss(),
            nn.L1Loss(),
            nn.HuberLoss(),
            nn.SmoothL1Loss(),
            nn.BCELoss(),
            nn.BCEWithLogitsLoss(),
        ):
            with pytest.raises(wg.ShapeError, match=r"\(4,\).*\(4, 1\)"):
                loss(wg.ones((4,)), wg.ones((4, 1)))

    def test_linear_without_bias_and_in_float64(self) -> None:
        layer = nn.Linear(3, 2, bias=False, dtype=wg.float64)
        assert layer.bias is None
        assert list(layer.state_dict()) == ["weight"]
        assert layer(wg.ones((3,), dtype=wg.float64)).shape == (2,)
        assert layer(wg.ones((3,))).dtype == wg.float64

    def test_class_weights_are_buffers(self) -> None:
        loss = nn.CrossEntropyLoss(wg.ones((3,)))
        assert list(loss.state_dict()) == ["weight"]
        assert nn.CrossEntropyLoss().weight is None


class TestClipping:
    @pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
    @pytest.mark.parametrize("bound", [0.5, 1000.0])
    def test_norm(self, norm: float, bound: float) -> None:
        ps = [nn.Parameter(wg.zeros((3,))), nn.Parameter(wg.zeros((2, 2))), nn.Parameter(wg.zeros((1,)))]
        gs = [np.array([1.0, -2.0, 3.0]), np.array([[4.0, 0.0], [0.0, -5.0]])]
        for p, g in zip(ps, gs, strict=False):
            p.grad = wg.tensor(g.astype("float32"))
        total = np.linalg.norm(np.concatenate([g.ravel() for g in gs]), norm)
        assert nn.utils.clip_grad_norm_(iter(ps), bound, norm).item() == pytest.approx(total)
        scale = min(1.0, bound / (total + 1e-6))
        for p, g in zip(ps, gs, strict=False):
            np.testing.assert_allclose(p.grad.numpy(), g * scale, rtol=1e-6)
        assert ps[2].grad is None

    def test_value_and_refusals(self) -> None:
        p = nn.Parameter(wg.zeros((2,)))
        p.grad = wg.tensor([5.0, -0.5])
        nn.utils.clip_grad_value_(p, 1.0)
        assert p.grad.tolist() == [1.0, -0.5]
        with pytest.raises(wg.UnsupportedError):
            nn.utils.clip_grad_norm_(p, 1.0, 3.0)
        with pytest.raises(ValueError, match="max_norm"):
            nn.utils.clip_grad_norm_(p, -1.0)
        p.grad = wg.tensor([math.inf, 0.0])
        with pytest.raises(RuntimeError, match="inf"):
            nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
        assert p.grad.tolist() == [math.inf, 0.0]


class TestClasses:
    @pytest.mark.parametrize("bad", [-1, 3])
    def test_a_known_target_must_be_a_class(self, bad: int) -> None:
        logits = wg.zeros((2, 3))
        with pytest.raises(IndexError, match=f"{bad} is no class"):
            F.cross_entropy(logits, wg.tensor([0, bad]))
        with pytest.raises(IndexError, match=f"{bad} is no class"):
            F.nll_loss(logits, wg.tensor([0, bad]))
        with pytest.raises(IndexError, match=f"{bad} is no class"):
            wg.one_hot(wg.tensor([0, bad]), 3)

    @pytest.mark.parametrize("bad", [-1, 3])
    def test_a_pending_target_must_be_a_class(self, bad: int) -> None:
        logits = nn.Parameter(wg.zeros((2, 3)))
        for loss in (F.cross_entropy, F.nll_loss):
            optimizer = wg.optim.SGD([logits], lr=1.0)
            loss(logits, wg.tensor([0, bad]) + 0).backward()
            with pytest.raises(IndexError, match="out of range"):
                optimizer.step()
            assert not logits.numpy().any()
            logits.grad = None
        with pytest.raises(IndexError, match="out of range"):
            wg.one_hot(wg.tensor([0, bad]) + 0, 3).numpy()

    def test_a_pending_target_gives_the_same_loss(self) -> None:
        logits, target = wg.randn((4, 3)), wg.tensor([0, 2, -100, 1])
        assert F.cross_entropy(logits, target + 0).item() == F.cross_entropy(logits, target).item()

    def test_the_ignored_index_is_let_through(self) -> None:
        loss = F.cross_entropy(wg.zeros((2, 3)), wg.tensor([0, -100]))
        assert loss.item() == pytest.approx(math.log(3.0))


@pytest.mark.parametrize("dtype", [wg.int64, wg.uint8, wg.bool])
def test_a_layer_names_the_dtype_of_each_operand(dtype: wg.DType) -> None:
    given = rf"input is {dtype.name}, weight is float32, bias is float32: all must be floats, "
    remedy = r"as input\.astype\(wg\.float32\) is"
    with pytest.raises(wg.DTypeError, match=f"linear: {given}{remedy}"):
        nn.Linear(2, 2)(wg.ones((2, 2), dtype=dtype))
    with pytest.raises(wg.DTypeError, match=f"conv2d: {given}{remedy}"):
        nn.Conv2d(2, 2, 1)(wg.ones((1, 2, 2, 2), dtype=dtype))
    x, k = wg.ones((2, 2)), wg.ones((2, 2), dtype=dtype)
    with pytest.raises(wg.DTypeError, match=rf"key is {dtype.name}, value is float32: .* key\.astype\(wg\.float32\)"):
        F.scaled_dot_product_attention(x, k, x)


def test_layers_promote_floats() -> None:
    single, double = wg.ones((1, 2, 2, 2)), wg.ones((1, 2, 2, 2), dtype=wg.float64)
    for x, y in ((single, double), (double, single)):
        assert F.linear(x, y[0, 0]).dtype == wg.float64
        assert F.conv2d(x, y).dtype == wg.float64
        assert F.scaled_dot_product_attention(x, y, x).dtype == wg.float64


def test_batch_norm_without_training_needs_both_statistics() -> None:
    x, given = wg.ones((3, 2)), wg.ones(2)
    for mean, var, missing in [
        (None, None, "running_mean and running_var are"),
        (None, given, "running_mean is"),
        (given, None, "running_var is"),
    ]:
        with pytest.raises(ValueError, match=f"batch_norm: {missing} missing"):
            F.batch_norm(x, mean, var)
        assert F.batch_norm(x, mean, var, training=True).tolist() == [[0.0, 0.0]] * 3
