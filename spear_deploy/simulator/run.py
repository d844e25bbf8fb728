"""What happens on the chip? The whole network on a batch, in the graph's own time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import GRADED_NEURONS, Array
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, delayed_paths
from spear_deploy.simulator import neurons
from spear_deploy.simulator.stepper import Stepper, added, evaluation_groups, ready
from spear_deploy.util import memory
from spear_deploy.util.progress import Progress

__all__ = [
    "ChipRun",
    "InputKind",
    "Record",
    "Simulation",
    "SpikeCounts",
    "added",
    "check_input",
    "check_record",
    "counted",
    "evaluation_groups",
    "simulate",
]

InputKind: TypeAlias = Literal["spikes", "current"]
Record: TypeAlias = Literal["spikes", "v", "u"]
Allocate: TypeAlias = Callable[[str, tuple[int, ...], type], Array]
"""Makes an array, from a name, a shape and a type."""

BLOCK_VALUES = 1 << 20
"""Values of the largest layer in one block of steps and samples: some megabytes a layer, whatever the length of the run."""
BLOCK_STEPS = 16
"""Steps that a block has at least, if the input has: the state of a layer then stays in cache from one to the next."""


@dataclass(frozen=True, kw_only=True)
class SpikeCounts:
    """How many spikes each neuron sent, and each edge delivered, summed over steps and samples.

    Attributes:
        sent: by layer (and `INPUT`): (*shape), int64; the number of non-zero values for an analogue input and of graded spikes.
        delivered: by edge with delay (see `graph.delayed_paths`): spikes of the last `delay` steps arrive after the end and
            are not in it.
        steps, samples: what was summed over.
        input_kind: "spikes" or "current".
    """

    sent: dict[str, Array]
    delivered: dict[Edge, Array] = field(default_factory=dict)
    steps: int
    samples: int
    input_kind: InputKind = "spikes"

    def arriving(self, edge: Edge) -> Array:
        """Return the spikes that an edge delivered, int64."""
        return self.delivered.get(edge, self.sent[edge.source]) if edge.delay else self.sent[edge.source]

    def rates(self) -> dict[str, float]:
        """Return spikes per neuron and step by layer, a share in 0..1 for neurons that spike once a step."""
        scale = self.steps * self.samples
        return {name: float(count.mean()) / scale if scale else 0.0 for name, count in self.sent.items() if name != INPUT}

    def __add__(self, other: SpikeCounts) -> SpikeCounts:
        if (self.steps, self.input_kind) != (other.steps, other.input_kind):
            raise DataError(f"spike counts over {self.steps} and {other.steps} steps cannot be added; use one number of steps")
        return SpikeCounts(
            sent={name: count + other.sent[name] for name, count in self.sent.items()},
            delivered={edge: count + other.delivered[edge] for edge, count in self.delivered.items()},
            steps=self.steps,
            samples=self.samples + other.samples,
            input_kind=self.input_kind,
        )


@dataclass(frozen=True, kw_only=True)
class ChipRun:
    """What a run gave.

    Attributes:
        output: (T, B, *output shape): spikes as bool, their number where a neuron sends several a step (Speck, Xylo), or the
            value of a layer that does not spike.
        spikes, v, u: recordings by layer, (T, B, *shape), aligned to the graph's own time; v and u after reset and decay.
        counts: spikes of every layer.
        overflows: by layer, how often an integer u or v left its bits (see `neurons.overflows`); only layers where it happened.
    """

    output: Array
    spikes: dict[str, Array]
    v: dict[str, Array]
    u: dict[str, Array]
    counts: SpikeCounts
    overflows: dict[str, dict[str, int]]


def simulate(
    graph: SNNGraph,
    x: Array,
    *,
    kind: InputKind = "spikes",
    record: Iterable[Record] = (),
    dtype: type = np.float32,
    progress: Progress | None = None,
) -> ChipRun:
    """Run a network.

    Args:
        graph: a floating-point network runs in `dtype`, an integer network in integers.
        x: (T, B, *input shape): whole numbers of spikes, or values of a current.
        kind: "spikes" or "current".
        record: which of "spikes", "v", "u" to keep for every layer that has them; a layer without a neuron keeps its
            value as "v".
        dtype: type of a floating-point run.
        progress: is told after each block of samples and steps.

    Raises:
        DataError: shape, NaN, spikes that are not whole numbers from 0, more to record than there is memory.
    """
    run = Simulation(graph, x, kind=kind, record=record, dtype=dtype)
    for _ in range(len(run)):
        run.advance()
        if progress is not None:
            progress({"stage": "simulate", "done": run.done, "of": len(run)})
    return run.result()


def check_input(graph: SNNGraph, x: Array, kind: InputKind = "spikes") -> Array:
    """Return the input as an array, or say what is wrong with it."""
    x = np.asarray(x)
    if kind not in ("spikes", "current"):
        raise DataError(f"kind '{kind}': an input is 'spikes' or 'current'; give one of them")
    if x.ndim != len(graph.input_shape) + 2 or x.shape[2:] != graph.input_shape or 0 in x.shape:
        expected = ", ".join(map(str, ("T", "B", *graph.input_shape)))
        raise DataError(f"input has shape {x.shape}, the network takes ({expected}); check the axes")
    if x.dtype.kind not in "biuf":
        raise DataError(f"input holds {x.dtype} values, expected numbers")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError("input holds NaN or infinite values; remove them")
    if kind == "spikes" and x.dtype.kind != "b" and ((x < 0).any() or (x.dtype.kind == "f" and (x != np.rint(x)).any())):
        raise DataError("spikes are whole numbers from 0; give analogue values as 'current'")
    return x


def check_record(record: Iterable[str]) -> None:
    """Refuse to record what there is not."""
    for what in record:
        if what not in ("spikes", "v", "u"):
            raise DataError(f"record '{what}': what can be recorded is 'spikes', 'v' and 'u'; give some of them")


class Simulation:
    """A run that advances block by block; its arrays fill up on the way.

    Args:
        graph, x, kind, record, dtype: see `simulate`.
        most_steps: of one block.
        allocate: makes the arrays that are returned; by default in memory.
    """

    def __init__(
        self,
        graph: SNNGraph,
        x: Array,
        *,
        kind: InputKind = "spikes",
        record: Iterable[Record] = (),
        dtype: type = np.float32,
        most_steps: int | None = None,
        allocate: Allocate | None = None,
    ) -> None:
        self.graph, self.kind, self.record = graph, kind, tuple(record)
        self.x = check_input(graph, x, kind)
        check_record(self.record)
        self.network = ready(graph, dtype)
        self.steps, self.samples = self.x.shape[:2]
        self.arrays = self._allocated(allocate or (lambda _, shape, kind: np.empty(shape, kind)))
        self.blocks = list(self._blocks(most_steps or self.steps))
        self.done = 0
        self.stepper: Stepper | None = None
        names = (INPUT, *(layer.name for layer in graph.layers if layer.spikes))
        self.sent = {name: np.zeros(graph.shape_of(name), np.int64) for name in names}
        self.delivered = {edge: np.zeros(graph.shape_of(edge.source), np.int64) for edge in delayed_paths(graph)}
        self.overflows: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.blocks)

    def advance(self) -> None:
        """Run the next block."""
        samples, steps = self.blocks[self.done]
        if self.stepper is None or steps.start == 0:
            self.stepper = Stepper(self.network, samples.stop - samples.start)
        places = {key: array[steps, samples] for key, array in self.arrays.items()}
        emitted = self.stepper.advance(self.x[steps, samples], places)
        for name, sent in self.sent.items():
            sent += self._count(name, emitted[name])
        for edge, delivered in self.delivered.items():
            in_time = max(0, self.steps - edge.delay - steps.start)
            delivered += self._count(edge.source, emitted[edge.source][:in_time])
        if steps.stop == self.steps:
            self._note_overflows(self.stepper.states)
        self.done += 1

    def result(self) -> ChipRun:
        """Return what the run gave; call it when all blocks are done."""

        def kept(what: str) -> dict[str, Array]:
            return {name: array for (name, kind), array in self.arrays.items() if kind == what}

        emitted, rows = kept("emitted"), {layer.name: layer for layer in self.graph.layers}
        values = {name: array for name, array in emitted.items() if rows[name].neuron is None and "v" in self.record}
        return ChipRun(
            output=emitted[self.graph.output],
            spikes={name: array for name, array in emitted.items() if rows[name].spikes and "spikes" in self.record},
            v=kept("v") | values,
            u=kept("u"),
            counts=SpikeCounts(
                sent=self.sent, delivered=self.delivered, steps=self.steps, samples=self.samples, input_kind=self.kind
            ),
            overflows=self.overflows,
        )

    def _allocated(self, allocate: Allocate) -> dict[tuple[str, str], Array]:
        """Make the arrays that are returned, by layer and what: (T, B, *shape)."""
        wanted: list[tuple[str, str, tuple[int, ...], type]] = []
        for row in self.network.rows:
            layer, full = row.layer, (self.steps, self.samples, *row.shape)
            asked = "spikes" if layer.spikes else "v" if layer.neuron is None else None
            if asked in self.record or layer.name == self.graph.output:
                wanted.append((layer.name, "emitted", full, row.dtype))
            if layer.neuron is not None and "v" in self.record:
                wanted.append((layer.name, "v", full, self.network.dtype))
            if layer.neuron is not None and "u" in self.record and neurons.has_current(layer.neuron):
                wanted.append((layer.name, "u", full, self.network.dtype))
        need = sum(int(np.prod(shape, dtype=np.float64)) * np.dtype(dtype).itemsize for _, _, shape, dtype in wanted)
        if need > (free := memory.free_bytes()):
            raise DataError(
                f"{self.steps} steps of {self.samples} samples: what is recorded takes {memory.in_words(need)}, "
                f"{memory.in_words(free)} are free; record less, or run fewer steps or samples at a time"
            )
        return {(name, what): allocate(f"{name}.{what}", shape, dtype) for name, what, shape, dtype in wanted}

    def _blocks(self, most_steps: int) -> Iterator[tuple[slice, slice]]:
        """Split samples and steps."""
        size = self.network.largest
        samples = max(1, BLOCK_VALUES // (size * min(BLOCK_STEPS, most_steps)))
        steps = max(1, BLOCK_VALUES // (size * min(samples, self.samples)))
        return itertools.product(_slices(self.samples, samples), _slices(self.steps, min(steps, most_steps)))

    def _count(self, name: str, emitted: Array) -> Array:
        return summed(emitted, graded=_is_graded(self.graph, name, self.kind))

    def _note_overflows(self, states: Mapping[str, neurons.NeuronState]) -> None:
        for name, state in states.items():
            neuron = self.graph[name].neuron
            assert neuron is not None
            if found := neurons.overflows(neuron, state):
                before = self.overflows.get(name, {})
                self.overflows[name] = {what: n + before.get(what, 0) for what, n in found.items()}


def _slices(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def counted(graph: SNNGraph, emitted: Mapping[str, Array], kind: InputKind = "spikes") -> SpikeCounts:
    """Count the spikes of a run from what its input and its spiking layers emitted, (T, B, *shape) each."""
    steps, samples = emitted[INPUT].shape[:2]

    def total(name: str, until: int = steps) -> Array:
        return summed(emitted[name][: max(until, 0)], graded=_is_graded(graph, name, kind))

    sent = {name: total(name) for name in (INPUT, *(layer.name for layer in graph.layers if layer.spikes))}
    delivered = {edge: total(edge.source, steps - edge.delay) for edge in delayed_paths(graph)}
    return SpikeCounts(sent=sent, delivered=delivered, steps=steps, samples=samples, input_kind=kind)


def _is_graded(graph: SNNGraph, name: str, kind: InputKind) -> bool:
    return kind == "current" if name == INPUT else isinstance(graph[name].neuron, GRADED_NEURONS)


def summed(emitted: Array, *, graded: bool = False) -> Array:
    """Sum spikes (T, B, *shape) over steps and samples, or count the graded ones: int64, (*shape)."""
    emitted = emitted != 0 if graded else emitted
    if emitted.dtype.kind != "b":
        return emitted.sum(axis=(0, 1), dtype=np.int64)
    rows = emitted.reshape(-1, *emitted.shape[2:]).view(np.uint8)
    total = np.zeros(emitted.shape[2:], np.int64)
    for part in _slices(len(rows), 255):  # as many as add up in a byte, which the machine does many of at a time
        total += rows[part].sum(axis=0, dtype=np.uint8)
    return total


def decide(output: Array) -> Array:
    """Return the predicted labels: the output with the largest mean over time. Every part of the toolkit decides by this.

    Args:
        output: (T, B, *output shape): spikes, or the values of a readout, floating point or integer.

    Returns:
        (B,) int64; the first of equal outputs.

    >>> decide(np.array([[[1, 0, 0]], [[0, 1, 1]], [[0, 0, 1]]])).tolist()
    [2]
    """
    flat = output.reshape(*output.shape[:2], -1)
    total = flat.sum(axis=0, dtype=np.int64 if flat.dtype.kind in "biu" else np.float64)
    return np.asarray(total.argmax(axis=1), np.int64)
