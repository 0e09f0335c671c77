"""The module: a function with parameters, made of other modules.

Parameters, buffers and submodules are ordinary instance attributes, so that reading them costs nothing special; each is
also listed in one of three dicts, which `__setattr__` keeps in step. No arithmetic happens here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from wengert._core import DType, Tensor, WengertError, asarray, convert_, float32, float64, note_replaced
from wengert.nn.hooks import Hooks, RemovableHandle
from wengert.nn.parameter import Parameter

if TYPE_CHECKING:
    from wengert._core import Device

T = TypeVar("T")

_REGISTRIES = ("_parameters", "_buffers", "_modules")


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` could not match.

    Attributes:
        missing_keys: names of the module that the state dict lacks.
        unexpected_keys: names of the state dict that the module lacks.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of all modules. A subclass calls `super().__init__()` first and defines `forward`.

    A `Parameter` or `Module` that is assigned to an attribute is registered: it is seen by `parameters`, `state_dict`,
    `to`, `train` and so on. Calling the module runs `forward`, and hooks if there are any.

    Attributes:
        training: whether layers such as dropout behave as in training.

    Example:
        >>> import wengert as wg
        >>> from wengert import nn
        >>> class Scale(nn.Module):
        ...     def __init__(self, features: int) -> None:
        ...         super().__init__()
        ...         self.factor = nn.Parameter(wg.ones((features,)))
        ...
        ...     def forward(self, x: wg.Tensor) -> wg.Tensor:
        ...         return x * self.factor
        >>> [(name, p.shape) for name, p in Scale(3).named_parameters()]
        [('factor', (3,))]
    """

    training: bool
    forward: Callable[..., Any]
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _temporary: set[str]  # buffers that a state dict leaves out
    _hooks: Hooks | None = None

    def __init__(self) -> None:
        # Not by way of __dict__, here and below: what an object whose dict was never asked for holds is read faster.
        for name in _REGISTRIES:
            object.__setattr__(self, name, {})
        object.__setattr__(self, "_temporary", set())
        object.__setattr__(self, "_hooks", None)
        object.__setattr__(self, "training", True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run forward, and hooks if there are any."""
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs)
            return self._hooks.call(self, args, kwargs)
        except WengertError as error:
            name_place(error, self)
            raise
        except AttributeError as error:
            if not hasattr(self, "forward"):
                raise NotImplementedError(f"{type(self).__name__} defines no forward") from error
            raise

    # Registration.

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            registry = "_parameters"
        elif isinstance(value, Module):
            registry = "_modules"
        else:
            before = self._check_replaced(name, value)
            object.__setattr__(self, name, value)
            if before is not None:
                _note_replaced(before, value)
            return
        if self._entries(registry) is None:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning to {name!r}")
        self._register(registry, name, value)

    def _entries(self, registry: str) -> dict[str, Any] | None:
        """Return one of the three dicts, if it exists."""
        try:
            found: dict[str, Any] = object.__getattribute__(self, registry)
        except AttributeError:
            return None
        return found

    def _check_replaced(self, name: str, value: object) -> object:
        """Keep the dicts in step with an assignment of something that is neither parameter nor module.

        Returns:
            What the dicts held under the name.
        """
        before: object = None
        for registry in _REGISTRIES:
            entries = self._entries(registry)
            if entries is not None and name in entries:
                allowed = value is None or (registry == "_buffers" and isinstance(value, Tensor))
                if not allowed:
                    kind = {"_parameters": "parameter", "_buffers": "buffer", "_modules": "module"}[registry]
                    wanted = {"_parameters": "a Parameter", "_buffers": "a Tensor", "_modules": "a Module"}[registry]
                    raise TypeError(
                        f"{type(self).__name__}.{name} is a {kind} and takes {wanted} or None, "
                        f"not {type(value).__name__}; delete it first to use the name for something else"
                    )
                before, entries[name] = entries[name], value
        return before

    def _register(self, registry: str, name: str, value: Any) -> None:
        before: object = None
        for other in _REGISTRIES:
            entries = getattr(self, other)
            if name in entries:
                before = entries[name] if other == registry else entries.pop(name)
        self._temporary.discard(name)
        getattr(self, registry)[name] = value
        object.__setattr__(self, name, value)
        _note_replaced(before, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        for registry in _REGISTRIES:
            _note_replaced(getattr(self, registry).pop(name, None), None)
        self._temporary.discard(name)

    def _check_name(self, kind: str, name: object, registry: str) -> None:
        if self._entries(registry) is None:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before registering a {kind}")
        if not isinstance(name, str):
            raise TypeError(f"the name of a {kind} is a string, not {type(name).__name__}")
        if not name or "." in name:
            raise KeyError(f"the name of a {kind} must not be empty or hold a dot: {name!r}")
        if hasattr(self, name) and name not in getattr(self, registry):
            raise KeyError(f"{type(self).__name__} has an attribute {name!r} already")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name; None reserves the name.

        Raises:
            KeyError: the name is empty, holds a dot, or is used.
            TypeError: `param` is no Parameter.
        """
        self._check_name("parameter", name, "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"{type(param).__name__} is no Parameter: parameter {name!r} takes one, or None")
        self._register("_parameters", name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is no parameter but belongs to the state, such as a running mean.

        Args:
            name: of the attribute.
            tensor: its value; None reserves the name.
            persistent: whether `state_dict` holds it.

        Raises:
            KeyError: the name is empty, holds a dot, or is used.
            TypeError: `tensor` is no Tensor.
        """
        self._check_name("buffer", name, "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"{type(tensor).__name__} is no Tensor: buffer {name!r} takes one, or None")
        self._register("_buffers", name, tensor)
        if not persistent:
            self._temporary.add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under a name; None reserves the name.

        Raises:
            KeyError: the name is empty, holds a dot, or is used.
            TypeError: `module` is no Module.
        """
        self._check_name("module", name, "_modules")
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is no Module: module {name!r} takes one, or None")
        self._register("_modules", name, module)

    def add_module(self, name: str, module: Module | None) -> None:
        """Do the same as `register_module`."""
        self.register_module(name, module)

    # Walking.

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it, each with its dotted name, parents first.

        Args:
            memo: modules to leave out; those yielded are added.
            prefix: put before each name.
            remove_duplicate: whether a module that is used twice is yielded once.
        """
        seen = set() if memo is None else memo
        if self in seen:
            return
        if remove_duplicate:
            seen.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(seen, _join(prefix, name), remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the direct submodules with their names, each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """Yield the direct submodules, each once."""
        return (module for _, module in self.named_children())

    def _named_members(
        self, registry: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        seen: set[int] = set()
        for path, module in modules:
            for name, member in getattr(module, registry).items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield _join(path, name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield the parameters with their dotted names.

        Args:
            prefix: put before each name.
            recurse: whether those of submodules are yielded too.
            remove_duplicate: whether a parameter that is used twice is yielded once.
        """
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the buffers with their dotted names; the arguments are those of `named_parameters`."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """Return the module with this dotted name; the empty name is this module.

        Raises:
            AttributeError: there is none.
        """
        module: Module = self
        for name in target.split(".") if target else ():
            found = module._modules.get(name)
            if found is None:
                raise AttributeError(f"{type(module).__name__} has no module {name!r} (looking for {target!r})")
            module = found
        return module

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter with this dotted name.

        Raises:
            AttributeError: there is none.
        """
        found = self._get_member("_parameters", "parameter", target)
        assert isinstance(found, Parameter)
        return found

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer with this dotted name.

        Raises:
            AttributeError: there is none.
        """
        return self._get_member("_buffers", "buffer", target)

    def _get_member(self, registry: str, kind: str, target: str) -> Tensor:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        found: Tensor | None = getattr(module, registry).get(name)
        if found is None:
            raise AttributeError(f"{type(module).__name__} has no {kind} {name!r} (looking for {target!r})")
        return found

    # Modes and conversions.

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and in all modules below; returns this module."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode is True or False, not {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation mode; the same as `train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether gradients are recorded, for all parameters; returns this module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        from wengert._core import zeros_like

        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = zeros_like(parameter.grad)

    def apply(self, fn: Callable[[Module], object]) -> Self:
        """Call `fn` on all modules below, then on this one; returns this module."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def to(self, target: DType | Device | str, dtype: DType | None = None) -> Self:
        """Move all parameters and buffers to a device, or change the dtype of the float ones; returns this module.

        The parameters stay the same objects, so an optimizer made before keeps them; their gradients are moved and
        converted with them.

        Args:
            target: a device ("cpu", "gpu", "gpu:1"), or a float dtype.
            dtype: a float dtype, after a device.

        Raises:
            DTypeError: a dtype that is no float.
            DeviceError: no such device.
            UnsupportedError: float64 on a GPU.

        Example:
            >>> from wengert import nn
            >>> str(nn.Linear(2, 1).to("cpu").weight.device)
            'cpu'
        """
        device, wanted = (None, target) if isinstance(target, DType) else (target, dtype)
        if wanted is not None and not wanted.is_floating_point:
            from wengert._core import DTypeError

            raise DTypeError(f"to: parameters are floats; {wanted.name} is none")
        moves = [
            (tensor, wanted if tensor.dtype.is_floating_point else None)
            for members in (self.parameters(), self.buffers())
            for tensor in members
        ]
        # What a device may refuse goes first: if it does, nothing has moved.
        for tensor, own in sorted(moves, key=lambda move: (move[1] or move[0].dtype) != float64):
            if device is not None:
                convert_(tensor, device, own)
            elif own is not None:
                convert_(tensor, own)
        return self

    def double(self) -> Self:
        """Change all float parameters and buffers to float64; returns this module."""
        return self.to(float64)

    def float(self) -> Self:
        """Change all float parameters and buffers to float32; returns this module."""
        return self.to(float32)

    def cpu(self) -> Self:
        """Move all parameters and buffers to the CPU; returns this module."""
        return self.to("cpu")

    # State.

    def _named_state(self) -> Iterator[tuple[str, Tensor]]:
        for path, module in self.named_modules(remove_duplicate=False):
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield _join(path, name), parameter
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._temporary:
                    yield _join(path, name), buffer

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Return the parameters and persistent buffers by dotted name.

        The values are those of now: training on does not change them.

        Args:
            prefix: put before each name.
            keep_vars: whether to give the parameters themselves instead of their values.
        """
        return {prefix + name: value if keep_vars else value.detach() for name, value in self._named_state()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Take the values of a state dict: all of them, or none if something does not fit.

        Args:
            state_dict: tensors or arrays by dotted name, as `state_dict` gives them.
            strict: whether each name must be found on both sides.

        Returns:
            The names that did not match: `(missing_keys, unexpected_keys)`.

        Raises:
            RuntimeError: names do not match although `strict`, or shapes differ; all of them are listed.

        Example:
            >>> from wengert import nn
            >>> model = nn.Linear(2, 1)
            >>> model.load_state_dict(nn.Linear(2, 1).state_dict())
            IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        """
        own = dict(self._named_state())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        values = {name: asarray(state_dict[name]) for name in own if name in state_dict}
        problems = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        for name, value in values.items():
            if value.shape != own[name].shape:
                problems.append(f"size mismatch: {name} is {own[name].shape} here and {value.shape} in the state dict")
        if problems:
            lines = "\n  ".join(problems)
            raise RuntimeError(f"the state dict does not fit {type(self).__name__}; nothing was loaded\n  {lines}")
        for name, value in values.items():
            own[name].copy_(value)
        return IncompatibleKeys(missing, unexpected)

    # Hooks.

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before each `forward`; what it returns, unless None, replaces the arguments.

        Args:
            hook: called as `hook(module, args)`, or `hook(module, args, kwargs)`.
            prepend: whether it goes before the hooks that exist.
            with_kwargs: whether it takes, and returns, `(args, kwargs)`.

        Returns:
            A handle whose `remove()` takes the hook away.
        """
        return self._own_hooks().add(self._own_hooks().before, hook, prepend, with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after each `forward`; what it returns, unless None, replaces the output.

        Args:
            hook: called as `hook(module, args, output)`, or `hook(module, args, kwargs, output)`.
            prepend: whether it goes before the hooks that exist.
            with_kwargs: whether it takes the keyword arguments too.

        Returns:
            A handle whose `remove()` takes the hook away.
        """
        return self._own_hooks().add(self._own_hooks().after, hook, prepend, with_kwargs)

    def _own_hooks(self) -> Hooks:
        if self._hooks is None:
            object.__setattr__(self, "_hooks", Hooks())
        assert self._hooks is not None
        return self._hooks

    # Text.

    def extra_repr(self) -> str:
        """Return the settings to show in the repr; for subclasses to define."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self._modules.items()]
        name = type(self).__name__
        if not children:
            return f"{name}({extra})"
        lines = [extra, *children] if extra else children
        return f"{name}(\n  " + "\n  ".join(lines) + "\n)"


class Direct(Module):
    """A module whose call takes a fixed number of arguments: without argument lists it takes half the time.

    A subclass with a forward of its own, elsewhere, may take other arguments and is called as any module.
    """

    def __init_subclass__(cls) -> None:
        if "forward" in vars(cls) and not cls.__module__.startswith("wengert.nn."):
            cls.__call__ = Module.__call__  # type: ignore[method-assign]


class Layer(Direct):
    """A module from one tensor to one tensor."""

    def __call__(self, input: Tensor) -> Tensor:
        """Run forward, and hooks if there are any."""
        try:
            if self._hooks is None:
                return self.forward(input)  # type: ignore[no-any-return]
            return self._hooks.call(self, (input,), {})  # type: ignore[no-any-return]
        except WengertError as error:
            name_place(error, self)
            raise


def _note_replaced(before: object, now: object) -> None:
    """Tell the compiled steps that used this parameter or buffer, if it was one, that another value is in its place."""
    if before is not now and isinstance(before, Tensor):
        note_replaced(before)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def name_place(error: WengertError, module: Module) -> None:
    """Tell in the error where in the model it happened: called in each module on the error's way up.

    The path grows at its front, and stands before the user's line, `(head, train.py:31)`.
    """
    told: _Place | None = getattr(error, "_place", None)
    if told is None:
        error._place = _Place(module, "", str(error))  # type: ignore[attr-defined]
        return
    if told.module is module:
        return
    name = next((name for name, child in module.named_modules(remove_duplicate=False) if child is told.module), "")
    if name:
        told.path = _join(name, told.path) if told.path else name
    told.module = module
    if told.path and error.args:
        error.args = (told.text(), *error.args[1:])


class _Place:
    """Where an error came from: the outermost module it left so far, the path below it, and the first message."""

    def __init__(self, module: Module, path: str, message: str) -> None:
        self.module = module
        self.path = path
        self.message = message

    def text(self) -> str:
        """Return the message with the path in it."""
        import re

        line = re.search(r" \(([^()]*:\d+)\)$", self.message)
        if line is None:
            return f"{self.message} ({self.path})"
        return f"{self.message[: line.start()]} ({self.path}, {line.group(1)})"
