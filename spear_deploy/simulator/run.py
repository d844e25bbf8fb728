"""Simulation of a network on a batch, with spike counts and recordings.

Recordings are in the graph's own time: a layer without delay emits in the step in which its input arrives.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import GRADED_NEURONS, Array
from spear_deploy.network.base import MAX_FLOAT
from spear_deploy.network.classes import count_per_class, read_decision, score_classes
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.host_readout import read_host_readout
from spear_deploy.network.spike_paths import find_delayed_paths
from spear_deploy.simulator import neurons
from spear_deploy.simulator.sign_sums import split_signs
from spear_deploy.simulator.stepper import Stepper, add_values, evaluation_groups, prepare
from spear_deploy.util import memory
from spear_deploy.util.number_format import byte_size, format_shape, name_values, plural
from spear_deploy.util.progress import Progress
from spear_deploy.util.times import timed_stage

__all__ = [
    "ChipRun",
    "InputKind",
    "Record",
    "Simulation",
    "SpikeCounts",
    "add_values",
    "check_input",
    "check_record",
    "count_spikes",
    "evaluation_groups",
    "simulate",
]

InputKind: TypeAlias = Literal["spikes", "current"]
Record: TypeAlias = Literal["spikes", "v", "u"]
Allocate: TypeAlias = Callable[[str, tuple[int, ...], type], Array]
"""Allocates an array, from a name, a shape and a type."""

BLOCK_VALUES = 1 << 20
"""Values of the largest layer in a block of steps and samples: some megabytes a layer for runs of any length."""
MAX_SPIKES = 1 << 61
"""Spikes of an input over all steps and samples: their sums stay within int64."""
MIN_BLOCK_STEPS = 16
"""Smallest number of steps of a block, if the input has as many: a layer's state then stays in cache between steps."""


