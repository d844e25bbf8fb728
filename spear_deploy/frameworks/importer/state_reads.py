"""States that neurons keep, taken by a forward: each step has another value, of which a trace knows none.

A trace calls no neurons, so a state is a tensor of an earlier run there. What a forward computes of it would be a constant.
Numbers that a forward makes of it, by `float` or `.item()`, are NaN in a trace: a log may have them, the network may not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.symbols import name_module

TAKE_NO_VALUES = ("zeros_like", "ones_like", "empty_like", "new_zeros", "new_ones", "new_empty")
MAKE_NUMBERS = ("__float__", "item", "tolist", "numpy", "__array__")
DECIDE = ("__bool__", "__int__", "__index__", "equal", "allclose", "is_nonzero")
"""Functions whose result cannot be NaN, on which a forward takes one way or another."""


class StateNumber(float):
    """NaN in place of a number that a forward makes of a state; what is computed of it is one too."""

    def __new__(cls, refusal: UnsupportedError) -> StateNumber:
        """`refusal` is raised where a forward compares the number, or makes a whole number of it."""
        number = super().__new__(cls, "nan")
        number.refusal = refusal
        return number

    refusal: UnsupportedError

    def _refuse(self, *others: Any) -> Any:
        raise self.refusal

    def _compute(self, *others: Any) -> Any:
        return self if all(isinstance(other, (int, float)) for other in others) else NotImplemented

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __bool__ = __int__ = __divmod__ = __rdivmod__ = _refuse
    __round__ = __trunc__ = __floor__ = __ceil__ = is_integer = _refuse
    __hash__ = float.__hash__
    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = _compute
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = _compute
    __abs__ = __neg__ = __pos__ = conjugate = _compute


class StateReads(TorchFunctionMode):
    """The tensors that a forward computes of states while it is traced."""

    def __init__(self, list_set: Callable[[Any], tuple[Any, ...]], hint: str) -> None:
        """`list_set` names the states of a module that a forward may take, `hint` what it does in place of that."""
        super().__init__()
        self._list_set, self._hint = list_set, hint
        self._is_paused = False
        self._keepers: list[tuple[str, torch.nn.Module]] = []
        self._made: dict[int, tuple[torch.Tensor, str]] = {}
        self._taken = ""

    def note_start(self, model: torch.nn.Module) -> None:
        """Watch the states of the modules of a model."""
        self._keepers = [(path, module) for path, module in model.named_modules() if self._list_set(module)]

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Watch nothing, where what modules hold is compared from one call to the next."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, and note what it makes of a state.

        Raises:
            UnsupportedError: it makes a whole number or a decision.
        """
        name = getattr(func, "__name__", "")
        place = "" if name in TAKE_NO_VALUES or self._is_paused or not self._keepers else self._find_source((args, kwargs))
        if place and name in (*DECIDE, *MAKE_NUMBERS):
            self._taken = place
            refusal = UnsupportedError(
                f"the forward takes a branch, or a whole number, by {place}, which keeps it; {self._hint}, and let every step "
                "compute the same"
            )
            if name in DECIDE:
                raise refusal
            if name == "item":
                return StateNumber(refusal)
            args = (torch.full(args[0].shape if args[0].numel() else (1,), torch.nan), *args[1:])
            if name == "tolist":
                return tree_map(lambda _: StateNumber(refusal), args[0].tolist())
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result) if place else ():
            if isinstance(value, torch.Tensor):
                self._made[id(value)] = value, place  # kept, so that no other tensor has its id
        return result

    def _find_source(self, values: Any) -> str:
        """Return the state that the first of some tensors is, or was made of; "" where none was."""
        tensors = (value for value in tree_leaves(values) if isinstance(value, torch.Tensor))
        return next((place for tensor in tensors if (place := self._find_place(tensor))), "")

    def check(self, root: torch.nn.Module, graph: fx.Graph) -> None:
        """Check that a forward computes with no state, and with no number that it has made of one.

        Raises:
            UnsupportedError: it takes one from the module that keeps it.
        """
        place = next((place for node in graph.nodes if (place := self._find_taken(root, node))), "")
        if place:
            raise UnsupportedError(f"the forward computes with {place}, which keeps it; {self._hint}")

    def _find_taken(self, root: torch.nn.Module, node: fx.Node) -> str:
        """Return the state that a node takes, by a tensor or by a number; "" where it takes none."""
        held: list[Any] = tree_leaves((node.args, node.kwargs))
        if node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            held = [getattr(root.get_submodule(path), name, None)]
        elif node.op == "call_module":
            module = root.get_submodule(str(node.target))
            held += [*vars(module).values(), *module._parameters.values(), *module._buffers.values()]
        place = self._find_source(held) if node.op == "get_attr" else ""
        return place or (self._taken if self._taken and any(map(_holds_nan, held)) else "")

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


def _holds_nan(value: Any) -> bool:
    return bool(np.isnan(value)) if isinstance(value, float) else isinstance(value, torch.Tensor) and bool(value.isnan().any())
