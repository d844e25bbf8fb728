"""What modules hold when a traced forward calls them: it has to be the same in every step.

A trace calls no module of neurons; the network is read from what the modules hold behind it, which is checked to be what they
held at each call. A forward may set a threshold or a decay in front of its loop, or make it of parameters, `self.lif.beta =
torch.sigmoid(self.raw)`, also one in a named tuple.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.symbols import Symbol, TensorValue, name_module
from spear_deploy.frameworks.importer.traced_model import UnclearForward

NUMBERS = (bool, int, float, str, type(None))
END = ("behind its call", "set it in front of its calls alone")
STARTS_ELSEWHERE = "{} starts from a state that the forward sets, other than that of its reset; let it start from its reset"
MAX_COPIED = 10_000
"""Values up to which a tensor is copied, to tell whether what changes it changes a value."""


class CallSettings:
    """Numbers and tensors of the modules that a forward calls, as they were at the first call of each."""

    def __init__(self, list_held: Callable[[Any], tuple[Any, ...]], list_set: Callable[[Any], tuple[Any, ...]]) -> None:
        """`list_held` names the states that a module keeps, `list_set` those that a forward may set."""
        self._list_held, self._list_set = list_held, list_set
        self._held: dict[int, list[tuple[int, int]]] = {}
        self._states: dict[str, list[tuple[int, int]]] = {}
        self._first: dict[str, dict[str, Any]] = {}
        self._called: dict[str, Any] = {}
        self._nodes: dict[str, fx.Node] = {}
        self._reset: set[str] = set()
        self._starts: list[tuple[Callable[[Any], bool], bool]] = []

    def note_start(self, model: torch.nn.Module) -> None:
        """Take down the states that the modules of a model keep in front of the forward."""
        self._held = {id(module): _note_memory(self._list_set(module)) for module in model.modules()}

    def note_call(self, module: torch.nn.Module, path: str) -> dict[str, dict[str, Any]]:
        """Check a call of a module against the first one, and return what it holds that the forward has computed.

        Returns:
            "settings", the nodes of what the module holds by name, and "plain", tensors in place of another call's node.

        Raises:
            UnsupportedError: a number or tensor is another one, or its state begins elsewhere than that of its neurons.
            UnclearForward: its state was reset since its last call.
        """
        place = name_module(path.removeprefix("model").strip("."))
        if path in self._reset:
            raise UnclearForward(f"it resets {place} between two of its steps, which no layer here does; let all states go on")
        if path not in self._called and not next((own for concerns, own in reversed(self._starts) if concerns(module)), True):
            raise UnsupportedError(STARTS_ELSEWHERE.format(place))
        held = _list_settings(module)
        if path not in self._first:  # to copy its tensors at each call would take most of a trace
            self._first[path] = {name: _keep(value) for name, value in held.items()}
        first = self._first[path]
        self._called[path] = module
        states = _note_memory(self._list_set(module))
        if path not in self._states and states != self._held.get(id(module)) and any(map(_is_other, self._list_set(module))):
            raise UnsupportedError(STARTS_ELSEWHERE.format(place))
        if self._states.setdefault(path, states) != states:
            raise UnsupportedError(f"{place} has another state in a later step, since the forward sets it; let its state go on")
        self._check_same(held, first, place, "in a later step", "let every step compute the same")
        nodes = {name: value.node for name, value in held.items() if isinstance(value, fx.Proxy)}
        for name in nodes:
            if isinstance(first.get(name), tuple):  # of the first call, whose node is there now
                self._nodes[path].meta.setdefault("plain", {})[name] = first[name][0]
        plain = {
            name: value
            for name, value in held.items()
            if isinstance(first.get(name), fx.Proxy) and isinstance(value, torch.Tensor)
        }
        return {"settings": nodes, "plain": plain} if nodes or plain else {}

    def note_node(self, path: str, node: fx.Node) -> None:
        """Take down the node of a call."""
        self._nodes.setdefault(path, node)

    def check_end(self) -> None:
        """Check that the modules hold behind the trace what they held at their calls.

        Raises:
            UnsupportedError: the forward has set a number or tensor behind a call.
        """
        for path, module in self._called.items():
            states = self._list_held(module)
            held = {name: value for name, value in _list_settings(module).items() if all(value is not state for state in states)}
            self._check_same(held, self._first[path], name_module(path.removeprefix("model").strip(".")), *END)

    @staticmethod
    def _check_same(held: dict[str, Any], first: dict[str, Any], place: str, when: str, remedy: str) -> None:
        for name, value in held.items():
            if name in first and not _is_same(first[name], value):
                raise UnsupportedError(f"{place} has another '{name}' {when}, since the forward sets it; {remedy}")

    @property
    def resets(self) -> bool:
        """Return whether the states of modules were reset."""
        return bool(self._starts)

    def note_reset(self, concerns: Callable[[Any], bool], *, is_own: bool = True) -> None:
        """Take down that the states of some modules are reset, to their own values or to others."""
        self._starts.append((concerns, is_own))
        self._reset |= {path for path, module in self._called.items() if concerns(module)}


class ComputedSettings:
    """Tensors that a forward computes of parameters and sets in front of calls, given to the modules that hold them."""

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, str], torch.Tensor] = {}

    def give(self, module: torch.nn.Module, node: fx.Node, symbols: dict[fx.Node, Symbol], place: str) -> None:
        """Give a module what the forward has computed in front of a call; a state that it keeps there is not read.

        Raises:
            UnsupportedError: another one than in front of an earlier call.
        """
        made = {name: symbols.get(origin) for name, origin in node.meta.get("settings", {}).items()}
        tensors = {name: symbol.tensor for name, symbol in made.items() if isinstance(symbol, TensorValue)}
        for name, tensor in {**node.meta.get("plain", {}), **tensors}.items():
            earlier = self._tensors.setdefault((str(node.target), name), tensor)
            if not torch.equal(earlier, tensor):
                raise UnsupportedError(
                    f"{place} has another '{name}' in a later step, since the forward sets it; let every step compute the same"
                )
            _set_tensor(module, name, earlier)


def _set_tensor(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Set a tensor of a module, or of a named tuple of its parameters."""
    whole, _, part = name.partition(".")
    if part:
        vars(module)[whole] = vars(module)[whole]._replace(**{part: tensor})
        return
    for place in (module._parameters, module._buffers):
        place.pop(name, None)
    vars(module)[name] = tensor


