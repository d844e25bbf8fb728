"""Calls of a traced forward, matched step by step.

The first step makes the layers; the calls of every later step must match them. A forward has no output to feed back in its
first step: it starts from zeros there, or leaves the branch out.

    z = zeros;  every step: z = neuron(fc(x) + rec(z))                 rec gets an edge of delay 1 from the neuron
    first step: z = neuron(fc(x));  later: z = neuron(fc(x) + rec(z))  the output of rec is added one step later

So a call of a later step also matches one before it if the two differ only in such feedback; the layer that the first made then
gets the edge. Feedback of delay d begins in step d, counted from 0, with what the first step made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.builder import GraphBuilder
from spear_deploy.frameworks.importer.symbols import Channels, Concat, Signal, Symbol, list_signals, name_module, shifted_by

NEURON = "neuron"
"""Kind of a call that adds neurons: it is never moved to another step."""


class LateDifferenceError(UnsupportedError):
    """A step that differs from those before it in the last step of a trace, or feedback that begins behind it."""


@dataclass
class _StepCall:
    """A call: its key (path, kind, arguments), its result, and the layers that it added."""

    key: Symbol
    result: Symbol
    layers: frozenset[str] = frozenset()


@dataclass
class UnrolledSteps:
    """The calls of one forward, step by step.

    Attributes:
        step: the present step, from 0.
        calls: of the first step, with what later steps have added or changed.
        last: the last step that was traced; feedback that begins in it is not seen to go on, unless it is the second.
        matched: number of calls that the present step has matched.
        without_feedback: by the name of a sum of a later step, the signal that the steps before had in its place.
        is_constant: whether the present call depends on no neuron: it is the same in every step, made in one of them or in all.
        constant_calls: such calls.
    """

    builder: GraphBuilder
    step: int = 0
    calls: list[_StepCall] = field(default_factory=list)
    last: int = 1
    matched: int = 0
    without_feedback: dict[str, Signal] = field(default_factory=dict)
    is_constant: bool = False
    constant_calls: list[_StepCall] = field(default_factory=list)

    @property
    def first_is_matched(self) -> bool:
        """Whether the present step has matched every call of the one before."""
        return self.matched == len(self.calls)

    def advance_to(self, step: int) -> None:
        """Go on to a step.

        Raises:
            UnsupportedError: a step in between lacks a call of the step before it.
        """
        while self.step < step:
            self.check_complete()
            self.step, self.matched = self.step + 1, 0

    def check_complete(self) -> None:
        """Check that the present step has every call of the step before.

        Raises:
            UnsupportedError: it lacks one.
        """
        if self.step > 0 and self.matched < len(self.calls):
            missing = self.calls[self.matched].key[0]
            which = "first step only" if self.step == 1 else "first steps only"
            raise UnsupportedError(f"{name_module(missing)} runs in the {which}; let every step compute the same")

    def make_once(self, key: Symbol, make: Callable[[Symbol], Symbol]) -> Symbol:
        """Return the result of a call: made in the first step, looked up in later ones.

        Args:
            key: (path, kind, arguments ...) of the call.
            make: returns the result for a key.

        Raises:
            UnsupportedError: a call of a later step that matches none of the step before.
        """
        if self.is_constant:
            call = next((call for call in self.constant_calls if call.key == key), None)
            if call is None:
                call = self._record(key, make)
                self.constant_calls.append(call)
            return call.result
        if self.step == 0:
            self.calls.append(self._record(key, make))
        elif (found := self._match(key, make)) is not None:
            if found is not self.calls[self.matched] and self.step == self.last > 1:
                raise self._make_error(key)
            self.calls[self.matched] = found
        elif self.step == self.last > 1:
            raise self._make_error(key)
        else:
            self.calls.insert(self.matched, self._begin_feedback(key, make))
        self.matched += 1
        return self.calls[-1 if self.step == 0 else self.matched - 1].result

    def _record(self, key: Symbol, make: Callable[[Symbol], Symbol]) -> _StepCall:
        before = len(self.builder.layers)
        result = make(key)
        return _StepCall(key, result, frozenset(layer.name for layer in self.builder.layers[before:]))

    def _match(self, key: Symbol, make: Callable[[Symbol], Symbol]) -> _StepCall | None:
        """Return the call of the step before that a call matches, with the feedback that begins in this step."""
        if self.matched == len(self.calls):
            return None
        call, changes = self.calls[self.matched], list[tuple[Signal, Signal]]()
        if not self._matches(call.key, key, changes):
            return None
        for old, new in changes:
            self._reroute(call.layers, old, new)
        if not changes:
            return call
        return _StepCall(
            key, call.result if call.layers else make(key), call.layers
        )  # without a layer, the result is an argument

    def _begin_feedback(self, key: Symbol, make: Callable[[Symbol], Symbol]) -> _StepCall:
        """Add a call of feedback that begins in this step.

        Raises:
            UnsupportedError: it is none.
        """
        signals, delay = list_signals(key), self.step
        ages = {signal.age for signal in signals}
        if ages == {delay} and key[1] != NEURON:  # on outputs of steps before: made without delay, its result that much older
            call = self._record(shifted_by(key, -delay), make)
            return _StepCall(key, shifted_by(call.result, delay), call.layers)
        if ages == {0, delay} and key[1] in ("add", "sub"):
            call = self._record(key, make)
            present = [signal for signal in signals if signal.age == 0]
            if len(present) == 1 and isinstance(call.result, Signal) and (key[1] == "add" or signals[0].age == 0):
                self.without_feedback[call.result.name] = present[0]
                return call
        raise self._make_error(key)

    def _matches(self, old: Symbol, new: Symbol, changes: list[tuple[Signal, Signal]]) -> bool:
        """Return whether two calls are equal up to feedback; `changes` collects (old, new) signals of such feedback."""
        if isinstance(old, Signal) and isinstance(new, Signal):
            if old == new or (old.is_zero and new.is_zero and old.shape == new.shape):
                return True
            starts = old.is_zero and new.age == self.step and old.shape == new.shape
            if starts or (new.age == 0 and self.stands_for(new, old)):
                changes.append((old, new))
                return True
            return False
        if isinstance(old, Concat) and isinstance(new, Concat):
            return self._matches(old.parts, new.parts, changes)
        if isinstance(old, Channels) and isinstance(new, Channels):
            return (old.start, old.stop) == (new.start, new.stop) and self._matches(old.signal, new.signal, changes)
        if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
            return all(self._matches(a, b, changes) for a, b in zip(old, new, strict=True))
        return bool(old == new)

    def stands_for(self, new: Signal, old: Signal) -> bool:
        """Return whether a sum of a later step is a signal of a step before with feedback added."""
        while new.name in self.without_feedback:
            new = self.without_feedback[new.name]
            if new == old:
                return True
        return False

    def _reroute(self, layers: frozenset[str], old: Signal, new: Signal) -> None:
        """Feed the layers of a call by a signal of the second step in place of one of the first."""
        self.builder.edges = [
            replace(edge, source=new.name, delay=new.age) if edge.source == old.name and edge.target in layers else edge
            for edge in self.builder.edges
        ]

    def _make_error(self, key: Symbol) -> UnsupportedError:
        place, kind = name_module(key[0]), LateDifferenceError if self.step == self.last > 1 else UnsupportedError
        step = {1: "the second step", 2: "the third step"}.get(self.step, "a later step")
        late = next((signal for signal in list_signals(key) if signal.age > 1), None)
        if late is not None:
            return kind(
                f"{place} uses the output of '{late.name}' {late.age} steps before, in other steps another; feed the same back"
            )
        if (pair := self._find_siblings(key)) is not None:
            return kind(
                f"{name_module(pair[0])} runs in {step} in place of '{pair[1]}', as modules of their own for each step do, such "
                "as norms through time; use one for all steps"
            )
        return kind(f"{place} runs in another way in {step}; let every step compute the same")

    def _find_siblings(self, key: Symbol) -> tuple[str, str] | None:
        """Return two modules of one list of which a call has, or takes the output of, the first in place of the second."""
        if self.matched == len(self.calls):
            return None
        before = self.calls[self.matched].key
        paths = zip(*([str(k[0]), *(signal.name for signal in list_signals(k))] for k in (key, before)), strict=False)
        for path, other in paths:
            (name, _, number), (other_name, _, other_number) = path.rpartition("."), other.rpartition(".")
            if name == other_name and number.isdecimal() and other_number.isdecimal() and number != other_number:
                return path, other
        return None
