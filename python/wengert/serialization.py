"""Saving and loading: nested dicts of tensors and plain values as one safetensors file.

Tensors are stored under the dotted path of their keys, so that any reader of the format finds them. What the format
cannot hold, the nesting and the plain values, is one JSON entry of its metadata, and absent for a flat dict of tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

from wengert._core import Device, FormatError, Tensor, load_safetensors, save_safetensors

_STRUCTURE = "wengert.structure"


def save(obj: Mapping[str, Any], path: str | PathLike[str]) -> None:
    """Write tensors and plain values to a safetensors file: all of it, or nothing if something fails.

    Args:
        obj: a state dict, or a dict that holds tensors, numbers, strings, None, lists, tuples, and dicts whose keys are
            strings or integers.
        path: of the file; one that exists is replaced at the end, in one step.

    Raises:
        TypeError: something else in it.
        ValueError: two tensors whose dotted paths are the same.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile, os
        >>> import wengert as wg
        >>> from wengert import nn
        >>> model = nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "model.safetensors")
        ...     wg.save({"model": model.state_dict(), "epoch": 3}, path)
        ...     loaded = wg.load(path)
        >>> loaded["epoch"], list(loaded["model"])
        (3, ['weight', 'bias'])
    """
    if not isinstance(obj, Mapping):
        raise TypeError(f"save: a dict is saved, not {type(obj).__name__}")
    tensors: dict[str, Tensor] = {}
    structure = _flatten(obj, "", tensors)
    flat = all(isinstance(value, Tensor) for value in obj.values()) and all(isinstance(key, str) for key in obj)
    metadata = {"format": "wengert"}
    if not flat:
        metadata[_STRUCTURE] = json.dumps(structure, separators=(",", ":"))
    save_safetensors(path, tensors, metadata)


def load(path: str | PathLike[str], device: Device | str | None = None) -> dict[str, Any]:
    """Read what `save` wrote, or the tensors of any other safetensors file as a flat dict.

    Args:
        path: of the file, which does not tell where its tensors were.
        device: where the tensors are put; the CPU by default.

    Returns:
        The dict, with the same nesting and keys.

    Raises:
        DeviceError: no such device.
        FormatError: the file is cut off or not what it should be; nothing of it is used.
        OSError: the file cannot be read.
    """
    tensors, metadata = load_safetensors(path, device)
    text = metadata.get(_STRUCTURE)
    if text is None:
        return dict(tensors)
    try:
        loaded = _nest(json.loads(text), tensors)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"load: {path}: the structure in the metadata is broken: {error}") from error
    if not isinstance(loaded, dict):
        raise FormatError(f"load: {path}: the structure in the metadata is no dict")
    return loaded


def _flatten(obj: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Collect the tensors by path and return the rest as JSON: a list whose first entry tells the kind, or a value."""
    if isinstance(obj, Tensor):
        if path in tensors:
            raise ValueError(f"save: two tensors have the path {path!r}; rename a key")
        tensors[path] = obj
        return ["tensor", path]
    if isinstance(obj, Mapping):
        entries = []
        for key, value in obj.items():
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise TypeError(f"save: {path or 'the dict'} has a key {key!r}; keys are strings or integers")
            entries.append([key, _flatten(value, f"{path}.{key}" if path else str(key), tensors)])
        return ["dict", entries]
    if isinstance(obj, list | tuple):
        kind = "list" if isinstance(obj, list) else "tuple"
        return [kind, [_flatten(value, f"{path}.{index}", tensors) for index, value in enumerate(obj)]]
    if obj is None or isinstance(obj, bool | int | float | str):
        return obj
    raise TypeError(
        f"save: {path} is {type(obj).__name__}; tensors, numbers, strings, None, dicts, lists and tuples can be saved"
    )


def _nest(structure: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo `_flatten`."""
    if not isinstance(structure, list):
        if structure is None or isinstance(structure, bool | int | float | str):
            return structure
        raise ValueError(f"{type(structure).__name__} where a value should be")
    kind, content = structure
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        entries = {}
        for key, value in content:
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise ValueError(f"a key {key!r}")
            entries[key] = _nest(value, tensors)
        return entries
    if kind == "list":
        return [_nest(value, tensors) for value in content]
    if kind == "tuple":
        return tuple(_nest(value, tensors) for value in content)
    raise ValueError(f"an unknown kind {kind!r}")
