"""What a forward of one step keeps from step to step beside tensors, such as a counter, a list or an iterator.

Where none of it changes in the second step, the third one computes the same as the second.
"""

from __future__ import annotations

import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from spear_deploy.frameworks.importer.forward_code import LIBRARIES, list_names

PLAIN = (bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device, type(None))
CONTAINERS = (tuple, list, deque, set, frozenset)
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)
FOREIGN = {*LIBRARIES, *sys.stdlib_module_names}
"""Packages whose classes and modules keep nothing of a model."""
OWN = frozenset(vars(torch.nn.Module()))
"""Attributes of every module of torch: its parts, its parameters, which each call compares, and its hooks, which are refused."""
MAX_VALUES = 20_000
"""Values beyond these are taken to change."""


class KeptValues:
    """The values that a model, its state, and the classes and files of its functions hold, as they are now.

    Attributes:
        values: they in turn; what cannot be looked into is equal to nothing.
    """

    def __init__(
        self, model: torch.nn.Module, state: Any, functions: list[types.FunctionType], is_known: Callable[[Any], bool]
    ) -> None:
        """Write the values down.

        Args:
            model: the model.
            state: what it has returned beside its output.
            functions: those that it runs.
            is_known: whether a module is of torch or of the framework, whose parameters each call compares.
        """
        self.values: list[Any] = []
        self._is_known = is_known
        self._seen: dict[int, Any] = {}  # keeps them alive, so that none has the number of another one
        self._waiting: list[Any] = [model, state]
        for function in functions:
            names = list_names(function.__code__)
            spaces = [function.__globals__, *(held for held in _list_modules(function, names))]
            self._waiting += [space[name] for space in spaces for name in sorted(names) if name in space]
            self._waiting += [function.__defaults__, *map(_read_cell, function.__closure__ or ())]
        while self._waiting and len(self.values) < MAX_VALUES:
            self._take(self._waiting.pop())
        if self._waiting:
            self.values.append(object())

    def _take(self, value: Any) -> None:
        """Write one value down, and put aside what it holds."""
        kind = type(value)
        if isinstance(value, PLAIN):
            self.values.append((kind, value))
            return
        if isinstance(value, fx.Proxy) or issubclass(kind, FUNCTIONS) or torch.nn.parameter.is_lazy(value):
            self.values.append(kind)
            return
        number = id(value)
        if number in self._seen:
            self.values.append(number)
            return
        self._seen[number] = value
        if isinstance(value, torch.Tensor):
            self.values.append((number, value._version if not value.is_inference() else object()))
        elif issubclass(kind, type):
            self._take_class(value)
        elif isinstance(value, dict):
            self._hold(kind, [*value, *value.values()])
        elif issubclass(kind, CONTAINERS):
            self._hold(kind, [*value])
        elif isinstance(value, torch.nn.Module) and self._is_known(value):
            self._hold(kind, [*value._modules.values(), *(held for name, held in vars(value).items() if name not in OWN)])
        elif hasattr(value, "__dict__") and not isinstance(value, Iterator):
            self._hold(kind, [kind, *vars(value), *vars(value).values()])
        else:
            self.values.append(object())

    def _hold(self, kind: type, held: list[Any]) -> None:
        self.values.append((kind, len(held)))
        self._waiting += held

    def _take_class(self, kind: type) -> None:
        """Put aside what a class of the user and those that it derives from hold beside functions."""
        for base in kind.__mro__:
            if base.__module__.split(".")[0] not in FOREIGN:
                own = {name: value for name, value in vars(base).items() if not name.startswith("__")}
                own = {name: value for name, value in own.items() if not hasattr(type(value), "__get__")}
                self._hold(base, [*own, *own.values()])


def _list_modules(function: types.FunctionType, names: set[str]) -> list[dict[str, Any]]:
    """Return what the modules of the user hold that a function names."""
    held = (function.__globals__.get(name) for name in sorted(names))
    return [vars(one) for one in held if isinstance(one, types.ModuleType) and one.__name__.split(".")[0] not in FOREIGN]


def _read_cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty yet
        return None
