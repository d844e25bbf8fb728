"""Functions and layers of einops in a trace, as the tensor methods that they stand for.

A pattern such as "t b c h w -> (t b) c h w" becomes `unflatten`, `permute`, `mean`, `repeat` and `flatten`, which the importer
reads or refuses as those of a forward. einops is no dependency: its functions are found where the model has imported it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import fx

from spear_deploy.errors import UnsupportedError

FUNCTIONS = ("rearrange", "reduce", "repeat")
REDUCTIONS = {"mean": "mean", "sum": "sum", "max": "amax"}
"""Kinds of a reduction that have a counterpart, and the tensor method."""

Groups = list[list[str]]


def find_einops() -> ModuleType | None:
    """Return einops where it is imported."""
    return sys.modules.get("einops")


def list_functions() -> tuple[Any, ...]:
    """Return the functions of einops that have a counterpart."""
    einops = find_einops()
    return tuple(getattr(einops, name) for name in FUNCTIONS if hasattr(einops, name)) if einops is not None else ()


def is_einops_layer(module: Any) -> bool:
    """Return whether a module is a layer of einops with a pattern and no weights, such as Rearrange."""
    return type(module).__module__.startswith("einops.layers") and hasattr(module, "pattern") and not list(module.parameters())


def call_layer(module: Any, x: fx.Proxy, place: str) -> fx.Proxy:
    """Return the symbol of what a layer of einops makes of a tensor."""
    return apply_pattern(x, module.pattern, module.axes_lengths, place=place, reduction=getattr(module, "reduction", None))


def call_einops(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], place: str) -> fx.Proxy:
    """Return the symbol of what a function of einops makes of a tensor."""
    lengths = dict(kwargs)
    values = list(args)
    x = values.pop(0) if values else lengths.pop("tensor")
    pattern = values.pop(0) if values else lengths.pop("pattern")
    reduction = (values.pop(0) if values else lengths.pop("reduction")) if name == "reduce" else None
    return apply_pattern(x, pattern, lengths, place=place, reduction=reduction)


def apply_pattern(x: Any, pattern: str, lengths: Mapping[str, Any], *, place: str, reduction: Any = None) -> Any:
    """Return the symbol of what a pattern makes of a tensor.

    Args:
        x: a symbol of a trace.
        pattern: as einops has it.
        lengths: sizes of axes by name.
        place: the module, for errors.
        reduction: how axes that the right side lacks are reduced.

    Raises:
        UnsupportedError: a pattern that no tensor methods stand for.
    """
    if not isinstance(x, fx.Proxy):
        raise UnsupportedError(f"{place} calls einops on a list of tensors; stack them first")
    left, right = (_parse(side, x, pattern, place) for side in pattern.split("->"))
    for axis in reversed(range(len(left))):
        if len(left[axis]) > 1:
            x = x.unflatten(axis, tuple(lengths.get(name, -1) for name in left[axis]))
        elif not left[axis]:
            x = x.squeeze(axis)
    names = [name for group in left for name in group]
    wanted = [name for group in right for name in group]
    x, names = _reduce(x, names, wanted, reduction, f"{place} has the pattern '{pattern}', which")
    order = [names.index(name) for name in wanted if name in names]
    if order != sorted(order):
        x = x.permute(*order)
    added = [place for place, name in enumerate(wanted) if name not in names]
    for axis in added:
        x = x.unsqueeze(axis)
    if added:
        x = x.repeat(*(lengths[name] if axis in added else 1 for axis, name in enumerate(wanted)))
    end = len(wanted)
    for axis in reversed(range(len(right))):
        start = end - len(right[axis])
        if len(right[axis]) > 1:
            x = x.flatten(start, end - 1)
        elif not right[axis]:
            x = x.unsqueeze(start)
        end = start
    return x


def _reduce(x: Any, names: list[str], wanted: list[str], reduction: Any, what: str) -> tuple[Any, list[str]]:
    """Return a tensor without the axes that the right side of a pattern lacks, and the names of those left."""
    gone = [axis for axis, name in enumerate(names) if name not in wanted]
    if not gone:
        return x, names
    if reduction not in REDUCTIONS:
        raise UnsupportedError(f"{what} reduces by {reduction!r}; expected 'mean', 'sum' or 'max'")
    x = getattr(x, REDUCTIONS[reduction])(gone[0] if len(gone) == 1 else tuple(gone))
    return x, [name for axis, name in enumerate(names) if axis not in gone]


def _parse(side: str, x: Any, pattern: str, place: str) -> Groups:
    """Return the names of the axes of one side of a pattern, in groups; an axis of one position is an empty group."""
    groups: Groups = []
    inner: list[str] | None = None
    for token in re.findall(r"\(|\)|\.\.\.|…|\w+", side):
        if token == "(":
            inner = []
        elif token == ")":
            groups.append(inner or [])
            inner = None
        elif token in ("...", "…"):
            names = [f"...{n}" for n in range(_count_further(pattern, x, place))]
            groups += [[name] for name in names] if inner is None else []
            inner = inner if inner is None else [*inner, *names]
        elif token == "1":
            groups += [[]] if inner is None else []
        elif inner is None:
            groups.append([token])
        else:
            inner.append(token)
    return groups


def _count_further(pattern: str, x: Any, place: str) -> int:
    """Return the number of axes that an ellipsis stands for.

    Raises:
        UnsupportedError: the number of axes of the tensor is not known in a trace.
    """
    count = x.dim() if hasattr(type(x), "dim") else None
    if not isinstance(count, int):
        raise UnsupportedError(f"{place} has the pattern '{pattern}', whose '...' a trace cannot count; name every axis")
    named = re.sub(r"\([^()]*\)", " _ ", pattern.split("->")[0])
    return count - len([token for token in re.findall(r"\w+", named)])
