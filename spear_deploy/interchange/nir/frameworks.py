"""What did the framework that wrote a NIR file mean by it?

NIR's equations are continuous in time; a framework puts its own steps into them, each in its own way, and the file does not
say which. So the reader is told who wrote it, and puts that framework's discrete equation into parameters with which the
graph's own update is the same. What each writes was read in its exporter, and its steps in its neurons: snnTorch 1.0.0,
Norse 1.1.0, sinabs 3.1.3, Rockpool 3.1.0, Spyx 1.0.0, and the NIR paper's scripts for Lava.

    snntorch   v ← beta v + x           tau = dt / (1 − beta), r = tau / dt, dt = 1e-4; the reset is not written
    norse      Euler                    dt · tau in place of tau; no w_in, which is tau_syn / dt
    sinabs     v ← k v + (1 − k) x      k = exp(−1 / tau), tau in steps; spikes where v ≥ v_threshold; subtracts
    rockpool   u ← k_syn (u + x)        k = exp(−dt / tau), r = tau k / dt, from which dt follows; v ≥ v_threshold; subtracts
               v ← k_mem v + u
    spyx       v ← beta v + x           tau = dt / (1 − beta), r to be passed over; the spike goes out a step later
    lava       as NIR, dt = 1e-4        resets to 0
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError, did_you_mean
from spear_deploy.interchange.nir.edges import Arrow
from spear_deploy.interchange.nir.neurons import SPIKING, Fields
from spear_deploy.network import LIF, Array, CubaLIF, Layer, Reset, Scale
from spear_deploy.network.graph import Edge, SNNGraph

READERS = ("nengo", "spinnaker2", "speck", "xylo", "hxtorch")
"""What reads NIR and writes none."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The habits of a framework.

    Attributes:
        dt_s: the step that it writes its files with, or None if that is the user's own.
        reset: what its neurons do unless the user says otherwise.
        late_reset: kinds of neuron that subtract the threshold one step later, undecayed.
        late_spikes: kinds of neuron whose spikes go out one step later.
        reached: spikes where v ≥ v_threshold.
        reset_told: what the user must know where the reset is the framework's default.
        told: what the user must know anyway, one sentence each.
    """

    dt_s: float | None = None
    reset: Reset = "value"
    late_reset: tuple[str, ...] = ()
    late_spikes: tuple[str, ...] = ()
    reached: bool = False
    reset_told: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


SEVERAL = "several spikes in one step, which it may emit where v reaches twice the threshold, are one here"

SOURCES: dict[str, Source] = {
    "snntorch": Source(
        dt_s=1e-4,
        reset="subtract",
        late_reset=("LIF", "CubaLIF"),
        reset_told=(
            "does not write its reset: its default is taken, which subtracts the threshold one step later "
            "(reset_mechanism='zero': --reset value; reset_delay=False: --reset subtract)",
        ),
    ),
    "norse": Source(dt_s=1e-3),
    "sinabs": Source(
        reset="subtract",
        reached=True,
        told=(
            "counts tau in steps and decays by exp(-1 / tau); of LIF the input is taken as normalised, its default",
            f"a lower bound of v (min_v_mem) and a synaptic current (tau_syn) are not written; {SEVERAL}",
        ),
    ),
    "rockpool": Source(reset="subtract", reached=True, told=(f"does not write biases and recurrent weights; {SEVERAL}",)),
    "spyx": Source(dt_s=1.0, reset="subtract", late_reset=("IF", "LIF"), late_spikes=("IF", "LIF", "CubaLIF")),
    "lava": Source(dt_s=1e-4),
}


def source_of(name: str | None) -> Source:
    """Return the habits of a framework; without a name those of NIR itself.

    Raises:
        UnsupportedError: one that writes no NIR, or an unknown one.
    """
    if name is None:
        return Source()
    if name in READERS:
        raise UnsupportedError(f"source '{name}': reads NIR and writes none; name the framework that wrote the file, or none")
    if name not in SOURCES:
        raise UnsupportedError(f"source '{name}': expected one of {', '.join(SOURCES)}{did_you_mean(name, SOURCES)}")
    return SOURCES[name]


def time_step(source: str | None, given: float | None, neurons: Iterable[tuple[str, Fields]]) -> float | None:
    """Return the step of a file by its framework, or None where neither tells it.

    Rockpool's follows from r = tau · exp(−dt / tau) / dt of any neuron: with q = dt / tau, q · exp(q) = 1 / r.

    Raises:
        GraphError: Rockpool neurons with different steps.
    """
    if given is not None or source != "rockpool":
        return source_of(source).dt_s if given is None else given
    steps = {}
    for name, fields in neurons:
        tau = fields.get("tau", fields.get("tau_mem"))
        if tau is None or (fields["r"] <= 0).any() or fields["r"].size not in (1, tau.size):
            continue
        found = np.unique(tau.reshape(-1) * _lambert(1 / fields["r"].astype(np.float64).reshape(-1)))
        steps[name] = float(found.mean())
        if np.ptp(found) > 1e-3 * abs(found.mean()) or abs(steps[name] - next(iter(steps.values()))) > 1e-3 * abs(steps[name]):
            raise GraphError(f"node '{name}': its r and tau tell another dt than '{next(iter(steps))}'; give dt_s")
    return float(f"{np.mean(list(steps.values())):.5g}") if steps else None


def _lambert(x: Array) -> Array:
    """Return q with q · exp(q) = x > 0, by Newton's method."""
    q = np.log1p(x)
    for _ in range(60):
        q = q - (q * np.exp(q) - x) / (np.exp(q) * (q + 1))
    return np.asarray(q)


