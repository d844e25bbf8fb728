"""Fingerprints of the framework that wrote a NIR file.

NIR states neither a time step nor the kind of reset, but exporters leave traces in numbers and names:

    snntorch       LIF, CubaLIF: r · 1e-4 = tau, w_in · 1e-4 = tau_syn, v_leak 0, the input is called "input"
    spikingjelly   IF: r = 1e4; nodes are called as `nirtorch.torch_to_nir` calls them ("input_1", "_0"), v_leak = v_reset
    rockpool       r = tau · exp(−dt / tau) / dt with one dt for all neurons, w_in 1; nodes called "1_LIFTorch"
    sinabs         LIF, LI: r 1, tau in steps, so 1 or more
    norse          LIF, CubaLIF: r 1, tau · dt in place of tau, so below dt / 2
    IF with r 1    Spyx calls its nodes "layer_0", "layer_1"; sinabs writes sums as pools, and a bias with all weights; without
                   such traces sinabs or Norse, which give different spikes: no framework is taken

One framework whose traces all neurons bear is taken, and stated. Where several are possible none is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spear_deploy.interchange.nir.frameworks import infer_rockpool_steps
from spear_deploy.interchange.nir.layout import read_kind
from spear_deploy.interchange.nir.neurons import SPIKING, Fields
from spear_deploy.network import Array
from spear_deploy.util.hdf5.tree import Tree

EXPORT_DT_S = 1e-4
"""Time step that snnTorch and SpikingJelly write their files with."""
RELATIVE_ERROR = 1e-5
"""Of a product of two float32 numbers, several times."""
NAMES = {"snntorch": "snnTorch", "spikingjelly": "SpikingJelly", "rockpool": "Rockpool", "sinabs": "sinabs", "norse": "Norse"}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The framework that wrote a file.

    Attributes:
        source: its name as an option, None where no single one can be told.
        note: a sentence for the user, None where there are no traces.
    """

    source: str | None = None
    note: str | None = None


def find_origin(nodes: Mapping[str, Tree], neurons: Mapping[str, Fields]) -> Origin:
    """Return the framework whose traces a file bears.

    Args:
        nodes: all nodes by name.
        neurons: the parameters of neurons by the name of their node.
    """
    kinds = {name: read_kind(nodes[name]) for name in neurons}
    spiking = [name for name, kind in kinds.items() if kind in SPIKING and kind != "Threshold"]
    if not spiking or any(not np.isfinite(value).all() for fields in neurons.values() for value in fields.values()):
        return Origin()
    traces = {
        "spikingjelly": _find_spikingjelly(nodes, neurons, kinds),
        "snntorch": _find_snntorch(nodes, neurons, kinds),
        "rockpool": _find_rockpool(nodes, neurons, kinds),
        "sinabs": _find_sinabs(neurons, kinds),
        "norse": _find_norse(neurons, kinds),
    }
    bearers = {source: trace for source, trace in traces.items() if trace is not None}
    if len(bearers) == 1:
        ((source, trace),) = bearers.items()
        return Origin(source=source, note=f"read as {NAMES[source]}'s: {trace}; --source overrules")
    if bearers:
        both = " and ".join(f"{NAMES[source]} ({trace})" for source, trace in bearers.items())
        return Origin(note=f"fits {both}, which give different spikes: NIR's own equations are taken; name one by --source")
    if all(kinds[name] == "IF" and _is_constant(neurons[name]["r"], 1) for name in spiking):
        return _find_plain_if(nodes)
    return Origin()


def _find_plain_if(nodes: Mapping[str, Tree]) -> Origin:
    """Return the framework of IF neurons with r = 1, which several write, by its other nodes."""
    kinds = {name: read_kind(node) for name, node in nodes.items()}
    inner = [name for name, kind in kinds.items() if kind not in ("Input", "Output")]
    if all(re.fullmatch(r"layer_\d+", name) for name in inner):
        return Origin(source="spyx", note="read as Spyx's: nodes are called layer_0, layer_1, ...; --source overrules")
    weights = [node for name, node in nodes.items() if kinds[name] in ("Affine", "Linear", "Conv1d", "Conv2d")]
    if "SumPool2d" in kinds.values() and all(isinstance(node.get("bias"), np.ndarray) for node in weights):
        return Origin(source="sinabs", note="read as sinabs's: IF neurons with r = 1, pools as sums; --source overrules")
    return Origin(
        note="IF neurons with r = 1 fit Norse (v above the threshold, set to v_reset) and sinabs (v at or above the threshold, "
        "which is subtracted), which give different spikes: NIR's own equation is taken, v above the threshold, set to v_reset; "
        "name one by --source"
    )


# ------------------------------------------------------------------------------------------------- traces of a framework


def _find_snntorch(nodes: Mapping[str, Tree], neurons: Mapping[str, Fields], kinds: Mapping[str, str]) -> str | None:
    if not set(kinds.values()) <= {"LIF", "CubaLIF"} or _is_named_by_torch_to_nir(nodes):
        return None
    for name, fields in neurons.items():
        pairs = [("r", "tau")] if kinds[name] == "LIF" else [("r", "tau_mem"), ("w_in", "tau_syn")]
        at_zero = _is_constant(fields["v_leak"], 0) and _is_constant(fields["v_reset"], 0)
        if not at_zero or not all(_is_ratio(fields[tau], fields[r], EXPORT_DT_S) for r, tau in pairs):
            return None
    if all(_is_constant(fields["r"], 1) for fields in neurons.values()):
        return None
    return "r · 1e-4 equals tau in every neuron"


