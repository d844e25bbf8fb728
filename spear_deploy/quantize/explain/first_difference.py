"""First spike that differs between two runs, and distances of spikes.

A spike differs because the numbers of its layer changed, or because the spikes that reach the layer did: the potential less the
threshold on both sides tells. The potential before the reset is not in a recording: the step is repeated from the state before
it, with the input that a probe beside the layer records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spear_deploy.network import Array, ChipNeuron, Layer, LoihiLIF, SpeckIF, UnroundedLIF, XyloLIF, resets_late
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.network.spike_paths import find_spike_sources, reads_input
from spear_deploy.simulator import InputKind, neurons, simulate

UNREACHED = 1e30
"""A threshold above every potential, in the range of float32."""
TIME_CONSTANT_STEPS = 10.0
"""Time constant of the exponential kernel of van Rossum's distance."""


@dataclass(frozen=True, kw_only=True)
class Membrane:
    """Potential and threshold of one neuron in one step, in the units of the trained network where these are known."""

    v: float
    threshold: float

    @property
    def margin(self) -> float:
        """The potential less the threshold."""
        return self.v - self.threshold


@dataclass(frozen=True, kw_only=True)
class FirstDifference:
    """The first spike of a layer that differs between two runs, and why.

    Attributes:
        layer, step, sample, neuron: where and when.
        before, after: spikes sent in the first and in the second run.
        margin_before, margin_after: potential less threshold, or None where it is not known.
        threshold_before, threshold_after: the thresholds.
        upstream: layers (or "input") that had sent something else by then in this sample; if empty, the layer's numbers are the
            cause.
    """

    layer: str
    step: int
    sample: int
    neuron: tuple[int, ...]
    before: int
    after: int
    margin_before: float | None
    margin_after: float | None
    threshold_before: float | None
    threshold_after: float | None
    upstream: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with the sentence as `why`."""
        return {**vars(self), "neuron": list(self.neuron), "upstream": list(self.upstream), "why": self.why}

    @property
    def why(self) -> str:
        """One sentence."""
        change = "spikes no more" if self.before and not self.after else "spikes now" if self.after and not self.before else None
        change = change or f"sends {self.after} spike{'s' * (self.after != 1)} instead of {self.before}"
        place = f"layer '{self.layer}', neuron {_format_index(self.neuron)}, sample {self.sample}, step {self.step} {change}"
        margins = ""
        if self.margin_before is not None and self.margin_after is not None:
            after, before = write_apart(self.margin_after, self.margin_before)
            margins = (
                f": v − threshold is {after} (threshold {self.threshold_after:.4g}), was {before} ({self.threshold_before:.4g})"
            )
        sources = ", ".join(f"'{name}'" for name in self.upstream)
        cause = f"what {sources} sent had changed" if self.upstream else "what reached it was the same"
        return f"{place}{margins}; {cause}"


def write_apart(after: float, before: float) -> tuple[str, str]:
    """Return two numbers with a sign and as many digits as tell them apart, four at least.

    >>> write_apart(2.0000001, 2.0), write_apart(1.5, -0.25)
    (('+2.0000001', '+2'), ('+1.5', '-0.25'))
    """
    texts = ((f"{after:+.{digits}g}", f"{before:+.{digits}g}") for digits in (4, 6, 8, 10, 12, 17))
    return next((pair for pair in texts if pair[0] != pair[1] or after == before), (f"{after:+.4g}", f"{before:+.4g}"))


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedRun:
    """One network of a chain, and its spikes.

    Attributes:
        graph, x, kind, dtype: what ran, on (T, B, *input).
        spikes: by layer, (T, B, *shape).
        units: by layer, (factor, level): a potential of the trained network is v / factor + level.
    """

    graph: SNNGraph
    x: Array
    kind: InputKind
    dtype: type
    spikes: Mapping[str, Array]
    units: Mapping[str, tuple[Any, Any]]


def find_first_difference(layer: str, before: RecordedRun, after: RecordedRun) -> FirstDifference | None:
    """Return the earliest difference of a layer's spikes, then of the lowest sample and neuron; None where there is none."""
    a, b = before.spikes[layer], after.spikes[layer]
    different = a != b
    if not different.any():
        return None
    step, sample, *neuron = (int(n) for n in np.unravel_index(int(different.argmax()), different.shape))
    index = tuple(neuron)
    where = (step, sample, *index)
    membranes = [measure_membrane(run, layer, step, sample, index) for run in (before, after)]
    return FirstDifference(
        layer=layer,
        step=step,
        sample=sample,
        neuron=index,
        before=int(a[where]),
        after=int(b[where]),
        margin_before=None if membranes[0] is None else membranes[0].margin,
        margin_after=None if membranes[1] is None else membranes[1].margin,
        threshold_before=None if membranes[0] is None else membranes[0].threshold,
        threshold_after=None if membranes[1] is None else membranes[1].threshold,
        upstream=_find_changed_sources(layer, before, after, step, sample),
    )


