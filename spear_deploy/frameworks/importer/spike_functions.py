"""Spike functions and methods of a neuron module, compared with those of its framework."""

from __future__ import annotations

from typing import Any

import torch

from spear_deploy.errors import UnsupportedError, summarize_error

MAGNITUDES = (2.0**-20, 1e-3, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 10.0, 1000.0)
"""Distances from the threshold at which a function is run."""


def check_spike_function(module: Any, setting: str, place: str, *, spikes_at_threshold: bool, remedy: str) -> None:
    """Refuse a function of the distance v − threshold that is not the step of its framework in its forward.

    A surrogate gradient changes the backward pass alone; a function of a user's own may send anything.

    Raises:
        UnsupportedError: it sends other values than 0 and 1, sends them elsewhere, or fails.
    """
    function = getattr(module, setting)
    name = getattr(function, "__qualname__", type(function).__name__).split(".")[0]
    holders = [part for part in (function, module) if isinstance(part, torch.nn.Module)]
    tensors = [t for part in holders for t in (*part.parameters(), *part.buffers())]
    x = torch.tensor([0.0, *MAGNITUDES, *(-value for value in MAGNITUDES)], device=tensors[0].device if tensors else None)
    try:
        with torch.no_grad():
            made = torch.as_tensor(function(x)).reshape(x.shape).float()
    except Exception as error:
        raise UnsupportedError(
            f"{place} has {setting}={name}, which fails on numbers ({summarize_error(error)}); {remedy}"
        ) from error
    expected = (x >= 0 if spikes_at_threshold else x > 0).float()
    if not torch.equal(made, expected):
        first = int((made != expected).nonzero()[0, 0])
        raise UnsupportedError(
            f"{place} has {setting}={name}, which sends {made[first]:g} where v − threshold is {x[first]:g}, expected "
            f"{expected[first]:g}; {remedy}"
        )


def find_own_method(module: Any, kind: Any, names: tuple[str, ...]) -> str | None:
    """Return the first of the methods that compute a step that a module has in place of those of a class, or None."""
    own = (name for name in names if name in vars(module) or getattr(type(module), name, None) is not getattr(kind, name, None))
    return next(own, None)


def check_methods(module: Any, kind: Any, names: tuple[str, ...], place: str) -> None:
    """Refuse a module with methods of a user's own in place of those that compute the step of a class of its framework.

    Raises:
        UnsupportedError: one of them is another.
    """
    if name := find_own_method(module, kind, names):
        raise UnsupportedError(
            f"{place} has a method '{name}' of its own in place of that of {kind.__name__}; use {kind.__name__} as it is, and "
            "compute in front of it or behind it"
        )
