"""What comes in is copied, what goes out cannot be written; and numbers of the wrong kind are refused."""

from __future__ import annotations

import array
import copy
import pickle

import numpy as np
import pytest

import wengert as wg


def test_data_is_copied_in() -> None:
    source = np.array([1.0, 2.0], dtype=np.float32)
    tensors = [wg.tensor(source), wg.asarray(source), wg.from_numpy(source)]
    derived = [t * 2.0 for t in tensors]
    source[:] = 9.0
    assert all(t.tolist() == [1.0, 2.0] for t in tensors)
    assert all(t.tolist() == [2.0, 4.0] for t in derived)


def test_sharing_is_only_on_request() -> None:
    source = np.array([1.0, 2.0], dtype=np.float32)
    shared = wg.from_numpy(source, copy=False)
    source[0] = 5.0
    assert shared.tolist() == [5.0, 2.0]


def test_numpy_gives_a_read_only_view() -> None:
    x = wg.tensor([1.0, 2.0])
    view = x.numpy()
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 5.0
    assert np.shares_memory(view, x.numpy())


def test_an_exported_buffer_is_never_overwritten() -> None:
    w = wg.tensor([1.0, 2.0]).requires_grad_()
    optimizer = wg.optim.SGD([w], lr=1.0)
    seen = []
    for _ in range(3):
        seen.append(w.detach().numpy())
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()
    assert [view.tolist() for view in seen] == [[1.0, 2.0], [0.0, 1.0], [-1.0, 0.0]]


def test_the_array_outlives_the_tensor() -> None:
    view = (wg.ones((1000,)) * 3.0).numpy()
    wg.eval(*(wg.ones((1000,)) * float(i) for i in range(20)))
    assert view.tolist() == [3.0] * 1000


def test_strided_values_come_out_right() -> None:
    x = wg.tensor(np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(x.T[::-1, 1:].numpy(), np.arange(12.0).reshape(3, 4).T[::-1, 1:])
    np.testing.assert_array_equal(np.asarray(x), np.arange(12.0).reshape(3, 4))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "bool"])
def test_dtypes_cross_unchanged(dtype: str) -> None:
    a = np.array([[0, 1], [1, 0]]).astype(dtype)
    x = wg.tensor(a)
    assert x.dtype == getattr(wg, dtype)
    assert x.numpy().dtype == a.dtype
    np.testing.assert_array_equal(x.numpy(), a)


def test_defaults_of_python_numbers() -> None:
    assert wg.tensor(1.5).dtype == wg.float32
    assert wg.tensor(1).dtype == wg.int64
    assert wg.tensor(True).dtype == wg.bool
    assert wg.tensor([1, 2.5]).dtype == wg.float32
    assert wg.tensor([[True], [False]]).dtype == wg.bool
    assert wg.tensor([]).shape == (0,)


def test_other_buffers() -> None:
    assert wg.tensor(array.array("d", [1.0, 2.0])).dtype == wg.float64
    assert wg.tensor(array.array("q", [1, 2])).tolist() == [1, 2]
    view = memoryview(array.array("f", range(6))).cast("B").cast("f", (2, 3))
    assert wg.tensor(view).tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_strided_and_byte_swapped_arrays() -> None:
    a = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(wg.tensor(a.T[::2]).numpy(), a.T[::2])
    np.testing.assert_array_equal(wg.tensor(a[:, ::-1]).numpy(), a[:, ::-1])
    with pytest.raises(wg.WengertError):
        wg.tensor(a.astype(">f8"))


def test_unheld_dtypes_say_so() -> None:
    for dtype in ("complex64", "float16", "uint16"):
        with pytest.raises(wg.DTypeError, match=dtype):
            wg.tensor(np.zeros(2, dtype))


@pytest.mark.parametrize("data", [[[1.0], [1.0, 2.0]], ["a"], [1.0, None], {"a": 1}, [[1.0], 2.0]])
def test_what_is_no_array_is_refused(data: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        wg.tensor(data)


def test_reads() -> None:
    assert wg.tensor(2.5).item() == 2.5
    assert float(wg.tensor([2.5])) == 2.5
    assert int(wg.tensor(7)) == 7
    assert isinstance(wg.tensor(7).item(), int)
    assert wg.tensor(True).item() is True
    assert bool(wg.tensor([0.0])) is False
    assert [1, 2, 3][wg.tensor(1)] == 2
    assert f"{wg.tensor(0.5):.2f}" == "0.50"
    assert len(wg.ones((3, 2))) == 3
    for read in (bool, float, lambda t: t.item()):
        with pytest.raises(ValueError, match="2"):
            read(wg.ones((2,)))
    with pytest.raises(TypeError):
        len(wg.tensor(1.0))


def test_int64_is_exact() -> None:
    for value in (2**53 + 1, -(2**63), 2**63 - 1):
        assert wg.tensor([value]).tolist() == [value]
    with pytest.raises((OverflowError, ValueError)):
        wg.tensor([2**63])


def test_numpy_on_the_left() -> None:
    a, x = np.array([1.0, 2.0]), wg.tensor([3.0, 4.0], dtype=wg.float64)
    with pytest.raises(TypeError):
        a + x
    assert (np.float64(2.0) * x).tolist() == [6.0, 8.0] if isinstance(np.float64(2.0) * x, wg.Tensor) else True


def test_iteration_stops() -> None:
    assert [row.tolist() for row in wg.tensor([[1.0], [2.0]])] == [[1.0], [2.0]]


def test_truth_of_comparisons_and_hash_by_identity() -> None:
    x = wg.tensor([1.0, 2.0])
    assert (x == x).tolist() == [True, True]
    assert {x: 1}[x] == 1
    assert hash(x) != hash(x.clone())


def test_pickle_and_deepcopy() -> None:
    x = wg.tensor([[1.0, 2.0]])
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert y is not x
        assert (y.dtype, y.shape, y.tolist()) == (x.dtype, x.shape, x.tolist())
    assert pickle.loads(pickle.dumps(wg.float64)) == wg.float64