def measure_membrane(run: RecordedRun, name: str, step: int, sample: int, index: Sequence[int]) -> Membrane | None:
    """Return potential and threshold of a neuron in a step; None for one with a refractory time, and for chips but Loihi."""
    graph, layer = run.graph, run.graph[name]
    neuron: Any = layer.neuron
    if getattr(neuron, "refractory_steps", 0) or isinstance(neuron, (SpeckIF, XyloLIF, ChipNeuron)):
        return None
    probe = f"{name} probe"
    while probe in {other.name for other in graph.layers}:
        probe += "'"
    watched = replace(
        graph,
        layers=(*graph.layers, Layer(name=probe, synapse=layer.synapse, norm=layer.norm)),
        edges=(*graph.edges, *(Edge(source=e.source, target=probe, delay=e.delay) for e in graph.edges_into(name))),
    )
    short = run.x[: step + 1, sample : sample + 1]
    recorded = simulate(watched, short, kind=run.kind, record=("v", "u"), dtype=run.dtype)
    dtype = np.int64 if graph.is_integer else run.dtype
    silent = neuron  # one whose reset comes a step late has its v of this step as it is
    if not resets_late(neuron):
        silent = replace(neuron, v_threshold=None if isinstance(neuron, (LoihiLIF, UnroundedLIF)) else np.asarray(UNREACHED))
    state = neurons.start(silent, 1, graph.shape_of(name), graph.dt_s, dtype)
    if step:
        state.v[:] = recorded.v[name][step - 1]
        if state.u is not None:
            state.u[:] = recorded.u[name][step - 1]
    neurons.step(silent, state, recorded.v[probe][step])
    unit = 64 if isinstance(neuron, (LoihiLIF, UnroundedLIF)) else 1
    threshold = float(np.broadcast_to(unit * neuron.v_threshold, graph.shape_of(name))[tuple(index)])
    factor, level = (
        float(np.broadcast_to(value, graph.shape_of(name))[tuple(index)]) for value in run.units.get(name, (1.0, 0.0))
    )
    v = float(state.v[0][tuple(index)])
    return Membrane(v=v / factor + level, threshold=threshold / factor + level)


def _find_changed_sources(name: str, before: RecordedRun, after: RecordedRun, step: int, sample: int) -> tuple[str, ...]:
    """Return the layers, or the network's input, that had sent something else to `name` in this sample by this step."""
    changed = []
    same_units = before.units is after.units and before.x.shape == after.x.shape
    if same_units and reads_input(after.graph, name):
        same = np.array_equal(before.x[: step + 1, sample], after.x[: step + 1, sample])
        changed += [] if same else [INPUT]
    for source, delay in dict.fromkeys(find_spike_sources(after.graph, name)):
        if source in before.spikes and source in after.spikes:
            until = max(step + 1 - delay, 0)
            if (before.spikes[source][:until, sample] != after.spikes[source][:until, sample]).any():
                changed.append(source)
    return tuple(dict.fromkeys(changed))


def _format_index(neuron: Sequence[int]) -> str:
    return str(neuron[0]) if len(neuron) == 1 else f"({', '.join(map(str, neuron))})"


# ----------------------------------------------------------------------------------------------------------- distances


@dataclass(frozen=True, kw_only=True)
class SpikeDistance:
    """Distance of the spikes of one layer in two runs.

    Attributes:
        differ: neuron steps in which the two do not send the same number of spikes, over all samples.
        share: `differ` over all neuron steps.
        spikes: spikes in the two runs.
        van_rossum: see `van_rossum`, summed over neurons and samples: about the number of spikes that only one run has.
    """

    differ: int
    share: float
    spikes: tuple[int, int]
    van_rossum: float

    def to_json(self) -> dict[str, float | int | list[int]]:
        """Return plain data."""
        return {"differ": self.differ, "share": self.share, "spikes": list(self.spikes), "van_rossum": self.van_rossum}


def spike_distance(a: Array, b: Array) -> SpikeDistance:
    """Return the distance of two recordings (T, B, *shape) of one layer."""
    differ = int(np.count_nonzero(a != b))
    return SpikeDistance(
        differ=differ,
        share=differ / a.size,
        spikes=(int(a.sum(dtype=np.int64)), int(b.sum(dtype=np.int64))),
        van_rossum=van_rossum(a, b) if differ else 0.0,
    )


def van_rossum(a: Array, b: Array, time_constant_steps: float = TIME_CONSTANT_STEPS) -> float:
    """Return van Rossum's squared distance of two recordings (T, ...), summed over all but time.

    Both are smoothed by a causal exponential, f_t = q · f_{t−1} + a_t − b_t with q = exp(−1 / time constant), and

        D² = (1 − q²) · Σ_t f_t²          over all steps, those after the end included

    so a spike without a counterpart counts 1, and one that moved by k steps 2 · (1 − q^k): 0.19 for one step.

    Source: M. C. W. van Rossum, A novel spike distance, Neural Computation 13 (2001), in discrete time.

    >>> spike, later = np.eye(8)[2], np.eye(8)[3]
    >>> round(van_rossum(spike, 0 * spike), 6), round(van_rossum(spike, later), 3)
    (1.0, 0.19)
    """
    q = float(np.exp(-1 / time_constant_steps))
    steps = len(a)
    changed = (a != b).reshape(steps, -1).any(axis=0)
    difference = np.subtract(a.reshape(steps, -1)[:, changed], b.reshape(steps, -1)[:, changed], dtype=np.float64)
    trace = np.zeros(difference.shape[1])
    total = 0.0
    for row in difference:
        trace = q * trace + row
        total += float(trace @ trace)
    return (1 - q * q) * total + q * q * float(trace @ trace)  # the trace fades after the end: a geometric sum