def _find_spikingjelly(nodes: Mapping[str, Tree], neurons: Mapping[str, Fields], kinds: Mapping[str, str]) -> str | None:
    """Return the traces of SpikingJelly: its names, or the r of its IF neurons."""
    if not set(kinds.values()) <= {"IF", "LIF", "CubaLIF"}:
        return None
    step = 1 / EXPORT_DT_S
    large = [name for name in neurons if kinds[name] == "IF" and _is_constant(neurons[name]["r"], step)]
    for name, fields in neurons.items():
        if kinds[name] == "IF" and name not in large:
            return None
        if kinds[name] == "LIF":
            is_known = _is_constant(fields["r"], 1) or _is_ratio(fields["tau"], fields["r"], EXPORT_DT_S)
            if not is_known or not np.array_equal(fields["v_leak"], fields["v_reset"]) or (fields["tau"] < EXPORT_DT_S).any():
                return None
        if kinds[name] == "CubaLIF" and not _is_ratio(fields["tau_syn"], fields["w_in"], EXPORT_DT_S):
            return None
    if large:
        return "r of its IF neurons is 1e4, one over its time step"
    return "nodes are named as by its exporter, v_leak equals v_reset" if _is_named_by_torch_to_nir(nodes) else None


def _find_rockpool(nodes: Mapping[str, Tree], neurons: Mapping[str, Fields], kinds: Mapping[str, str]) -> str | None:
    """Return the traces of Rockpool: its names, or one time step that r and several tau imply."""
    if not set(kinds.values()) <= {"LIF", "CubaLIF", "LI"}:
        return None
    if any("w_in" in fields and not _is_constant(fields["w_in"], 1) for fields in neurons.values()):
        return None
    if any((fields["r"] <= 1).any() for fields in neurons.values()):
        return None
    taus = [fields.get("tau", fields.get("tau_mem")) for fields in neurons.values()]
    implied = [infer_rockpool_steps(fields) for fields in neurons.values()]
    known = [values for values in implied if values is not None]
    if not known:
        return None
    steps = np.concatenate(known)
    pairs = zip(taus, neurons.values(), strict=True)
    is_snntorch = all(tau is not None and _is_ratio(tau, fields["r"], EXPORT_DT_S) for tau, fields in pairs)
    if is_snntorch or np.ptp(steps) > 1e-3 * abs(steps.mean()):
        return None
    if any(re.fullmatch(r"(.*\.)?\d+_\w*Torch", name) for name in neurons):
        return f"nodes are named as its modules, r and tau imply one time step of {steps.mean():.4g} s"
    distinct = {float(value) for tau in taus if tau is not None for value in np.unique(tau.astype(np.float32))}
    if len(distinct) > 1:
        return f"r equals tau · exp(-dt / tau) / dt with dt = {steps.mean():.4g} s in every neuron"
    return None


def _find_sinabs(neurons: Mapping[str, Fields], kinds: Mapping[str, str]) -> str | None:
    leaky = [fields for name, fields in neurons.items() if kinds[name] in ("LIF", "LI")]
    is_plain = set(kinds.values()) <= {"IF", "LIF", "LI"} and all(_is_constant(fields["r"], 1) for fields in neurons.values())
    if not leaky or not is_plain or not all((fields["tau"] >= 1).all() and _is_constant(fields["v_leak"], 0) for fields in leaky):
        return None
    return "r is 1 and every tau is 1 or more, a number of steps"


def _find_norse(neurons: Mapping[str, Fields], kinds: Mapping[str, str]) -> str | None:
    """Return the traces of Norse 1.1.0, which writes dt · tau with dt = 1e-3 s."""
    leaky = [fields for name, fields in neurons.items() if kinds[name] != "IF"]
    units = [fields[name] for fields in neurons.values() for name in ("r", "w_in") if name in fields]
    taus = [value for fields in leaky for name, value in fields.items() if name.startswith("tau")]
    if not taus or not all(_is_constant(value, 1) for value in units) or not all(((0 < t) & (t < 1e-4)).all() for t in taus):
        return None
    return "r is 1 and every tau is below 0.1 ms, a time constant times its time step"


# ------------------------------------------------------------------------------------------------------------ numbers


def _is_constant(value: Array, constant: float) -> bool:
    return bool(np.allclose(value, constant, rtol=RELATIVE_ERROR, atol=0))


def _is_ratio(tau: Array, r: Array, dt_s: float) -> bool:
    """Return whether r · dt equals tau."""
    return r.size in (1, tau.size) and bool(
        np.allclose(r.reshape(-1) * dt_s, tau.reshape(-1), rtol=RELATIVE_ERROR, atol=0) and (r > 0).all()
    )


def _is_named_by_torch_to_nir(nodes: Mapping[str, Tree]) -> bool:
    """Return whether nodes are called as `nirtorch.torch_to_nir` does: the input as the forward's argument, modules by "_"."""
    inputs = [name for name, node in nodes.items() if read_kind(node) == "Input"]
    return len(inputs) == 1 and inputs[0] != "input" and not any("." in name for name in nodes)
