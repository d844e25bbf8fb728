"""Answers to a forward that asks for the type of a symbol: it is a tensor, as it is when the forward runs.

Without them a forward goes another way in its trace than in its run: `if isinstance(x, torch.Tensor): x = x * gain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx

from spear_deploy.frameworks.importer.forward_code import list_functions
from spear_deploy.frameworks.importer.step_layout import TracedSize

NORMS: tuple[Any, ...] = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.SyncBatchNorm)
"""Norms that check the number of axes before they compute, which a symbol does not know: the layer is checked when it is made."""


@contextmanager
def answering_type_checks(model: torch.nn.Module) -> Iterator[None]:
    """Let the code that a model's forwards and hooks run have an `isinstance` and a `type` that take symbols for tensors."""
    answers = {"isinstance": _is_instance, "type": _Type}
    places = [(space, name) for space in _list_globals(model) for name in answers if name not in space]
    original, checks = torch.is_tensor, {kind: kind._check_input_dim for kind in NORMS}
    for space, name in places:
        space[name] = answers[name]
    for kind in NORMS:
        kind._check_input_dim = lambda self, input: None
    torch.is_tensor = lambda obj: _is_instance(obj, torch.Tensor)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.is_tensor = original
        for kind, check in checks.items():
            kind._check_input_dim = check
        for space, name in places:
            del space[name]


def _is_instance(value: Any, kinds: Any) -> bool:
    if isinstance(value, kinds):
        return True
    flat = kinds if isinstance(kinds, tuple) else getattr(kinds, "__args__", (kinds,))  # int | torch.Tensor has arguments
    return isinstance(value, fx.Proxy) and any(kind is torch.Tensor for kind in flat)


class _TypeAnswers(type):
    """What `type` does in a trace: of a symbol it is the tensor's, of a size that of a number."""

    def __call__(cls, *values: Any, **options: Any) -> Any:
        if len(values) == 1 and isinstance(values[0], (fx.Proxy, TracedSize)):
            return torch.Tensor if isinstance(values[0], fx.Proxy) else int
        return type(*values, **options)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, type)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, type)


class _Type(type, metaclass=_TypeAnswers):
    """The `type` of a trace."""


def _list_globals(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return the global names of the code that forwards and hooks of the user run, helpers in other files too, each once."""
    return list({id(function.__globals__): function.__globals__ for function in list_functions(model)}.values())
