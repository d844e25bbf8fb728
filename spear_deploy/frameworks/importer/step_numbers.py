"""Forwards that do more with the number of a step than take x[t] by it: a later step may compute something else."""

from __future__ import annotations

import dis
import inspect
from itertools import pairwise
from typing import Any

import torch

LONGER = (30, 12, 4)
"""Further steps of a second trace of such a forward, fewer where it has no value for so many."""
SUBSCRIPTS = ("BINARY_SUBSCR", "STORE_SUBSCR")
SLICES = ("LOAD_CONST", "BUILD_SLICE", "BUILD_TUPLE")


def uses_step_numbers(model: torch.nn.Module) -> bool:
    """Return whether a forward within a model counts, or uses the number of a step beside x[t] and outputs[t] = y."""
    for _, module in torch.nn.Module.named_modules(model):
        own = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.")]
        for function in [vars(module).get("forward"), *(vars(kind).get("forward") for kind in own)]:
            code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None) if function else None
            if code is not None and (_counts(steps := _list_steps(code)) or _passes_on(code, steps)):
                return True
    return False


def _list_steps(code: Any) -> list[tuple[str, Any]]:
    """Return the instructions of code as (name, argument), those that load two variables as two."""
    found: list[tuple[str, Any]] = []
    for step in dis.get_instructions(code):
        if step.opname in ("CACHE", "NOP", "EXTENDED_ARG", "PRECALL", "RESUME"):
            continue
        names = step.argval if isinstance(step.argval, tuple) and "_FAST" in step.opname else None
        if names is None:
            found.append((step.opname, step.argrepr if step.opname == "BINARY_OP" else step.argval))
        else:  # such as STORE_FAST_LOAD_FAST
            kinds = [kind for kind in step.opname.split("_") if kind in ("LOAD", "STORE")]
            found += [(f"{kind}_FAST", name) for kind, name in zip(kinds, names, strict=True)]
    return found


def _counts(steps: list[tuple[str, Any]]) -> bool:
    """Return whether code adds a whole number to something, as a counter of steps does."""
    adds = (("BINARY_OP", "+="), ("INPLACE_ADD", None))
    return any(before[0].startswith("LOAD") and type(before[1]) is int and after in adds for before, after in pairwise(steps))


def _passes_on(code: Any, steps: list[tuple[str, Any]]) -> bool:
    """Return whether code uses a variable that runs over steps for more than an index of its input or of outputs."""
    inputs, loops = _list_inputs(code, steps), _list_loops(steps)
    places = [n for n, step in enumerate(steps) if step[0].startswith("LOAD_FAST")]
    indices = {steps[n][1] for n in places if _takes_index(steps, n, inputs, ("BINARY_SUBSCR",))} - inputs
    indices |= {name for name, read in loops if read & inputs and read & {"range", "enumerate"}}
    if sum(name in indices for name, _ in loops) > 1:  # one loop for the first steps, one for the others
        return True
    return any(steps[n][1] in indices and not _takes_index(steps, n, inputs, SUBSCRIPTS) for n in places)


def _list_loops(steps: list[tuple[str, Any]]) -> list[tuple[Any, set[Any]]]:
    """Return the first variable of each loop, with the names that its range is made of."""
    loops: list[tuple[Any, set[Any]]] = []
    read: set[Any] = set()
    for n, (name, value) in enumerate(steps):
        if name.startswith(("LOAD", "CALL")) and isinstance(value, str):
            read.add(value)
        elif name == "FOR_ITER":
            stored = next((step[1] for step in steps[n + 1 : n + 3] if step[0] == "STORE_FAST"), None)
            loops.append((stored, read))
        if name.startswith(("STORE", "POP_TOP")):
            read = set()
    return loops


def _list_inputs(code: Any, steps: list[tuple[str, Any]]) -> set[str]:
    """Return the names of the input of a forward, and of what is made of it in front of the first loop."""
    inputs, reads = set(code.co_varnames[1:2]), False
    for name, value in steps[: next((n for n, step in enumerate(steps) if step[0] == "FOR_ITER"), None)]:
        if name.startswith("LOAD_FAST"):
            reads |= value in inputs
        elif name == "STORE_FAST":
            inputs |= {value} if reads else set()
            reads = False
    return inputs


def _takes_index(steps: list[tuple[str, Any]], place: int, inputs: set[str], kinds: tuple[str, ...]) -> bool:
    """Return whether the variable loaded at a place is the index of an input, alone or beside slices, or of what is stored."""
    after = place + 1
    while after < len(steps) and steps[after][0] in SLICES:
        after += 1
    if after == len(steps) or steps[after][0] not in kinds:
        return False
    if steps[after][0] == "STORE_SUBSCR":
        return True
    before = place - 1
    while before > 0 and steps[before][0] in SLICES:
        before -= 1
    return steps[before][0].startswith("LOAD_FAST") and steps[before][1] in inputs
