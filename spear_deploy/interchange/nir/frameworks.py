"""Conventions of the frameworks that write NIR files.

NIR's equations are continuous in time, and a file does not state how its framework steps them. So the framework is an option of
the reader (`source`), and its discrete equation is put into parameters with which the network's own update is the same. The
equations were read in each exporter and its neurons: snnTorch 1.0.0, Norse 1.1.0, sinabs 3.1.3, Rockpool 3.1.0, Spyx 1.0.0, and
the NIR paper's scripts for Lava.

    snntorch   v ← beta v + x           tau = dt / (1 − beta), r = tau / dt, dt = 1e-4; the reset is not written
    norse      Euler                    dt · tau in place of tau; no w_in, which is tau_syn / dt
    sinabs     v ← k v + (1 − k) x      k = exp(−1 / tau), tau in steps; n spikes where v ≥ n v_threshold; subtracts
               v ← max(v, −v_threshold) of IF, as its own reader sets min_v_mem
    rockpool   u ← k_syn (u + x)        k = exp(−dt / tau), r = tau k / dt, from which dt follows; v ≥ n v_threshold; subtracts
               v ← k_mem v + u
    spyx       v ← beta v + x           tau = dt / (1 − beta), r is ignored; spikes leave one step later
    lava       as NIR, dt = 1e-4        resets to 0
    spikingjelly  as NIR                r of IF is 1 / dt; spikes where v ≥ v_threshold; sets v to v_reset
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError, did_you_mean
from spear_deploy.interchange.nir.edges import Arrow
from spear_deploy.interchange.nir.neurons import SPIKING, Fields
from spear_deploy.network import Array, Reset

Conversion: TypeAlias = Callable[[str, Fields, float, list[str]], Fields]
"""f(node type, parameters in float64, dt in s, notes) → parameters of the network's update; notes what it changes."""


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What a framework's NIR file means beyond NIR.

    Attributes:
        dt_s: the time step of its files; None where the user chooses it.
        infer_dt_s: f(name and parameters of each neuron) → the time step that they imply, if any.
        convert: its parameters → those of the network's update; None where they are the same.
        fires_at_threshold: whether a neuron spikes where v ≥ v_threshold, and not only above.
        reset: default of its neurons.
        max_spikes: largest number of spikes in a step by default; None has no limit.
        late_reset: node types that subtract the threshold one step later, undecayed.
        late_spikes: node types whose spikes leave one step later.
        reset_notes: notes for the user where the reset is the framework's default.
        notes: notes for the user in any case.
    """

    dt_s: float | None = None
    infer_dt_s: Callable[[Iterable[tuple[str, Fields]]], float | None] | None = None
    convert: Conversion | None = None
    fires_at_threshold: bool = False
    reset: Reset = "value"
    max_spikes: int | None = 1
    late_reset: tuple[str, ...] = ()
    late_spikes: tuple[str, ...] = ()
    reset_notes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------- equations of a framework


def _convert_norse(kind: str, f: Fields, dt_s: float, notes: list[str]) -> Fields:
    """Norse 1.1.0 writes dt · tau for tau, and no w_in."""
    taus = [name for name in f if name.startswith("tau")]
    if any((f[name] < dt_s / 2).any() for name in taus):
        notes.append(f"time constants are below dt / 2, as Norse 1.1.0 writes them (dt · tau): they are divided by {dt_s:g} s")
        f = {**f, **{name: f[name] / dt_s for name in taus}}
    if "w_in" in f and (f["w_in"] == 1).all():
        notes.append("w_in of 1 is taken as tau_syn / dt: a spike adds its weight to the current, as in Norse's LIFCell")
        f = {**f, "w_in": f["tau_syn"] / dt_s}
    return f


def _convert_sinabs(kind: str, f: Fields, dt_s: float, notes: list[str]) -> Fields:
    """Decay k = exp(−1 / tau) with tau in steps; a LIF scales its input by 1 − k, a LI does not; an IF has a lower bound."""
    if kind == "IF":
        return {**f, "v_min": np.minimum(-f["v_threshold"], np.minimum(f["v_reset"], 0))}
    if kind not in ("LIF", "LI"):
        return f
    tau = dt_s / -np.expm1(-1 / f["tau"])
    return {**f, "tau": tau, "r": f["r"] * (tau / dt_s if kind == "LI" else 1)}


def _convert_rockpool(kind: str, f: Fields, dt_s: float, notes: list[str]) -> Fields:
    """Decay k = exp(−dt / tau); the input of a current decays in the step in which it arrives; v_leak is the membrane's bias."""
    if kind in ("LIF", "LI"):
        keep = np.exp(-dt_s / f["tau"])
        return {**f, "tau": dt_s / (1 - keep), "r": (keep if kind == "LI" else 1.0) / (1 - keep)}
    if kind in ("CubaLIF", "CubaLI"):
        keep, keep_syn = np.exp(-dt_s / f["tau_mem"]), np.exp(-dt_s / f["tau_syn"])
        mem, syn = dt_s / (1 - keep), dt_s / (1 - keep_syn)
        biased = {"v_leak": f["v_leak"] / (1 - keep), "v_init": np.zeros(())} if f["v_leak"].any() else {}
        return {**f, **biased, "tau_mem": mem, "r": mem / dt_s, "tau_syn": syn, "w_in": keep_syn * syn / dt_s}
    return f


