"""Does every step of a forward compute the same? The first makes the layers, the others must meet them again.

What a forward feeds back it does not have in its first step. It starts from zeros there, or leaves the branch out:

    z = zeros;  every step: z = neuron(fc(x) + rec(z))                 rec gets an edge of delay 1 from the neuron
    first step: z = neuron(fc(x));  later: z = neuron(fc(x) + rec(z))  what rec makes of the step before is added one step later

A call of the second step is therefore that of the first too if it differs from it only in such feedback: the layer that the
first made then gets the edge. The third and later steps must be equal to the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from spear_deploy.errors import UnsupportedError
from spear_deploy.norse.importer.symbols import Concat, Thing, Value, aged, values_in, where

if TYPE_CHECKING:
    from spear_deploy.norse.importer.builder import GraphBuilder


@dataclass
class _Call:
    """A call of the first step: what it was, what it gave, which layers it added."""

    key: Thing
    result: Thing
    layers: frozenset[str] = frozenset()


@dataclass
class Replay:
    """The calls of one forward, step by step.

    Attributes:
        first: calls of the first step.
        steady: calls of the second step, with which all later ones must agree.
        met: how many calls of `first` the second step has met, or of `steady` the present one.
        without_feedback: what the value of a sum in the second step was in the first, by its name.
    """

    walk: GraphBuilder
    step: int = 0
    first: list[_Call] = field(default_factory=list)
    steady: list[_Call] = field(default_factory=list)
    met: int = 0
    without_feedback: dict[str, Value] = field(default_factory=dict)

    def enter(self, step: int) -> None:
        """Go on to a step, after a check that the one before was whole."""
        while self.step < step:
            self._check_whole()
            self.step, self.met = self.step + 1, 0

    def _check_whole(self) -> None:
        calls = self.first if self.step == 1 else self.steady
        if self.step > 0 and self.met < len(calls):
            missing = calls[self.met].key[0]
            which = "first step only" if self.step == 1 else "first steps only"
            raise UnsupportedError(f"{where(missing)} runs in the {which}; let every step compute the same")

    def finish(self) -> None:
        """Check the last step."""
        self._check_whole()

    def once(self, key: Thing, make: Callable[[Thing], Thing]) -> Thing:
        """Make something in the first step; later, return what was made if it is the same call.

        Args:
            key: place, further facts, and what the call is given.
            make: makes it, given the key.
        """
        if self.step == 0:
            self.first.append(self._made(key, make))
            return self.first[-1].result
        if self.step == 1:
            self.steady.append(self._second(key, make))
            return self.steady[-1].result
        changes: list[tuple[Value, Value]] = []
        if self.met >= len(self.steady) or not self._alike(self.steady[self.met].key, key, changes) or changes:
            raise self._differs(key, "third")
        self.met += 1
        return self.steady[self.met - 1].result

    def _made(self, key: Thing, make: Callable[[Thing], Thing]) -> _Call:
        before = len(self.walk.layers)
        result = make(key)
        return _Call(key, result, frozenset(layer.name for layer in self.walk.layers[before:]))

    def _second(self, key: Thing, make: Callable[[Thing], Thing]) -> _Call:
        """Meet a call of the first step, or add the feedback that begins in the second."""
        if self.met < len(self.first):
            call = self.first[self.met]
            changes: list[tuple[Value, Value]] = []
            if self._alike(call.key, key, changes):
                self.met += 1
                for old, new in changes:
                    self._reroute(call.layers, old, new)
                return _Call(key, call.result if call.layers else make(key))  # what makes no layer hands on what it is given
        given = values_in(key)
        ages = {value.age for value in given}
        if ages == {1} and key[1] != "neuron":  # made of the step before: without delay there, one step late here
            made = self._made(aged(key, -1), make)
            return _Call(key, aged(made.result, 1))
        if ages == {0, 1} and key[1] in ("add", "sub"):
            made = self._made(key, make)
            now = [value for value in given if value.age == 0]
            if len(now) == 1 and isinstance(made.result, Value) and (key[1] == "add" or given[0].age == 0):
                self.without_feedback[made.result.name] = self.without_feedback.get(now[0].name, now[0])
                return _Call(key, made.result)
        raise self._differs(key, "second")

    def _alike(self, old: Thing, new: Thing, changes: list[tuple[Value, Value]]) -> bool:
        """Say whether a call is that of the first step up to feedback, and note what comes in the place of what."""
        if isinstance(old, Value) and isinstance(new, Value):
            if old == new or (old.zero and new.zero and old.shape == new.shape):
                return True
            starts = old.zero and new.age == 1 and old.shape == new.shape
            if starts or (new.age == 0 and self.without_feedback.get(new.name) == old):
                changes.append((old, new))
                return True
            return False
        if isinstance(old, Concat) and isinstance(new, Concat):
            return self._alike(old.parts, new.parts, changes)
        if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
            return all(self._alike(a, b, changes) for a, b in zip(old, new, strict=True))
        return bool(old == new)

    def _reroute(self, layers: frozenset[str], old: Value, new: Value) -> None:
        """Feed the layers of a call by a value of the second step where one of the first was."""
        self.walk.edges = [
            replace(edge, source=new.name, delay=new.age) if edge.source == old.name and edge.target in layers else edge
            for edge in self.walk.edges
        ]

    def _differs(self, key: Thing, step: str) -> UnsupportedError:
        late = next((value for value in values_in(key) if value.age > 1), None)
        if late is not None:
            return UnsupportedError(
                f"{where(key[0])} uses the output of '{late.name}' {late.age} steps before; feed back what is one step old"
            )
        return UnsupportedError(f"{where(key[0])} runs in another way in the {step} step; let every step compute the same")
