"""Numbers that a forward of one step keeps from step to step, such as a counter."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.forward_code import list_functions, list_names
from spear_deploy.frameworks.importer.symbols import name_module

PLAIN = (bool, int, float, str)
CONTAINERS = (tuple, list, deque, set, frozenset)


def list_kept(model: torch.nn.Module, state: Any) -> dict[tuple[str, str], Any]:
    """Return the numbers by place and name that a model, its state and the files of its functions hold."""
    held = {("", "its state"): state}
    for path, module in torch.nn.Module.named_modules(model):
        held |= {(path, f"'{name}'"): value for name, value in _list_own(module)}
    for function in list_functions(model):
        file, names = f"file {function.__module__}", list_names(function.__code__)
        held |= {(file, f"'{name}'"): value for name, value in function.__globals__.items() if name in names}
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held |= {(function.__qualname__, f"'{name}'"): _read_cell(cell) for name, cell in cells}
    return {key: _keep(value) for key, value in held.items()}


def _list_own(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a module that are no parts of it, those of its class too."""
    own = (vars(kind) for kind in reversed(type(module).__mro__) if not kind.__module__.startswith("torch."))
    for space in (*own, vars(module)):
        yield from ((name, value) for name, value in space.items() if not name.startswith("__") and name != "_modules")


def _read_cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty yet
        return None


def _keep(value: Any, depth: int = 4) -> Any:
    """Return the numbers in a value; what hands out values in turn is equal to nothing."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Iterator) and not isinstance(value, (torch.nn.Module, torch.Tensor)):
        return object()
    if isinstance(value, dict):
        value = tuple(value.items())
    if not isinstance(value, CONTAINERS) or not depth:
        return None
    kept = [_keep(part, depth - 1) for part in value]
    return tuple(part for part in kept if part is not None and part != ())


def check_kept(before: dict[tuple[str, str], Any], after: dict[tuple[str, str], Any], place: str) -> None:
    """Refuse a forward that changes a number in its second step: a later step may compute something else by it.

    Args:
        before: what it keeps behind its first step.
        after: behind its second.
        place: the model's path, for errors.

    Raises:
        UnsupportedError: it changes one.
    """
    for key, value in after.items():
        old = before.get(key)
        if old is not None and value is not None and type(old) is type(value) and old != value:
            raise UnsupportedError(
                f"{name_module(place)}: its forward changes a number in {key[1]} from step to step, as a counter does, by which "
                "a later step may compute something else; leave it out of the forward"
            )