def _convert_spyx(kind: str, f: Fields, dt_s: float, notes: list[str]) -> Fields:
    """The input is added as it is: r = tau / dt, w_in = tau_syn / dt."""
    if kind in ("LIF", "LI"):
        return {**f, "r": f["tau"] / dt_s}
    if kind in ("CubaLIF", "CubaLI"):
        return {**f, "r": f["tau_mem"] / dt_s, "w_in": f["tau_syn"] / dt_s}
    return f


def infer_rockpool_steps(fields: Fields) -> Array | None:
    """Return the time step in s that each value of r = tau · exp(−dt / tau) / dt implies.

    With q = dt / tau it is q · exp(q) = 1 / r.
    """
    tau = fields.get("tau", fields.get("tau_mem"))
    if tau is None or (fields["r"] <= 0).any() or fields["r"].size not in (1, tau.size):
        return None
    x = 1 / fields["r"].astype(np.float64).reshape(-1)
    q = np.log1p(x)
    for _ in range(60):  # Newton's method; the root is Lambert's W of x
        q = q - (q * np.exp(q) - x) / (np.exp(q) * (q + 1))
    return np.unique(tau.reshape(-1) * q)


def _infer_rockpool_dt(neurons: Iterable[tuple[str, Fields]]) -> float | None:
    """Return the time step that Rockpool's neurons imply.

    Raises:
        GraphError: neurons with different steps.
    """
    steps: dict[str, float] = {}
    for name, fields in neurons:
        dt_s = infer_rockpool_steps(fields)
        if dt_s is None:
            continue
        steps[name] = float(dt_s.mean())
        first_name, first = next(iter(steps.items()))
        if np.ptp(dt_s) > 1e-3 * abs(dt_s.mean()) or abs(steps[name] - first) > 1e-3 * abs(steps[name]):
            raise GraphError(f"node '{name}': its r and tau imply another dt than '{first_name}'; give dt_s")
    return float(f"{np.mean(list(steps.values())):.5g}") if steps else None


def _infer_spikingjelly_dt(neurons: Iterable[tuple[str, Fields]]) -> float:
    """Return 1 / r of the first IF neuron, else the step that SpikingJelly's exporter takes unless told otherwise."""
    without_tau = (fields for _, fields in neurons if not any(name.startswith("tau") for name in fields))
    rates = [fields["r"].reshape(-1)[0] for fields in without_tau if "r" in fields]  # a Threshold has none
    return float(f"{1 / rates[0]:.6g}") if rates and rates[0] > 1 else 1e-4


def _convert_spikingjelly(kind: str, f: Fields, dt_s: float, notes: list[str]) -> Fields:
    """IF adds its input as it is: r = 1 / dt, after NIR's v' = r · x."""
    return {**f, "r": f["r"] * dt_s} if kind == "IF" else f


# --------------------------------------------------------------------------------------------------------------- table

FRAMEWORKS: dict[str, Conventions] = {
    "snntorch": Conventions(
        dt_s=1e-4,
        reset="subtract",
        late_reset=("LIF", "CubaLIF"),
        reset_notes=(
            "does not write its reset: its default is taken, which subtracts the threshold one step later "
            "(reset_mechanism='zero': --reset value; reset_delay=False: --reset subtract)",
        ),
    ),
    "norse": Conventions(dt_s=1e-3, convert=_convert_norse),
    "sinabs": Conventions(
        convert=_convert_sinabs,
        fires_at_threshold=True,
        reset="subtract",
        max_spikes=None,
        notes=(
            "counts tau in steps and decays by exp(-1 / tau); of LIF the input is taken as normalised, its default",
            "does not write min_v_mem: v of IF neurons stays at or above -v_threshold, as its own reader sets it, and Speck",
            "does not write tau_syn and spike_fn: MultiSpike, its default, is taken, with several spikes in a step; "
            "give the module where it is another",
        ),
    ),
    "rockpool": Conventions(
        infer_dt_s=_infer_rockpool_dt,
        convert=_convert_rockpool,
        fires_at_threshold=True,
        reset="subtract",
        max_spikes=None,
        notes=(
            "does not write biases, recurrent weights and max_spikes_per_dt: its default is taken, with several spikes in a "
            "step; give the module where it is another",
        ),
    ),
    "spyx": Conventions(
        dt_s=1.0,
        convert=_convert_spyx,
        reset="subtract",
        late_reset=("IF", "LIF"),
        late_spikes=("IF", "LIF", "CubaLIF"),
    ),
    "lava": Conventions(dt_s=1e-4),
    "spikingjelly": Conventions(
        infer_dt_s=_infer_spikingjelly_dt, convert=_convert_spikingjelly, fires_at_threshold=True, reset="value"
    ),
}
"""The frameworks that write NIR, by the name that the option `source` takes."""

