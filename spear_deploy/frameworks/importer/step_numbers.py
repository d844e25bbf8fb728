"""Forwards that do more with the number of a step than take x[t] by it: a later step may compute something else."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

import torch

LONGER = (30, 12, 4)
"""Further steps of a second trace of such a forward, fewer where it has no value for so many."""
SUBSCRIPTS = ("BINARY_SUBSCR", "STORE_SUBSCR")
SLICES = ("LOAD_CONST", "BUILD_SLICE", "BUILD_TUPLE")
LIBRARIES = ("torch", "numpy", "einops", "norse", "snntorch", "spikingjelly", "sinabs", "rockpool")
"""Packages whose functions compute the same in every step."""
LOCAL = {"LOAD_DEREF": "LOAD_FAST", "LOAD_CLOSURE": "LOAD_FAST", "STORE_DEREF": "STORE_FAST"}
"""Variables that a function within the function uses too."""

Steps: TypeAlias = list[tuple[str, Any]]


def uses_step_numbers(model: torch.nn.Module) -> bool:
    """Return whether a forward within a model counts, or uses the number of a step beside x[t] and outputs[t] = y.

    Methods and functions that a forward calls, and comprehensions, belong to it.
    """
    for _, module in torch.nn.Module.named_modules(model):
        own = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.")]
        for function in [vars(module).get("forward"), *(vars(kind).get("forward") for kind in own)]:
            function = inspect.unwrap(getattr(function, "__func__", function)) if function else None
            if isinstance(function, FunctionType) and any(map(_uses_numbers, _list_called(function, type(module)))):
                return True
    return False


@dataclass(frozen=True)
class _Code:
    """Code that a forward runs, with the names of what may hold all steps."""

    code: CodeType
    inputs: frozenset[str]
    is_range: bool = False


def _list_called(function: FunctionType, kind: type) -> Iterator[_Code]:
    """Yield the code of a forward, and of the functions and methods that it calls."""
    waiting, seen = [(function, function.__code__.co_varnames[1:2])], {function.__code__}
    while waiting:
        function, names = waiting.pop()
        yield from (part for name in names for part in _list_parts(function.__code__, frozenset((name,))))
        for called in _list_named(function, kind):
            if called.__code__ not in seen:
                seen.add(called.__code__)
                waiting.append((called, called.__code__.co_varnames[: called.__code__.co_argcount]))


def _list_parts(code: CodeType, inputs: frozenset[str]) -> Iterator[_Code]:
    """Yield code, and the comprehensions and functions in it."""
    yield _Code(code, inputs)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            for part in _list_parts(inner, inputs | {".0"}):
                yield replace(part, is_range=not {"range", "enumerate"}.isdisjoint(code.co_names))


def _list_named(function: FunctionType, kind: type) -> Iterator[FunctionType]:
    """Yield the methods of a class and the functions that the names in a function stand for, but for those of libraries."""
    codes = [part.code for part in _list_parts(function.__code__, frozenset())]
    names = {name for code in codes for name in code.co_names}
    values = [function.__globals__.get(name) for name in names]
    owners = [kind, *(value for value in values if isinstance(value, ModuleType))]
    for value in [*values, *(getattr(owner, name, None) for owner in owners for name in names if name != "forward")]:
        if isinstance(value, FunctionType) and value.__module__.partition(".")[0] not in LIBRARIES:
            yield value


def _uses_numbers(part: _Code) -> bool:
    """Return whether code counts or uses the number of a step."""
    steps = _list_steps(part.code)
    arguments = part.code.co_varnames[: part.code.co_argcount]
    return _counts(steps, part.inputs.union(arguments)) or _passes_on(steps, part)


def _list_steps(code: CodeType) -> Steps:
    """Return the instructions of code as (name, argument), those that load two variables as two."""
    found: Steps = []
    for step in dis.get_instructions(code):
        if step.opname in ("CACHE", "NOP", "EXTENDED_ARG", "PRECALL", "RESUME"):
            continue
        names = step.argval if isinstance(step.argval, tuple) and "_FAST" in step.opname else None
        if names is None:
            name = LOCAL.get(step.opname, step.opname)
            found.append((name, step.argrepr if name == "BINARY_OP" else step.argval))
        else:  # such as STORE_FAST_LOAD_FAST
            kinds = [kind for kind in step.opname.split("_") if kind in ("LOAD", "STORE")]
            found += [(f"{kind}_FAST", name) for kind, name in zip(kinds, names, strict=True)]
    return found


def _counts(steps: Steps, inputs: frozenset[str]) -> bool:
    """Return whether code adds a whole number to what it keeps, as a counter of steps does, or takes the length of a list."""
    for n, (name, value) in enumerate(steps):
        rest = steps[n + 1 : n + 4]
        if name.startswith("LOAD") and type(value) is int and rest:
            stores = any(step[0] in ("STORE_FAST", "STORE_ATTR") for step in rest[1:])
            if rest[0] in ADDS or (rest[0] in SUMS and stores):
                return True
        if (name, value) == ("LOAD_GLOBAL", "len") and rest and rest[0][0].startswith("LOAD_FAST"):
            if rest[0][1] not in inputs and rest[1:] and rest[1][0].startswith("CALL"):
                return True
    return False


ADDS = (("BINARY_OP", "+="), ("INPLACE_ADD", None))
SUMS = (("BINARY_OP", "+"), ("BINARY_ADD", None))


def _passes_on(steps: Steps, part: _Code) -> bool:
    """Return whether code uses a variable that runs over steps for more than an index of its input or of outputs."""
    inputs, loops = _list_inputs(part, steps), _list_loops(steps)
    places = [n for n, step in enumerate(steps) if step[0].startswith("LOAD_FAST")]
    indices = {steps[n][1] for n in places if _takes_index(steps, n, inputs, ("BINARY_SUBSCR",))} - inputs
    indices |= {name for name, read in loops if read & inputs and (part.is_range or read & {"range", "enumerate"})}
    if sum(name in indices for name, _ in loops) > 1:  # one loop for the first steps, one for the others
        return True
    return any(steps[n][1] in indices and not _takes_index(steps, n, inputs, SUBSCRIPTS) for n in places)


def _list_loops(steps: Steps) -> list[tuple[Any, set[Any]]]:
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


def _list_inputs(part: _Code, steps: Steps) -> set[str]:
    """Return the names of the input of a forward, and of what is made of it in front of the first loop."""
    inputs, reads = set(part.inputs), False
    for name, value in steps[: next((n for n, step in enumerate(steps) if step[0] == "FOR_ITER"), None)]:
        if name.startswith("LOAD_FAST"):
            reads |= value in inputs
        elif name == "STORE_FAST":
            inputs |= {value} if reads else set()
            reads = False
    return inputs


def _takes_index(steps: Steps, place: int, inputs: set[str], kinds: tuple[str, ...]) -> bool:
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
