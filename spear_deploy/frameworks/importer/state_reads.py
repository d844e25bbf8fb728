"""States that neurons keep, taken by a forward: each step has another value, of which a trace knows none.

A trace calls no neurons, so a state is a tensor of an earlier run there. What a forward computes of it would be a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.symbols import name_module

TAKE_NO_VALUES = ("zeros_like", "ones_like", "empty_like", "new_zeros", "new_ones", "new_empty")


class StateReads(TorchFunctionMode):
    """The tensors that a forward computes of states while it is traced."""

    def __init__(self, list_set: Callable[[Any], tuple[Any, ...]]) -> None:
        """`list_set` names the states of a module that a forward may take."""
        super().__init__()
        self._list_set = list_set
        self._keepers: list[tuple[str, torch.nn.Module]] = []
        self._made: dict[int, tuple[torch.Tensor, str]] = {}

    def note_start(self, model: torch.nn.Module) -> None:
        """Watch the states of the modules of a model."""
        self._keepers = [(path, module) for path, module in model.named_modules() if self._list_set(module)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, and note what it makes of a state."""
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") not in TAKE_NO_VALUES and self._keepers:
            tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
            place = next((found for tensor in tensors if (found := self._find_place(tensor))), "")
            for value in tree_leaves(result) if place else ():
                if isinstance(value, torch.Tensor):
                    self._made[id(value)] = value, place  # kept, so that no other tensor has its id
        return result

    def check(self, root: torch.nn.Module, graph: fx.Graph) -> None:
        """Check that a forward computes with no state.

        Raises:
            UnsupportedError: it takes one from the module that keeps it.
        """
        for node in graph.nodes:
            if node.op != "get_attr":
                continue
            path, _, name = str(node.target).rpartition(".")
            value = getattr(root.get_submodule(path), name, None)
            if isinstance(value, torch.Tensor) and (place := self._find_place(value)):
                raise UnsupportedError(
                    f"the forward computes with {place}, which keeps it; let the module return it, and hand it back"
                )

    def _find_place(self, tensor: torch.Tensor) -> str:
        """Return the state that a tensor is, or was made of, and its module; "" of any other tensor."""
        made, place = self._made.get(id(tensor), (None, ""))
        if made is tensor:
            return place
        for path, module in self._keepers:
            if any(state is tensor for state in self._list_set(module)):
                held = {**vars(module), **module._buffers}
                return f"'{next(name for name, value in held.items() if value is tensor)}' of {name_module(path)}"
        return ""
