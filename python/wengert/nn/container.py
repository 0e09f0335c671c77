"""Modules that hold other modules: a chain, a list and a dict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, overload

from wengert.nn.module import Layer, Module


class _Numbered(Module):
    """Modules by position. Their names are the positions, so that a state dict reads `0.weight`."""

    _modules: dict[str, Module]  # type: ignore[assignment]  # no None here

    def _replace(self, modules: list[Module]) -> None:
        for name in list(self._modules):
            delattr(self, name)
        for position, module in enumerate(modules):
            self.register_module(str(position), module)

    def _name_of(self, index: SupportsIndex) -> str:
        position, length = index.__index__(), len(self._modules)
        if not -length <= position < length:
            raise IndexError(f"index {position} is out of range: {type(self).__name__} holds {length} modules")
        return str(position % length)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __contains__(self, module: object) -> bool:
        return any(module is held for held in self)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Module | Self:
        if isinstance(index, slice):
            return self._holding(list(self)[index])
        return self._modules[self._name_of(index)]

    def _holding(self, modules: list[Module]) -> Self:
        """Return one of the same class that holds these modules."""
        raise NotImplementedError

    def __setitem__(self, index: SupportsIndex, module: Module) -> None:
        setattr(self, self._name_of(index), module)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        modules = list(self)
        if not isinstance(index, slice):
            index = int(self._name_of(index))
        del modules[index]
        self._replace(modules)

    def append(self, module: Module) -> Self:
        """Add a module at the end; returns this container."""
        self.register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end; returns this container."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Add a module before position `index`; returns this container."""
        modules = list(self)
        modules.insert(index, module)
        self._replace(modules)
        return self

    def pop(self, index: int) -> Module:
        """Take out the module at position `index` and return it."""
        module = self[index]
        del self[index]
        return module


class Sequential(_Numbered, Layer):
    """Modules one after another: each takes what the one before gives.

    Args:
        args: the modules, or one dict of modules by name.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> model(wg.zeros((5, 4))).shape
        (5, 1)
        >>> model
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=1, bias=True)
        )
    """

    @overload
    def __init__(self, *args: Module) -> None: ...
    @overload
    def __init__(self, arg: Mapping[str, Module], /) -> None: ...
    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.register_module(name, module)
        else:
            for position, module in enumerate(args):
                self.register_module(str(position), module)

    if TYPE_CHECKING:

        def __call__(self, input: Any) -> Any:
            """Run forward."""

    def forward(self, input: Any) -> Any:
        """Run the modules in order."""
        for module in self._modules.values():
            input = module(input)  # noqa: A001  (the name in PyTorch)
        return input

    def _name_of(self, index: SupportsIndex) -> str:
        return list(self._modules)[int(super()._name_of(index))]

    def _holding(self, modules: list[Module]) -> Self:
        names = {id(module): name for name, module in self._modules.items()}
        if self._is_numbered():
            return type(self)(*modules)
        return type(self)({names[id(module)]: module for module in modules})

    def _is_numbered(self) -> bool:
        return all(name == str(position) for position, name in enumerate(self._modules))

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        if self._is_numbered():
            super().__delitem__(index)
        else:
            names = list(self._modules)
            for name in names[index] if isinstance(index, slice) else [self._name_of(index)]:
                delattr(self, name)


class ModuleList(_Numbered):
    """A list of modules that are registered. It has no forward of its own.

    Args:
        modules: the first ones.

    Example:
        >>> from wengert import nn
        >>> layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        >>> len(layers), len(list(layers.parameters()))
        (3, 6)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def _holding(self, modules: list[Module]) -> Self:
        return type(self)(modules)


class ModuleDict(Module):
    """A dict of modules that are registered. It has no forward of its own.

    Args:
        modules: the first ones, a mapping or pairs of name and module.

    Example:
        >>> from wengert import nn
        >>> heads = nn.ModuleDict({"class": nn.Linear(8, 10), "value": nn.Linear(8, 1)})
        >>> list(heads), [name for name, _ in heads.named_parameters()]
        (['class', 'value'], ['class.weight', 'class.bias', 'value.weight', 'value.bias'])
    """

    _modules: dict[str, Module]  # type: ignore[assignment]  # no None here

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        super().__init__()
        self.update(modules)

    def __getitem__(self, name: str) -> Module:
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.register_module(name, module)

    def __delitem__(self, name: str) -> None:
        if name not in self._modules:
            raise KeyError(name)
        delattr(self, name)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def keys(self) -> Iterable[str]:
        """Return the names."""
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        """Return the modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """Return the pairs of name and module."""
        return self._modules.items()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add modules, replacing those of the same names."""
        for name, module in modules.items() if isinstance(modules, Mapping) else modules:
            self[name] = module

    def pop(self, name: str) -> Module:
        """Take out a module and return it."""
        module = self[name]
        del self[name]
        return module

    def clear(self) -> None:
        """Take out all modules."""
        for name in list(self._modules):
            delattr(self, name)
