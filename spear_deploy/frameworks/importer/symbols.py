"""Symbols of a traced forward: signals, states, shapes, groups of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.network import Shape
from spear_deploy.util.number_format import format_shape

ZEROS = "zeros "
"""Prefix of the name of a signal of zeros: the start of a feedback, before there is an output to feed back."""

STEPS, MERGED = -1, -2
"""The axis of time in a forward that loops over it, and time and batch in one axis."""


@dataclass(frozen=True)
class Signal:
    """The output of a layer, `age` steps ago; or zeros."""

    name: str
    shape: Shape
    age: int = 0

    @property
    def is_zero(self) -> bool:
        """Whether it is zeros, which no layer emits."""
        return self.name.startswith(ZEROS)


@dataclass(frozen=True)
class Concat:
    """Signals concatenated along their first axis, the channels."""

    parts: tuple[Signal, ...]

    @property
    def shape(self) -> Shape:
        """The shape of the whole."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])


@dataclass(frozen=True)
class Channels:
    """The channels of a signal from `start` to before `stop`."""

    signal: Signal
    start: int
    stop: int

    @property
    def shape(self) -> Shape:
        """The shape of these channels."""
        return (self.stop - self.start, *self.signal.shape[1:])


@dataclass(frozen=True)
class Reordered:
    """A signal with its axes in another order, such as positions in front of channels.

    Attributes:
        signal: the signal; where it was flattened, as one axis in its own order.
        axes: the sizes of its axes, in its own order.
        order: which of them stands at each place.
        is_flat: whether they were flattened in that order.
    """

    signal: Signal
    axes: Shape
    order: tuple[int, ...]
    is_flat: bool = False

    @property
    def shape(self) -> Shape:
        """The shape that the forward sees."""
        return self.signal.shape if self.is_flat else tuple(self.axes[axis] for axis in self.order)


@dataclass(frozen=True)
class Moved:
    """A signal of one axis in a model over time, with time or batch behind it.

    Attributes:
        signal: the signal.
        order: which of the three axes, time and batch in their own order and then the signal's, stands at each place.
    """

    signal: Signal
    order: tuple[int, ...]


@dataclass(frozen=True)
class Complement:
    """1 less a signal of spikes: 1 where a neuron sends none."""

    signal: Signal

    @property
    def shape(self) -> Shape:
        """The shape of the signal."""
        return self.signal.shape


@dataclass(frozen=True)
class Grouped:
    """A signal of one axis, of which a forward makes two: groups, and the places in each."""

    signal: Signal
    sizes: tuple[int, int]


@dataclass(frozen=True)
class Merged:
    """A signal in a model over time whose axes of time and batch are one."""

    signal: Any

    @property
    def shape(self) -> Shape:
        """The shape of the signal."""
        shape: Shape = self.signal.shape
        return shape


@dataclass(frozen=True)
class Still(Merged):
    """A signal without an axis of time in a model over time, which repeats it further on: it is the same in every step."""


@dataclass(frozen=True)
class Statistic:
    """A number taken over samples, such as a rate for a penalty: it may be kept or returned, and goes into no layer."""


@dataclass(frozen=True)
class OneStep:
    """The output of one step with an axis of time, to be joined with those of others."""

    output: Any
    axis: int


class TensorValue:
    """A parameter or buffer of the model in a calculation; equal to another of the same values."""

    def __init__(self, tensor: torch.Tensor, path: str) -> None:
        self.tensor, self.path = tensor.detach(), path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorValue) and torch.equal(self.tensor, other.tensor)

    def __hash__(self) -> int:
        return hash(tuple(self.tensor.shape))

    def describe(self) -> str:
        """Return the tensor in words: a trace gives a name of its own to one that is none of a module's."""
        if "_tensor_constant" in self.path:
            return f"a tensor of {format_shape(tuple(self.tensor.shape))} that the forward makes or keeps"
        return f"the tensor '{self.path}'"