@dataclass(frozen=True, kw_only=True)
class SpikeCounts:
    """How many spikes each neuron sent, and each edge delivered, summed over steps and samples.

    Attributes:
        sent: by layer (and `INPUT`): (*shape), int64; the number of non-zero values for an analogue input and of graded spikes.
        delivered: by edge with delay (see `graph.find_delayed_paths`), (*shape), int64; spikes of the last `delay` steps arrive
            after the end and are left out.
        steps, samples: number of steps and samples in the sums.
        input_kind: "spikes" or "current".
    """

    sent: dict[str, Array]
    delivered: dict[Edge, Array] = field(default_factory=dict)
    steps: int
    samples: int
    input_kind: InputKind = "spikes"

    def arrivals(self, edge: Edge) -> Array:
        """Return the spikes that an edge delivered, int64."""
        return self.delivered.get(edge, self.sent[edge.source]) if edge.delay else self.sent[edge.source]

    def rates(self) -> dict[str, float]:
        """Return spikes per neuron and step by layer, a share in 0..1 for neurons that spike once a step."""
        scale = self.steps * self.samples
        return {name: float(count.mean()) / scale if scale else 0.0 for name, count in self.sent.items() if name != INPUT}

    def __repr__(self) -> str:
        """Return one line without arrays, for notebooks and lists."""
        sums = f"{plural(self.samples, 'sample')}, {plural(self.steps, 'step')}"
        return f"SpikeCounts({sums}; {', '.join(f'{name} {count.sum()}' for name, count in self.sent.items())})"

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
    """Output, recordings and spike counts of a run.

    Attributes:
        output: (T, B, *output shape): spikes as bool, their number where a neuron sends several a step, or the
            value of a layer that does not spike.
        spikes, v, u: recordings by layer, (T, B, *shape), aligned to the graph's own time; v and u after reset and decay.
        counts: spikes of every layer.
        overflows: by layer, how often an integer u or v left its bits (see
            `neurons.count_overflows`); only layers with overflows.
    """

    output: Array
    spikes: dict[str, Array]
    v: dict[str, Array]
    u: dict[str, Array]
    counts: SpikeCounts
    overflows: dict[str, dict[str, int]]

    def __repr__(self) -> str:
        """Return one line without arrays, for notebooks and lists."""
        recorded = [f"{name} of {', '.join(kept)}" for name in ("spikes", "v", "u") if (kept := getattr(self, name))]
        return f"ChipRun(output {format_shape(self.output.shape)}; {'; '.join(recorded) or 'nothing recorded'})"


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
        record: which of "spikes", "v", "u" to record for every layer that has them; a layer without a neuron records its
            value as "v".
        dtype: type of a floating-point run.
        progress: called after each block of samples and steps.

    Raises:
        DataError: shape, NaN, spikes that are not whole numbers from 0, more to record than there is memory.
    """
    with timed_stage("simulate"):
        run = Simulation(graph, x, kind=kind, record=record, dtype=dtype)
    for _ in range(len(run)):
        with timed_stage("simulate"):
            run.advance()
        if progress is not None:
            progress({"stage": "simulate", "done": run.done, "of": len(run)})
    return run.result()


def check_input(graph: SNNGraph, x: Array, kind: InputKind = "spikes") -> Array:
    """Return the input as an array.

    Raises:
        DataError: another kind, shape or type, NaN, values beyond float32, or spikes that are not whole numbers from 0.
    """
    x = np.asarray(x)
    if kind not in ("spikes", "current"):
        raise DataError(f"kind '{kind}': an input is 'spikes' or 'current'; give one of them")
    if x.ndim != len(graph.input_shape) + 2 or x.shape[2:] != graph.input_shape or 0 in x.shape:
        expected = ", ".join(map(str, ("T", "B", *graph.input_shape)))
        raise DataError(f"input has shape {x.shape}, the network takes ({expected}); check the axes")
    if x.dtype.kind not in "biuf":
        raise DataError(f"input holds {name_values(x.dtype.kind)}, expected numbers")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError("input holds NaN or infinite values; remove them")
    if kind == "current" and x.dtype.kind == "f" and x.dtype.itemsize > 4 and (largest := max(x.max(), -x.min())) > MAX_FLOAT:
        raise DataError(f"input holds {largest:.3g}, beyond {MAX_FLOAT:.3g} of float32; scale it down")
    if kind == "spikes" and x.dtype.kind != "b" and ((x < 0).any() or (x.dtype.kind == "f" and (x != np.rint(x)).any())):
        raise DataError("spikes are whole numbers from 0; give analogue values as 'current'")
    if kind == "spikes" and x.dtype.itemsize > 2 and x.sum(dtype=np.float64) > MAX_SPIKES:
        raise DataError(f"an input sends {x.sum(dtype=np.float64):.3g} spikes, more than can be counted; check the values")
    return x


def check_record(record: Iterable[str]) -> None:
    """Refuse recordings other than "spikes", "v" and "u"."""
    for what in record:
        if what not in ("spikes", "v", "u"):
            raise DataError(f"record '{what}': what can be recorded is 'spikes', 'v' and 'u'; give some of them")


class Simulation:
    """A run that advances block by block and fills its arrays.

    Args:
        graph, x, kind, record, dtype: see `simulate`.
        max_steps: largest number of steps of a block.
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
        max_steps: int | None = None,
        allocate: Allocate | None = None,
    ) -> None:
        self.graph, self.kind, self.record = graph, kind, tuple(record)
        self.x = check_input(graph, x, kind)
        check_record(self.record)
        self.network = prepare(graph, dtype)
        self.steps, self.samples = self.x.shape[:2]
        self.arrays = self._allocate_arrays(allocate or (lambda _, shape, kind: np.empty(shape, kind)))
        self.blocks = list(self._split_blocks(max_steps or self.steps))
        self.done = 0
        self.stepper: Stepper | None = None
        names = (INPUT, *(layer.name for layer in graph.layers if layer.spikes))
        self.sent = {name: np.zeros(graph.shape_of(name), np.int64) for name in names}
        self.delivered = {edge: np.zeros(graph.shape_of(edge.source), np.int64) for edge in find_delayed_paths(graph)}
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
            self._add_overflows(self.stepper.states)
        self.done += 1

    def result(self) -> ChipRun:
        """Return the run; call it when all blocks are done."""

        def select(what: str) -> dict[str, Array]:
            return {name: array for (name, kind), array in self.arrays.items() if kind == what}

        emitted = select("emitted")
        for prepared in self.network.layers:
            if prepared.packs_signs and prepared.layer.name in emitted:
                array = emitted[prepared.layer.name]
                array[...] = np.subtract(*split_signs(array.astype(np.int64, copy=False)))
        values = {name: array for name, array in emitted.items() if self.graph[name].neuron is None and "v" in self.record}
        return ChipRun(
            output=emitted[self.graph.output],
            spikes={name: array for name, array in emitted.items() if self.graph[name].spikes and "spikes" in self.record},
            v=select("v") | values,
            u=select("u"),
            counts=SpikeCounts(
                sent=self.sent, delivered=self.delivered, steps=self.steps, samples=self.samples, input_kind=self.kind
            ),
            overflows=self.overflows,
        )

    def _allocate_arrays(self, allocate: Allocate) -> dict[tuple[str, str], Array]:
        """Allocate the arrays that are returned, by layer and kind: (T, B, *shape)."""
        wanted: list[tuple[str, str, tuple[int, ...], type]] = []
        for prepared in self.network.layers:
            layer, full = prepared.layer, (self.steps, self.samples, *prepared.shape)
            output_record = "spikes" if layer.spikes else "v" if layer.neuron is None else None
            if output_record in self.record or layer.name == self.graph.output:
                wanted.append((layer.name, "emitted", full, prepared.dtype))
            if layer.neuron is not None and "v" in self.record:
                wanted.append((layer.name, "v", full, self.network.dtype))
            if layer.neuron is not None and "u" in self.record and neurons.has_current(layer.neuron):
                wanted.append((layer.name, "u", full, self.network.dtype))
        needed = sum(int(np.prod(shape, dtype=np.float64)) * np.dtype(dtype).itemsize for _, _, shape, dtype in wanted)
        if needed > (free := memory.free_bytes()):
            fitting = int(self.samples * free / needed)
            batch = f"at most {plural(fitting, 'sample')} at a time" if fitting else "fewer steps"
            raise DataError(
                f"{self.steps} steps of {self.samples} samples: what is recorded takes {byte_size(needed)}, "
                f"{byte_size(free)} are free; record less, or run {batch}"
            )
        return {(name, what): allocate(f"{name}.{what}", shape, dtype) for name, what, shape, dtype in wanted}

    def _split_blocks(self, max_steps: int) -> Iterator[tuple[slice, slice]]:
        """Return the slices of samples and steps of each block, samples outermost."""
        size = self.network.largest
        samples = max(1, BLOCK_VALUES // (size * min(MIN_BLOCK_STEPS, max_steps)))
        steps = max(1, BLOCK_VALUES // (size * min(samples, self.samples)))
        return itertools.product(_split_range(self.samples, samples), _split_range(self.steps, min(steps, max_steps)))

    def _count(self, name: str, emitted: Array) -> Array:
        return sum_spikes(emitted, graded=_is_graded(self.graph, name, self.kind))

    def _add_overflows(self, states: Mapping[str, neurons.NeuronState]) -> None:
        for name, state in states.items():
            neuron = self.graph[name].neuron
            assert neuron is not None
            if counts := neurons.count_overflows(neuron, state):
                before = self.overflows.get(name, {})
                self.overflows[name] = {what: count + before.get(what, 0) for what, count in counts.items()}


def _split_range(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def count_spikes(graph: SNNGraph, emitted: Mapping[str, Array], kind: InputKind = "spikes") -> SpikeCounts:
    """Count the spikes of a run from the outputs (T, B, *shape) of its input and its spiking layers."""
    steps, samples = emitted[INPUT].shape[:2]

    def count(name: str, until: int = steps) -> Array:
        return sum_spikes(emitted[name][: max(until, 0)], graded=_is_graded(graph, name, kind))

    sent = {name: count(name) for name in (INPUT, *(layer.name for layer in graph.layers if layer.spikes))}
    delivered = {edge: count(edge.source, steps - edge.delay) for edge in find_delayed_paths(graph)}
    return SpikeCounts(sent=sent, delivered=delivered, steps=steps, samples=samples, input_kind=kind)


def _is_graded(graph: SNNGraph, name: str, kind: InputKind) -> bool:
    return kind == "current" if name == INPUT else isinstance(graph[name].neuron, GRADED_NEURONS)


def sum_spikes(emitted: Array, *, graded: bool = False) -> Array:
    """Sum spikes (T, B, *shape) over steps and samples, or count the graded ones: int64, (*shape)."""
    emitted = emitted != 0 if graded else emitted
    if emitted.dtype.kind != "b":
        return emitted.sum(axis=(0, 1), dtype=np.int64)
    rows = emitted.reshape(-1, *emitted.shape[2:]).view(np.uint8)
    total = np.zeros(emitted.shape[2:], np.int64)
    for part in _split_range(len(rows), 255):  # as many as a byte can add up; byte additions are vectorised
        total += rows[part].sum(axis=0, dtype=np.uint8)
    return total


def read_on_host(graph: SNNGraph, output: Array) -> Array:
    """Return what the host makes of a network's outputs, (T, B, *output) to (T, B, classes): the values of its readout.

    The host runs the layers of `network.host_readout` in float32, as the trained network does. Without any, outputs stay.
    """
    host = read_host_readout(graph)
    if host is None:
        return output
    return simulate(host, output.reshape(*output.shape[:2], *host.input_shape)).output


def decide(output: Array, graph: SNNGraph | None = None) -> Array:
    """Return the predicted labels: the class with the largest mean over time, unless the graph decides in another way.

    All parts of the toolkit use this rule.

    Args:
        output: (T, B, *output shape): spikes, or the values of a readout, floating-point or integer.
        graph: whose outputs they are: it names what decides over time, outputs that stand for a class together, and a readout on
            the host (`network.classes`). None: each output is a class, and the mean decides.

    Returns:
        (B,) int64; the first of equal outputs.

    >>> decide(np.array([[[1, 0, 0]], [[0, 1, 1]], [[0, 0, 1]]])).tolist()
    [2]
    """
    return choose_classes(output if graph is None else read_on_host(graph, output), graph)


def choose_classes(values: Array, graph: SNNGraph | None = None) -> Array:
    """Return the predicted labels, as `decide` does, of values that the host has read already."""
    if graph is not None and read_decision(graph) != "mean":
        return np.asarray(score_classes(values, graph).argmax(axis=-1), np.int64)
    flat, per_class = values.reshape(*values.shape[:2], -1), 1 if graph is None else count_per_class(graph)
    total = flat.sum(axis=0, dtype=np.int64 if flat.dtype.kind in "biu" else np.float64)
    by_class = total.reshape(len(total), total.shape[1] // per_class, per_class).sum(axis=2)
    return np.asarray(by_class.argmax(axis=1), np.int64)
