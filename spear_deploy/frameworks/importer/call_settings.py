"""What modules hold when a traced forward calls them: it has to be the same in every step.

A trace calls no module of neurons; the network is read from what the modules hold behind it. A forward may set a threshold or a
decay in front of its loop, or make it of parameters, `self.lif.beta = torch.sigmoid(self.raw)`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.symbols import name_module
from spear_deploy.frameworks.importer.traced_model import UnclearForward

NUMBERS = (bool, int, float, str)
MAX_COPIED = 10_000
"""Values up to which a tensor is copied, to tell whether what changes it changes a value."""


class CallSettings:
    """Numbers and tensors of the modules that a forward calls, as they were at the first call of each."""

    def __init__(self) -> None:
        self._first: dict[str, dict[str, Any]] = {}
        self._called: dict[str, Any] = {}
        self._reset: set[str] = set()
        self._starts: list[tuple[Callable[[Any], bool], bool]] = []

    def note_call(self, module: torch.nn.Module, path: str) -> dict[str, fx.Node]:
        """Check a call of a module against the first one, and return what it holds that the forward has computed.

        Raises:
            UnsupportedError: a number or tensor is another one, or its state begins elsewhere than that of its neurons.
            UnclearForward: its state was reset since its last call.
        """
        place = name_module(path.removeprefix("model").strip("."))
        if path in self._reset:
            raise UnclearForward(f"it resets {place} between two of its steps, which no layer here does; let all states go on")
        if path not in self._called and not next((own for concerns, own in reversed(self._starts) if concerns(module)), True):
            raise UnsupportedError(
                f"{place} starts from a state that the forward sets, other than that of its reset; let it start from its reset"
            )
        held = _list_settings(module)
        if path not in self._first:  # to copy its tensors at each call would take most of a trace
            self._first[path] = {name: _keep(value) for name, value in held.items()}
        first = self._first[path]
        self._called[path] = module
        for name, value in held.items():
            if name in first and not _is_same(first[name], value):
                raise UnsupportedError(
                    f"{place} has another '{name}' in a later step, since the forward sets it; let every step compute the same"
                )
        return {name: value.node for name, value in held.items() if isinstance(value, fx.Proxy)}

    def note_reset(self, concerns: Callable[[Any], bool], *, is_own: bool = True) -> None:
        """Take down that the states of some modules are reset, to their own values or to others."""
        self._starts.append((concerns, is_own))
        self._reset |= {path for path, module in self._called.items() if concerns(module)}


def _list_settings(module: torch.nn.Module) -> dict[str, Any]:
    """Return the numbers and tensors that a module holds by name, symbols of the trace among them."""
    held = {**vars(module), **module._parameters, **module._buffers}
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
