"""Rockpool's modules behind torch's own interface.

They return (output, state, record) and list their parts in dictionaries; `prepare` puts others in their places.
"""

from __future__ import annotations

import dis
import types
from collections import OrderedDict
from typing import Any

import torch
from rockpool.nn.combinators.residual import ResidualMixin
from rockpool.nn.combinators.sequential import SequentialMixin
from rockpool.nn.modules import ExpSynTorch, LIFNeuronTorch, LIFTorch, LinearTorch
from rockpool.nn.modules.torch.torch_module import TorchModule
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.modules import check_hooks
from spear_deploy.frameworks.importer.symbols import name_module

PACKAGE = "rockpool."
PATCHED = "TorchModulePatch"
"""Class that Rockpool's Sequential gives a module of torch, derived from the module's own."""
STATES = ("vmem", "isyn", "spikes")
KEPT = frozenset(vars(torch.nn.Module()))
"""Attributes of every module of torch, which a trace sets."""
MODULES = (LinearTorch, LIFTorch, LIFNeuronTorch, ExpSynTorch)


class RockpoolModule(torch.nn.Module):
    """A module of Rockpool behind torch's interface.

    Attributes:
        inner: the module, hidden from torch's list of parts.
        returns_state: whether it returns (output, state, record) as in Rockpool, or the output alone.
    """

    inner: Any

    def __init__(self, inner: Any, *, returns_state: bool) -> None:
        super().__init__()
        self.__dict__["inner"], self.returns_state = inner, returns_state

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The class of the module, by which a forward may choose what it does."""
        return type(self.inner)

    def __getattr__(self, name: str) -> Any:
        """Refuse to read what the module alone has, such as its weights.

        Raises:
            UnsupportedError: the module has it.
        """
        if not name.startswith("_") and hasattr(self.inner, name):
            kind = type(self.inner).__name__
            raise UnsupportedError(f"the forward reads '{name}' of a {kind}, which is not read; call the module alone")
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to set what the module alone has, of which the network would read nothing; a state of zeros is its own.

        Raises:
            UnsupportedError: the module has it.
        """
        inner = self.__dict__.get("inner")
        if inner is not None and name not in KEPT and hasattr(inner, name):
            is_zero = isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter) and not value.any()
            if name not in STATES or not is_zero:
                how = "let it start from its reset" if name in STATES else "set it where the network is made"
                raise UnsupportedError(f"the forward sets '{name}' of a {type(inner).__name__}, which is not read; {how}")
        super().__setattr__(name, value)

    def forward(self, x: Any) -> Any:
        """Return what the module returns.

        Raises:
            UnsupportedError: a trace meets it, of a forward that does not call the module itself.
        """
        if isinstance(x, fx.Proxy):
            kind = type(self.inner).__name__
            raise UnsupportedError(f"the forward runs 'forward' of a {kind} by itself; call the module, x, _, _ = module(x)")
        result = self.inner(x)
        return result if self.returns_state or not isinstance(result, tuple) else result[0]

    def reset_state(self) -> RockpoolModule:
        """Return the module: its state is empty before its one call."""
        return self


class ModuleSequence(torch.nn.Sequential):
    """Rockpool's Sequential or Residual: what its modules make of the input in turn; Residual adds the input to it.

    Attributes:
        kind: the class of either.
        returns_state: whether it returns (output, state, record) as in Rockpool, or the output alone.
    """

    kind: Any = torch.nn.Sequential

    def __init__(self, parts: OrderedDict[str, torch.nn.Module], *, kind: Any, returns_state: bool) -> None:
        super().__init__(parts)
        self.kind, self.returns_state = kind, returns_state

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The class of either, by which a forward may choose what it does."""
        return self.kind

    def forward(self, x: Any, record: bool = False) -> Any:
        """Return the output of the last module, or (output, state, record)."""
        made, records = x, Records()
        for name, module in self._modules.items():
            assert module is not None
            made = module(made)
            records[f"{name}_output"] = made
        made = made + x if issubclass(self.kind, ResidualMixin) else made
        return (made, Records(), records) if self.returns_state else made

    def reset_state(self) -> ModuleSequence:
        """Return the modules: their states are empty before their one call."""
        return self


class Records(dict[str, Any]):
    """The outputs of the modules of a Sequential as it records them; other records and states are refused."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return a record; Rockpool has those that are not here too, so that none is the default."""
        return self[name]

    def __contains__(self, name: object) -> bool:
        return self[str(name)] is not None

    def __missing__(self, name: str) -> Any:
        raise UnsupportedError(
            f"the forward reads '{name}' of the states or records of a Sequential, which holds the outputs of its modules alone "
            f"here ({', '.join(self) or 'none'}); return the output of the network"
        )


def prepare(model: Any) -> torch.nn.Module:
    """Return a model of Rockpool's modules with torch's own interface; the model stays as it is.

    Raises:
        UnsupportedError: a class derived from Rockpool's has an `evolve` of its own.
    """
    return _prepare(model, "", in_sequence=True)