def as_meant(source: str | None, kind: str, fields: Fields, dt_s: float, notes: list[str]) -> Fields:
    """Return the parameters with which the graph's own update is the framework's.

    Args:
        source: the framework, or None for NIR's own equations.
        kind: the type of the node.
        fields: its parameters (`nir_neurons.spread`).
        dt_s: the time step.
        notes: takes what is changed.
    """
    change = CHANGES.get(source or "")
    if change is not None:
        fields = change(kind, {name: value.astype(np.float64) for name, value in fields.items()}, dt_s, notes)
    if source_of(source).reached and kind in SPIKING:
        name = "threshold" if kind == "Threshold" else "v_threshold"
        lower = np.nextafter(fields[name].astype(np.float32), np.float32(-np.inf))
        fields = {**fields, name: lower}
        notes.append("thresholds are one float32 step lower, since a v that reaches them spikes there")
    return fields


def _norse(kind: str, f: Fields, dt_s: float, notes: list[str]) -> Fields:
    taus = [name for name in f if name.startswith("tau")]
    if any((f[name] < dt_s / 2).any() for name in taus):
        notes.append(f"time constants are below dt / 2, as Norse 1.1.0 writes them (dt · tau): they are divided by {dt_s:g} s")
        f = {**f, **{name: f[name] / dt_s for name in taus}}
    if "w_in" in f and (f["w_in"] == 1).all():
        notes.append("w_in of 1 is taken as tau_syn / dt: a spike adds its weight to the current, as in Norse's LIFCell")
        f = {**f, "w_in": f["tau_syn"] / dt_s}
    return f


def _sinabs(kind: str, f: Fields, dt_s: float, notes: list[str]) -> Fields:
    if kind not in ("LIF", "LI"):
        return f
    tau = dt_s / -np.expm1(-1 / f["tau"])
    return {**f, "tau": tau, "r": f["r"] * (tau / dt_s if kind == "LI" else 1)}


def _rockpool(kind: str, f: Fields, dt_s: float, notes: list[str]) -> Fields:
    if kind in ("LIF", "LI"):
        keep = np.exp(-dt_s / f["tau"])
        return {**f, "tau": dt_s / (1 - keep), "r": (keep if kind == "LI" else 1.0) / (1 - keep)}
    if kind in ("CubaLIF", "CubaLI"):
        keep, keep_syn = np.exp(-dt_s / f["tau_mem"]), np.exp(-dt_s / f["tau_syn"])
        mem, syn = dt_s / (1 - keep), dt_s / (1 - keep_syn)
        return {**f, "tau_mem": mem, "r": mem / dt_s, "tau_syn": syn, "w_in": keep_syn * syn / dt_s}
    return f


def _spyx(kind: str, f: Fields, dt_s: float, notes: list[str]) -> Fields:
    if kind in ("LIF", "LI"):
        return {**f, "r": f["tau"] / dt_s}
    if kind in ("CubaLIF", "CubaLI"):
        return {**f, "r": f["tau_mem"] / dt_s, "w_in": f["tau_syn"] / dt_s}
    return f


CHANGES: Mapping[str, Callable[[str, Fields, float, list[str]], Fields]] = {
    "norse": _norse,
    "sinabs": _sinabs,
    "rockpool": _rockpool,
    "spyx": _spyx,
}


