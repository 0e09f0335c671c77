"""Saving and loading: round trips, other readers' view of the file, and files that are not what they should be."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wengert as wg
from wengert import nn, optim


def header(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def write(path: Path, head: dict[str, Any] | bytes, body: bytes = b"") -> None:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3, 4)])
def test_a_flat_dict_comes_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    a = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    wg.save({"a.b": wg.tensor(a)}, tmp_path / "f")
    loaded = wg.load(tmp_path / "f")
    assert list(loaded) == ["a.b"]
    assert loaded["a.b"].dtype == getattr(wg, dtype)
    np.testing.assert_array_equal(loaded["a.b"].numpy(), a)


def test_special_values_and_strides(tmp_path: Path) -> None:
    x = wg.tensor([[0.0, -0.0, math.inf], [-math.inf, math.nan, 1e-45]])
    wg.save({"x": x.T, "part": x[:, ::2], "expression": x * 1.0}, tmp_path / "f")
    loaded = wg.load(tmp_path / "f")
    for name, want in {"x": x.T, "part": x[:, ::2], "expression": x}.items():
        assert loaded[name].numpy().tobytes() == np.ascontiguousarray(want.numpy()).tobytes()


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    model(wg.ones((4, 3))).sum().backward()
    optimizer.step()
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": [0.5, None, True, "text", (1, 2)],
        "limits": {"low": -math.inf, "tiny": 5e-324, "big": 2**80},
        "empty": {},
    }
    wg.save(saved, tmp_path / "f")
    loaded = wg.load(tmp_path / "f")
    assert list(loaded) == list(saved)
    for key in ("epoch", "best", "limits", "empty"):
        assert loaded[key] == saved[key]
        assert type(loaded[key]) is type(saved[key])
    fresh = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    fresh.load_state_dict(loaded["model"])
    again = optim.Adam(fresh.parameters())
    again.load_state_dict(loaded["optimizer"])
    assert again.param_groups[0]["lr"] == 1e-2
    assert again.param_groups[0]["betas"] == (0.9, 0.999)
    for net, opt in ((model, optimizer), (fresh, again)):
        opt.zero_grad()
        net(wg.ones((4, 3))).sum().backward()
        opt.step()
    for p, q in zip(model.parameters(), fresh.parameters(), strict=True):
        assert p.tolist() == q.tolist()


def test_other_readers_see_tensors_by_their_paths(tmp_path: Path) -> None:
    wg.save({"model": {"w": wg.ones((2, 3))}, "n": 1}, tmp_path / "f")
    head = header(tmp_path / "f")
    assert set(head) == {"__metadata__", "model.w"}
    assert (head["model.w"]["dtype"], head["model.w"]["shape"]) == ("F32", [2, 3])
    wg.save({"w": wg.ones((2, 3))}, tmp_path / "f")
    assert header(tmp_path / "f")["__metadata__"] == {"format": "wengert"}


def test_foreign_files_load_flat(tmp_path: Path) -> None:
    body = np.arange(4, dtype="<f4").tobytes()
    write(tmp_path / "f", {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, body)
    assert wg.load(tmp_path / "f")["a"].tolist() == [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("obj", "error", "text"),
    [
        ([1], TypeError, "list"),
        ({"a": {1, 2}}, TypeError, "a is set"),
        ({"a": {1.5: 2}}, TypeError, "1.5"),
        ({"a.b": wg.ones((1,)), "a": {"b": wg.ones((1,))}}, ValueError, "'a.b'"),
        ({"f": nn.Linear(1, 1)}, TypeError, "Linear"),
    ],
)
def test_what_cannot_be_saved_leaves_the_file(tmp_path: Path, obj: Any, error: type[Exception], text: str) -> None:
    path = tmp_path / "f"
    wg.save({"x": wg.ones((1,))}, path)
    before = path.read_bytes()
    with pytest.raises(error, match=text):
        wg.save(obj, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_failing_value_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    wg.save({"x": wg.ones((1,))}, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="testing_op"):
        wg.save({"x": wg._core.testing_op(wg.ones((1,)), "fail")}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_no_such_file_or_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        wg.load(tmp_path / "absent")
    with pytest.raises(OSError, match="absent"):
        wg.save({"x": wg.ones((1,))}, tmp_path / "absent" / "f")


def test_every_truncation_is_a_format_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    wg.save({"model": {"w": wg.ones((2, 3))}, "n": 1}, path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(wg.FormatError):
            wg.load(path)


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HOSTILE: dict[str, Any] = {
    "no object": b"[]",
    "no json": b"{",
    "not utf-8": b'{"\xff": 1}',
    "unknown dtype": {"a": {**ENTRY, "dtype": "F31"}},
    "negative shape": {"a": {**ENTRY, "shape": [-1]}},
    "huge shape": {"a": {**ENTRY, "shape": [2**62, 2**62]}},
    "offsets beyond the end": {"a": {**ENTRY, "data_offsets": [0, 8]}},
    "offsets reversed": {"a": {**ENTRY, "data_offsets": [4, 0]}},
    "size and shape differ": {"a": {**ENTRY, "shape": [2]}},
    "overlap": {"a": ENTRY, "b": ENTRY},
    "metadata of numbers": {"__metadata__": {"x": 1}, "a": ENTRY},
    "deep": b"[" * 100_000,
}
for _name, _structure in {
    "structure is no json": "{",
    "structure is no dict": "3",
    "structure names an absent tensor": '["dict",[["x",["tensor","absent"]]]]',
    "structure of an unknown kind": '["set",[]]',
    "structure with a bad key": '["dict",[[null,1]]]',
    "structure of wrong length": '["dict"]',
    "structure that holds an object": '{"a":1}',
    "structure too deep": '["list",[' * 50_000,
}.items():
    HOSTILE[_name] = {"__metadata__": {"wengert.structure": _structure}, "a": ENTRY}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(tmp_path: Path, name: str) -> None:
    write(tmp_path / "f", HOSTILE[name], b"\0" * 4)
    with pytest.raises(wg.FormatError):
        wg.load(tmp_path / "f")


def test_a_header_longer_than_the_file(tmp_path: Path) -> None:
    for length in (2**63, 2**64 - 1, 10**9):
        (tmp_path / "f").write_bytes(struct.pack("<Q", length) + b"{}")
        with pytest.raises(wg.FormatError):
            wg.load(tmp_path / "f")