@dataclass(frozen=True)
class State:
    """States of the neurons of the named layers, `age` steps ago.

    Attributes:
        parts: names of what an index takes of it, in order, where they are known.
        part: the one that was taken; "" for the whole.
    """

    layers: frozenset[str] = frozenset()
    age: int = 0
    parts: tuple[str, ...] = ()
    part: str = ""

    def take(self, name: str) -> State:
        """Return a part of it."""
        return replace(self, part=name)


@dataclass(frozen=True)
class Potential(State):
    """The membrane potential of the neurons of one layer, which a forward reads of their module."""


@dataclass(frozen=True)
class OutputAndState:
    """The result of a stateful module.

    Attributes:
        parts: names of the parts of the state that follow the output, in order; () where one object holds them.
    """

    output: Signal
    state: State
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class SymbolShape:
    """A shape as a tensor has it: the sizes of some axes, which are batch and time, around those of a signal."""

    before: tuple[AxisSize, ...]
    shape: Shape
    after: tuple[AxisSize, ...] = ()

    @property
    def sizes(self) -> tuple[AxisSize | int, ...]:
        """The sizes of all axes."""
        return (*self.before, *self.shape, *self.after)


@dataclass(frozen=True)
class AxisSize:
    """The size of the batch or time axis, or a number computed from it.

    Attributes:
        axis: counted without time in a forward that loops over it, where time is `STEPS`.
        power: 1, of one over the size -1, of another number 0.
    """

    axis: int
    power: int = 1


@dataclass(frozen=True)
class StepInputs:
    """The input of all steps, for a forward that loops over time itself."""

    signal: Signal


@dataclass(frozen=True)
class BatchFirst:
    """The outputs of all steps, stacked behind the batch."""

    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class TimeLast(BatchFirst):
    """The outputs of all steps, stacked behind their positions."""


@dataclass(frozen=True)
class Decoded:
    """The outputs of all steps, decoded over time by the forward itself.

    Attributes:
        outputs: the outputs.
        how: what the forward returns of them, such as mean or sum.
        kind: "mean", which a linear layer may follow; "sum", or a multiple of it, which a linear layer without bias may follow;
            "last", the output of the last step, which either may follow; "other".
    """

    outputs: Any
    how: str
    kind: Literal["mean", "sum", "last", "other"] = "other"


Symbol: TypeAlias = Any
"""One of the above, a tuple or dictionary of them, or a constant."""


def describe(symbol: Symbol) -> str:
    """Return a symbol in words, for errors."""
    if isinstance(symbol, Signal):
        when = {0: "", 1: " one step before"}.get(symbol.age, f" {symbol.age} steps before")
        return "zeros" if symbol.is_zero else f"the output of '{symbol.name}'{when}"
    texts: tuple[tuple[Any, str], ...] = (
        (Potential, "the potential of a neuron"),
        (State, "the state of a neuron"),
        (OutputAndState, "(output, state)"),
        (Concat, "outputs side by side"),
        (Channels, f"channels of {describe(symbol.signal)}" if isinstance(symbol, Channels) else ""),
        (Reordered, f"{describe(symbol.signal)} with its axes in another order" if isinstance(symbol, Reordered) else ""),
        (Moved, f"{describe(symbol.signal)} in front of time or batch" if isinstance(symbol, Moved) else ""),
        (Complement, f"1 less {describe(symbol.signal)}" if isinstance(symbol, Complement) else ""),
        (Grouped, f"groups of {describe(symbol.signal)}" if isinstance(symbol, Grouped) else ""),
        (Statistic, "a number taken over samples"),
        (OneStep, "the output of one step"),
        (Still, "a tensor without an axis of time"),
        (Merged, "time and batch in one axis"),
        (TensorValue, symbol.describe() if isinstance(symbol, TensorValue) else ""),
        (SymbolShape, "a shape"),
        (AxisSize, "the size of an axis" if getattr(symbol, "power", 1) == 1 else "a number computed from the size of an axis"),
        (StepInputs, "the input of all steps"),
        (Decoded, f"the {symbol.how} of all steps" if isinstance(symbol, Decoded) else ""),
        (TimeLast, "the outputs of all steps, time last"),
        (BatchFirst, "the outputs of all steps, batch first"),
        (dict, "a dictionary"),
        (tuple, f"{len(symbol)} values" if isinstance(symbol, tuple) else ""),
    )
    return next((text for kind, text in texts if isinstance(symbol, kind)), f"the constant {symbol!r}")


