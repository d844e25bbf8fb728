"""Answers to a forward that asks for the type of a symbol: it is a tensor, as it is when the forward runs.

Without them a forward goes another way in its trace than in its run: `if isinstance(x, torch.Tensor): x = x * gain`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx

NORMS: tuple[Any, ...] = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.SyncBatchNorm)
"""Norms that check the number of axes before they compute, which a symbol does not know: the layer is checked when it is made."""


@contextmanager
def answering_type_checks(model: torch.nn.Module) -> Iterator[None]:
    """Let the forwards and hooks of a model's modules have an `isinstance` that takes symbols of a trace for tensors."""
    spaces = [space for space in _list_globals(model) if "isinstance" not in space]
    original, checks = torch.is_tensor, {kind: kind._check_input_dim for kind in NORMS}
    for space in spaces:
        space["isinstance"] = _is_instance
    for kind in NORMS:
        kind._check_input_dim = lambda self, input: None
    torch.is_tensor = lambda obj: _is_instance(obj, torch.Tensor)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.is_tensor = original
        for kind, check in checks.items():
            kind._check_input_dim = check
        for space in spaces:
            del space["isinstance"]


def _is_instance(value: Any, kinds: Any) -> bool:
    if isinstance(value, kinds):
        return True
    flat = kinds if isinstance(kinds, tuple) else getattr(kinds, "__args__", (kinds,))  # int | torch.Tensor has arguments
    return isinstance(value, fx.Proxy) and any(kind is torch.Tensor for kind in flat)


def _list_globals(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return the global names of the modules of code in which forwards and hooks of the user are, each once."""
    functions: list[Any] = []
    for _, module in torch.nn.Module.named_modules(model):
        functions += [vars(kind).get("forward") for kind in type(module).__mro__]
        functions += [vars(module).get("forward"), *module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    found: dict[int, dict[str, Any]] = {}
    for function in functions:
        inner = inspect.unwrap(getattr(function, "__func__", function)) if callable(function) else None
        space = getattr(inner, "__globals__", None)
        if space is not None and not str(space.get("__name__", "")).startswith("torch."):
            found[id(space)] = space
    return list(found.values())
