"""What can a symbol in a traced forward stand for? Outputs of layers, states, shapes; and several of them in one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import Shape

ZEROS = "zeros "
"""How the name of a value of zeros starts: what a forward takes in its first step for what it hands on later."""


@dataclass(frozen=True)
class Value:
    """What a layer emits; `age` steps ago."""

    name: str
    shape: Shape
    age: int = 0

    @property
    def zero(self) -> bool:
        """Whether it is zeros, which no layer emits."""
        return self.name.startswith(ZEROS)


@dataclass(frozen=True)
class Concat:
    """Values side by side along their first axis, the channels."""

    parts: tuple[Value, ...]

    @property
    def shape(self) -> Shape:
        """The shape of the whole."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])


@dataclass(frozen=True)
class State:
    """States of neurons as they were `age` steps ago."""

    of: frozenset[str] = frozenset()
    age: int = 0


@dataclass(frozen=True)
class Pair:
    """What a stateful module returns."""

    value: Value
    state: State


@dataclass(frozen=True)
class Sizes:
    """The shape of a value as a tensor has it: (steps,) batch, *shape."""

    value: Value | Concat


@dataclass(frozen=True)
class Leading:
    """The size of the batch or time axis."""

    axis: int


@dataclass(frozen=True)
class Sequence:
    """The input of all steps, over which a forward loops itself."""

    value: Value


@dataclass(frozen=True)
class Collected:
    """A tensor into which a forward writes what it emits, step by step."""

    written: tuple[tuple[int, Value], ...] = ()


Thing: TypeAlias = Any
"""One of the above, a tuple or dictionary of them, or a constant."""


def describe(thing: Thing) -> str:
    """Say what a thing in a trace is."""
    if isinstance(thing, Value):
        when = {0: "", 1: " one step before"}.get(thing.age, f" {thing.age} steps before")
        return "zeros" if thing.zero else f"the output of '{thing.name}'{when}"
    kinds: tuple[tuple[Any, str], ...] = (
        (State, "the state of a neuron"),
        (Pair, "(output, state)"),
        (Concat, "outputs side by side"),
        ((Sizes, Leading), "a shape"),
        (Sequence, "the input of all steps"),
        (Collected, "the outputs of all steps"),
        (dict, "a dictionary"),
    )
    found = next((text for kind, text in kinds if isinstance(thing, kind)), None)
    return found or (f"{len(thing)} values" if isinstance(thing, tuple) else f"the constant {thing!r}")


def one_value(given: Thing, place: str) -> Value:
    """Return the output of a layer, or say what is there in its place."""
    if isinstance(given, Value):
        return given
    if isinstance(given, (Pair, tuple)):
        raise UnsupportedError(
            f"{place} gets (output, state) of the module before it; use SequentialState in place of Sequential"
        )
    raise UnsupportedError(f"{place} gets {describe(given)}, expected the output of a module")


def aged(thing: Thing, steps: int) -> Thing:
    """Return a thing as it looks so many steps later."""
    if not steps:
        return thing
    if isinstance(thing, (Value, State)):
        return thing if isinstance(thing, Value) and thing.zero else replace(thing, age=thing.age + steps)
    if isinstance(thing, Pair):
        return Pair(aged(thing.value, steps), aged(thing.state, steps))
    if isinstance(thing, Concat):
        return Concat(tuple(aged(part, steps) for part in thing.parts))
    if isinstance(thing, dict):
        return {key: aged(part, steps) for key, part in thing.items()}
    return tuple(aged(part, steps) for part in thing) if isinstance(thing, tuple) else thing


def values_in(thing: Thing) -> list[Value]:
    """Return the values in a thing, in order; those that a shape belongs to are not."""
    if isinstance(thing, Value):
        return [thing]
    if isinstance(thing, Pair):
        return [thing.value]
    parts = thing.parts if isinstance(thing, Concat) else thing.values() if isinstance(thing, dict) else thing
    return [value for part in parts for value in values_in(part)] if isinstance(thing, (Concat, dict, tuple)) else []


def where(path: str) -> str:
    """Name a place in the model."""
    return f"module '{path}'" if path else "the model"