def require_signal(symbol: Symbol, place: str, hint: str) -> Signal:
    """Return the symbol if it is the output of a layer; `hint` says what to do where it is a pair of output and state.

    Raises:
        UnsupportedError: it is something else.
    """
    if isinstance(symbol, Signal):
        return symbol
    if isinstance(symbol, Still):
        raise UnsupportedError(f"{place} gets {describe(symbol)}; repeat it first, with x.unsqueeze(0).repeat(T, 1, ...)")
    if isinstance(symbol, Merged):
        raise UnsupportedError(
            f"{place} gets time and batch in one axis; part them first, with view(T, B, ...) or unflatten(0, (T, B))"
        )
    if isinstance(symbol, (OutputAndState, tuple)):
        raise UnsupportedError(f"{place} gets (output, state) of the module before it; {hint}")
    raise UnsupportedError(f"{place} gets {describe(symbol)}, expected the output of a module")


def shifted_by(symbol: Symbol, steps: int) -> Symbol:
    """Return a symbol as seen `steps` steps later: signals and states are that much older, constants are the same."""
    if not steps:
        return symbol
    if isinstance(symbol, (Signal, State)):
        return symbol if isinstance(symbol, Signal) and symbol.is_zero else replace(symbol, age=symbol.age + steps)
    if isinstance(symbol, OutputAndState):
        return replace(symbol, output=shifted_by(symbol.output, steps), state=shifted_by(symbol.state, steps))
    if isinstance(symbol, Concat):
        return Concat(tuple(shifted_by(part, steps) for part in symbol.parts))
    if isinstance(symbol, (Channels, Complement, Grouped, Merged, Reordered)):
        return replace(symbol, signal=shifted_by(symbol.signal, steps))
    if isinstance(symbol, OneStep):
        return replace(symbol, output=shifted_by(symbol.output, steps))
    if isinstance(symbol, BatchFirst):
        return type(symbol)(tuple(shifted_by(part, steps) for part in symbol.outputs))
    if isinstance(symbol, dict):
        return {key: shifted_by(part, steps) for key, part in symbol.items()}
    return tuple(shifted_by(part, steps) for part in symbol) if isinstance(symbol, tuple) else symbol


def map_decoded(x: Decoded, place: str, make: Callable[[Symbol], Symbol]) -> Decoded:
    """Return decoded outputs with what `make` makes of the output of a step in place of it.

    Raises:
        UnsupportedError: outputs that are not those of all steps in turn.
    """
    if not isinstance(x.outputs, tuple):
        return replace(x, outputs=make(x.outputs))
    steps, last = len(x.outputs), x.outputs[-1]
    if any(output != shifted_by(last, steps - 1 - t) for t, output in enumerate(x.outputs)):
        raise UnsupportedError(f"{place} takes the {x.how} of other outputs than those of all steps in turn")
    made = make(last)
    return replace(x, outputs=tuple(shifted_by(made, steps - 1 - t) for t in range(steps)))


def list_signals(symbol: Symbol) -> list[Signal]:
    """Return the signals in a symbol in order; a shape holds none."""
    if isinstance(symbol, Signal):
        return [symbol]
    if isinstance(symbol, (Channels, Complement, Grouped, Moved, Reordered)):
        return [symbol.signal]
    if isinstance(symbol, (OutputAndState, OneStep)):
        return list_signals(symbol.output)
    if isinstance(symbol, Merged):
        return list_signals(symbol.signal)
    parts = symbol.parts if isinstance(symbol, Concat) else symbol.values() if isinstance(symbol, dict) else symbol
    return [signal for part in parts for signal in list_signals(part)] if isinstance(symbol, (Concat, dict, tuple)) else []


def name_module(path: str) -> str:
    """Return a module's place in the model, for errors."""
    return f"module '{path}'" if path else "the model"