def _is_other(state: Any) -> bool:
    """Return whether a state is a tensor with values other than zero."""
    return isinstance(state, torch.Tensor) and bool(state.detach().any())


def _note_memory(states: tuple[Any, ...]) -> list[tuple[int, int]]:
    """Return the memory of tensors, which is the same behind `detach`, and how often it was changed."""
    tensors = [state for state in states if isinstance(state, torch.Tensor) and state.layout == torch.strided]
    return [(tensor.untyped_storage()._cdata, tensor._version) for tensor in tensors]


def _list_settings(module: torch.nn.Module) -> dict[str, Any]:
    """Return the numbers and tensors that a module holds by name, symbols of the trace among them, of tuples one by one."""
    held = {**vars(module), **module._parameters, **module._buffers}
    tuples = {name: value for name, value in held.items() if isinstance(value, tuple) and hasattr(value, "_asdict")}
    held |= {f"{name}.{part}": value for name, parts in tuples.items() for part, value in parts._asdict().items()}
    return {
        name: value
        for name, value in held.items()
        if isinstance(value, (*NUMBERS, torch.Tensor, fx.Proxy)) and not name.startswith("_")
    }


def _keep(value: Any) -> Any:
    """Return what tells later whether a value has changed: a tensor as it was, with the object and its version."""
    if not isinstance(value, torch.Tensor) or value.is_meta or torch.nn.parameter.is_lazy(value):
        return value
    return value, value._version, value.detach().clone() if value.numel() <= MAX_COPIED else None


def _is_same(first: Any, later: Any) -> bool:
    """Return whether a value is that of the first call; of symbols that shows when they are read."""
    if not isinstance(first, tuple):
        return first is later or first == later if isinstance(first, NUMBERS) and isinstance(later, NUMBERS) else True
    tensor, version, copied = first
    if later is tensor and later._version == version:
        return True
    if not isinstance(later, torch.Tensor) or later.layout != torch.strided:
        return isinstance(later, fx.Proxy)
    if copied is None:
        return later is not tensor and torch.equal(tensor, later)
    return copied.shape == later.shape and torch.equal(copied.nan_to_num(), later.detach().nan_to_num())


def read_generators() -> tuple[Any, ...]:
    """Return the states of the generators of random numbers that a forward may draw from."""
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), np.asarray(keys).tobytes(), (kind, *rest)