PLAIN = "nir"
"""The option `source` for a file that means what NIR says."""

READ_ONLY = ("nengo", "spinnaker2", "speck", "xylo", "hxtorch")
"""Frameworks that read NIR and write none."""


def get_conventions(source: str | None) -> Conventions:
    """Return the conventions of a framework; without a name, and for "nir", those of NIR itself.

    Raises:
        UnsupportedError: a framework that writes no NIR, or an unknown one.
    """
    if source in (None, PLAIN):
        return Conventions()
    if source in READ_ONLY:
        raise UnsupportedError(
            f"source '{source}': reads NIR and writes none; name the framework that wrote the file, or leave it out"
        )
    known = (*FRAMEWORKS, PLAIN)
    if source not in FRAMEWORKS:
        raise UnsupportedError(f"source '{source}': expected one of {', '.join(known)}{did_you_mean(source, known)}")
    return FRAMEWORKS[source]


def convert_parameters(conventions: Conventions, kind: str, fields: Fields, dt_s: float, notes: list[str]) -> Fields:
    """Return the parameters with which the network's update is the framework's.

    Args:
        conventions: of the framework.
        kind: the type of the node.
        fields: its parameters (`neurons.shrink_parameters`).
        dt_s: the time step in s.
        notes: collects what is changed.
    """
    if conventions.convert is not None:
        fields = conventions.convert(kind, {name: value.astype(np.float64) for name, value in fields.items()}, dt_s, notes)
    if conventions.fires_at_threshold and kind in SPIKING:
        name = "threshold" if kind == "Threshold" else "v_threshold"
        fields = {**fields, name: np.nextafter(fields[name].astype(np.float32), np.float32(-np.inf))}
        notes.append("thresholds are one float32 step lower, since a v that reaches them spikes there")
    return fields


def list_doubts(neurons: Iterable[tuple[str, Fields]], dt_s: float) -> list[str]:
    """Return signs in a file of another time step or framework than was taken, a sentence each.

    Args:
        neurons: name and parameters of each neuron, as they are run.
        dt_s: the step that was taken.
    """
    doubts: list[str] = []
    ratios: set[str] = set()
    for name, fields in neurons:
        taus = [fields[key] for key in ("tau", "tau_mem", "tau_syn") if key in fields]
        fastest = max((float((dt_s / tau[tau > 0]).max()) for tau in taus if (tau > 0).any()), default=0.0)
        if fastest > 2:
            doubts.append(
                f"node '{name}': dt is {fastest:.3g} of its time constants, above 2 a state swings up without end; "
                "check dt_s and source"
            )
        tau = fields.get("tau", fields.get("tau_mem"))
        if tau is not None and "v_threshold" in fields:
            r = np.where((fields["r"] == 0) | (fields["r"] == 1), np.nan, fields["r"])
            ratios |= {f"{ratio:.4g}" for ratio in np.unique((tau / r).astype(np.float64))}
    (shared,) = ratios if len(ratios) == 1 else ("nan",)
    if not np.isnan(float(shared)) and abs(float(shared) / dt_s - 1) > 1e-3 and 0 < float(shared) <= 0.1:
        doubts.append(f"tau / r is {shared} s in every neuron, as in files whose time step that is; give it as dt_s if so")
    return doubts


# ------------------------------------------------------------------------------------------------------ spikes a step late
#
# Late spikes: a framework that compares v before it adds the input emits each spike one step later. Every edge out of such a
# neuron gets that step; then the steps that all paths share are removed (retiming), so that a chain needs no delay at all. A bias
# acts from the first step on, so a layer that starts earlier would have less of it: with a bias the steps stay.


def delay_spikes(
    arrows: Sequence[Arrow], late: Collection[str], source: str, *, retime: bool
) -> tuple[list[Arrow], dict[str, int]]:
    """Add a step to every edge out of the late nodes; with `retime`, remove the steps that all paths to a node share.

    Args:
        arrows: the edges.
        late: names of nodes whose spikes leave one step later.
        source: name of the input node.
        retime: whether to remove shared steps.

    Returns:
        The edges, and by node how many steps earlier it is than in the framework. With p the shortest delay from the source,
        an edge keeps `delay + p(its source) − p(its target)` ≥ 0, and a cycle keeps its delay.
    """
    delayed = [replace(a, delay=a.delay + (a.source in late)) for a in arrows]
    if not retime:
        return delayed, {}
    import networkx

    view = networkx.MultiDiGraph()
    view.add_node(source)
    view.add_edges_from((a.source, a.target, {"weight": a.delay}) for a in delayed)
    early = networkx.single_source_dijkstra_path_length(view, source)
    return [replace(a, delay=a.delay + early.get(a.source, 0) - early.get(a.target, 0)) for a in delayed], early