def _prepare(module: Any, path: str, *, in_sequence: bool) -> torch.nn.Module:
    kind: Any = type(module)
    returns_state = not in_sequence and not hasattr(module, "_call")
    if isinstance(module, SequentialMixin):
        _check_evolve(module, path)
        parts = _prepare_parts(module, path, in_sequence=True)
        return ModuleSequence(parts, kind=kind, returns_state=returns_state)
    if _is_syn_net(module) and module.output == "spikes":
        check_hooks(module, name_module(path))
        return torch.nn.Sequential(OrderedDict(seq=_prepare(module.seq, _join(path, "seq"), in_sequence=True)))
    if isinstance(module, MODULES) or (kind.__module__.startswith(PACKAGE) and kind.__name__ != PATCHED):
        return RockpoolModule(module, returns_state=returns_state)
    _check_types(kind, path)
    if kind.__name__ == PATCHED:
        kind = kind.__mro__[1]
    elif isinstance(module, TorchModule):
        _check_evolve(module, path)
    made: torch.nn.Module = torch.nn.Module.__new__(_make_plain_class(kind, returns_state=returns_state))
    made.__dict__.update(module.__dict__)
    is_sequence = issubclass(kind, torch.nn.Sequential) and kind.forward is torch.nn.Sequential.forward
    made.__dict__["_modules"] = _prepare_parts(module, path, in_sequence=is_sequence)
    return made


def _prepare_parts(module: Any, path: str, *, in_sequence: bool) -> OrderedDict[str, torch.nn.Module]:
    """Return the parts of a module by name; one under two names is prepared under each."""
    parts = ((name, part) for name, part in module._modules.items() if part is not None)
    return OrderedDict((name, _prepare(part, _join(path, name), in_sequence=in_sequence)) for name, part in parts)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_evolve(module: Any, path: str) -> None:
    """Check that a class derived from Rockpool's runs as those do, by a forward.

    Raises:
        UnsupportedError: it has an `evolve` or a call of its own.
    """
    kind = next(kind for kind in type(module).__mro__ if kind.__module__.startswith(PACKAGE))
    for method in ("evolve", "__call__"):
        if getattr(type(module), method) is not getattr(kind, method):
            raise UnsupportedError(
                f"{name_module(path)} is {type(module).__name__} with its own {method}, which is not read; expected a forward "
                "alone: move the change into the forward of a torch.nn.Module that holds the modules"
            )


def _check_types(kind: Any, path: str) -> None:
    """Refuse a forward that takes the type of a module, which is another one here; `isinstance` is answered.

    Raises:
        UnsupportedError: it does.
    """
    code = getattr(kind.forward, "__code__", None)
    if code is not None and not kind.forward.__module__.startswith((PACKAGE, "torch.")):
        if any(step.opname == "LOAD_GLOBAL" and step.argval == "type" for step in dis.get_instructions(code)):
            raise UnsupportedError(f"{name_module(path)} calls type() in its forward, which is not read; use isinstance()")


def is_kind(module: Any, kind: Any) -> bool:
    """Return whether a module is of a class, and not of one derived from it that computes something else."""
    return isinstance(module, kind) and all(
        getattr(type(module), name) is getattr(kind, name) for name in ("forward", "evolve", "__call__")
    )


def _is_syn_net(module: Any) -> bool:
    """Return whether a module is Rockpool's SynNet, whose package warns on import."""
    kinds = (kind for kind in type(module).__mro__ if kind.__name__ == "SynNet" and kind.__module__.startswith(PACKAGE))
    kind: Any = next(kinds, None)
    return kind is not None and is_kind(module, kind)


def _make_plain_class(kind: Any, *, returns_state: bool) -> Any:
    """Return a class with the forward of a user's own, and the interface of torch in place of Rockpool's."""
    if not issubclass(kind, TorchModule):
        return kind

    def forward(module: Any, x: Any, record: bool = False) -> Any:
        return kind.forward(module, x), Records(), Records()

    names = ("__call__", "__setattr__", "modules", "parameters", "named_parameters")
    own = {"__module__": kind.__module__, **{name: getattr(torch.nn.Module, name) for name in names}}
    return type(kind.__name__, (kind,), own | ({"forward": forward} if returns_state else {}))


def finish_copy(model: torch.nn.Module) -> None:
    """Bind the calls of torch's modules to this copy: Rockpool bound them to the modules that it was made of."""
    for _, module in torch.nn.Module.named_modules(model):
        if (kind := _bind_calls(module, type(module))) is not type(module):
            object.__setattr__(module, "__class__", kind)


def _bind_calls(module: torch.nn.Module, kind: Any) -> Any:
    """Return the class of a module; one that Rockpool made for it anew, with calls of this module."""
    if kind.__name__ != PATCHED:
        return kind
    base = _bind_calls(module, kind.__bases__[0])
    own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    made: Any = type(PATCHED, (base, *kind.__bases__[1:]), own)
    for name in ("__call__", "parameters", "modules"):
        function = own[name]
        cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True)) | {"__class__": types.CellType(made)}
        for variable, cell in cells.items():
            if isinstance(cell.cell_contents, types.MethodType):
                cells[variable] = types.CellType(types.MethodType(getattr(base, name), module))
        closure = tuple(cells[variable] for variable in function.__code__.co_freevars)
        setattr(made, name, types.FunctionType(function.__code__, function.__globals__, name, function.__defaults__, closure))
    return made