def doubts(neurons: Iterable[tuple[str, str, Fields]], dt_s: float) -> list[str]:
    """Return what in a file hints at another step or source than was taken, one sentence each.

    Args:
        neurons: name, type and parameters of each neuron, as they are run.
        dt_s: the step that was taken.
    """
    found: list[str] = []
    ratios: set[str] = set()
    for name, _, fields in neurons:
        taus = [fields[key] for key in ("tau", "tau_mem", "tau_syn") if key in fields]
        fastest = max((float((dt_s / tau[tau > 0]).max()) for tau in taus if (tau > 0).any()), default=0.0)
        if fastest > 2:
            found.append(
                f"node '{name}': dt is {fastest:.3g} of its time constants, above 2 a state swings up without end; "
                "check dt_s and source"
            )
        tau = fields.get("tau", fields.get("tau_mem"))
        if tau is not None and "v_threshold" in fields:
            steps = np.unique((tau / np.where((fields["r"] == 0) | (fields["r"] == 1), np.nan, fields["r"])).astype(np.float64))
            ratios |= {f"{step:.4g}" for step in steps}
    (ratio,) = ratios if len(ratios) == 1 else ("nan",)
    if not np.isnan(float(ratio)) and abs(float(ratio) / dt_s - 1) > 1e-3 and 0 < float(ratio) <= 0.1:
        found.append(f"tau / r is {ratio} s in every neuron, as in files whose time step that is; give it as dt_s if so")
    return found


# FOLDED from spear_deploy/interchange/nir/frameworks.py
# What comes a step later in the framework that wrote a NIR file than in the graph?
#
# Late spikes: a framework that compares v before it adds the input sends each spike a step later. Every edge out of such a
# neuron gets that step; then steps that all ways share are taken out (retiming), so that a chain needs no delay at all. A bias
# acts from the first step on, so with one a layer that starts earlier would have had less of it: then the steps stay.
#
# Late resets: a framework that subtracts the threshold in the next step does not let it decay. The graph subtracts at once,
# v − v_threshold, and what has decayed of that by then is missing: (1 − k) · v_threshold. The neuron's own spike brings it, by an
# edge of one step and a weight. Where a synaptic current lies in between, a second spike takes back what the current would keep.


def with_late_spikes(
    arrows: Sequence[Arrow], late: Collection[str], source: str, *, retime: bool
) -> tuple[list[Arrow], dict[str, int]]:
    """Return the edges with one step more out of each of `late`, if asked less what all ways from `source` to a node share.

    Returns:
        The edges, and by node how many steps earlier it is than in the framework. With p the shortest delay from the source,
        an edge keeps `delay + p(its source) − p(its target)` ≥ 0, and a cycle keeps its delay.
    """
    slow = [replace(a, delay=a.delay + (a.source in late)) for a in arrows]
    if not retime:
        return slow, {}
    early = _shortest(slow, source)
    kept = [replace(a, delay=a.delay + early.get(a.source, 0) - early.get(a.target, 0)) for a in slow]
    return kept, early


def _shortest(arrows: Sequence[Arrow], source: str) -> dict[str, int]:
    after: dict[str, list[Arrow]] = {}
    for arrow in arrows:
        after.setdefault(arrow.source, []).append(arrow)
    done: dict[str, int] = {}
    waiting = [(0, source)]
    while waiting:
        steps, name = heapq.heappop(waiting)
        if name in done:
            continue
        done[name] = steps
        for arrow in after.get(name, ()):
            heapq.heappush(waiting, (steps + arrow.delay, arrow.target))
    return done


def with_late_reset(graph: SNNGraph, names: Collection[str]) -> SNNGraph:
    """Return the graph in which these neurons, which subtract at once, do as if they subtracted one step later.

    v counts from then on without the part that is still to be subtracted. An IF neuron loses nothing, so nothing is added.
    """
    layers, edges = list(graph.layers), list(graph.edges)
    for layer in graph.layers:
        if layer.name not in names or not isinstance(layer.neuron, (LIF, CubaLIF)):
            continue
        for number, (wait, weight) in enumerate(_missing(layer.neuron, graph.dt_s)):
            name = f"{layer.name}.reset{number or ''}"
            while any(name == other.name for other in layers):
                name += "_"
            layers.append(Layer(name=name, synapse=Scale(weight=weight)))
            edges += [Edge(source=layer.name, target=name, delay=wait), Edge(source=name, target=layer.name)]
    return replace(graph, layers=tuple(layers), edges=tuple(edges))


def _missing(neuron: LIF | CubaLIF, dt_s: float) -> list[tuple[int, Array]]:
    """Return (steps, input per spike) that brings −(1 − k) · v_threshold to v in the next step, and nothing later."""
    lost = -neuron.v_threshold.astype(np.float64) / neuron.r
    if isinstance(neuron, LIF):
        return [(1, lost)]
    keep, jump = 1 - dt_s / neuron.tau_syn_s, neuron.w_in * (dt_s / neuron.tau_syn_s)
    return [(1, lost / jump), (2, -keep * lost / jump)]
