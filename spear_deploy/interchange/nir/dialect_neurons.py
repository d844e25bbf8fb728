"""Neurons for the frameworks' NIR importers.

    snntorch      LIF, CubaLIF: beta = 1 − dt / tau, dt = 1e-4, x counts in full; sets v to 0 in the step of the spike.
                  IF, which it makes a Leaky of beta 0.9, is written as LIF of tau = 2^40 dt: beta is 1 in float32
    spikingjelly  IF: r = 1e4; LIF: r 1 or tau / dt, v_leak = v_reset; CubaLIF; dt = 1e-4; spikes where v ≥ v_threshold
    sinabs        LIF, LI: k = exp(−1 / tau), x counts in full; IF; v ≥ v_threshold, subtracts; several spikes in a step
    rockpool      CubaLIF: dt = min(tau_mem / (1 + r)), k = exp(−dt / tau); v ≥ v_threshold, subtracts; several spikes in a step
    norse         LIF, IF, CubaLIF by NIR's equations, dt = 1e-3, r of LIF and IF is ignored; sets v to 0

A neuron whose input counts by another factor g has its membrane written in units of g: v / g, v_threshold / g, which spikes in
the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol, TypeAlias

import numpy as np

from spear_deploy.network import (
    IF,
    LI,
    LIF,
    Array,
    CubaLIF,
    Neuron,
    Reset,
    emits_spikes,
    find_max_spikes,
    find_start,
    resets_late,
    sends_several,
)

SHORT_DT_S, LONG_DT_S = 1e-4, 1e-3
"""Time steps that importers take: snnTorch's and SpikingJelly's, and Norse's."""
NEVER_DECAYS = 2.0**40
"""A time constant in steps with which no float32 state decays."""
PARAMETERS = {
    "tau_s": "the time constant (tau) of its membrane",
    "tau_mem_s": "the time constant (tau) of its membrane",
    "tau_syn_s": "the time constant (tau) of its current",
    "v_threshold": "its threshold",
    "v_min": "the lower bound of its membrane",
}
"""What a parameter is, by its name here; others have NIR's names."""
EXACT = 1e-12
"""Relative error of factors that come from float64 formulas."""
FLOAT32_ERROR = 1e-6


@dataclass(frozen=True, kw_only=True)
class WrittenNeuron:
    """A neuron as an importer reads it.

    Attributes:
        kind: the type of its node.
        fields: by NIR's names.
        gain: factor by which the membrane is smaller there.
        v_min: lower bound of the membrane, None where there is none.
        settings: statements to run after the import, with `m` as the neuron's module.
        differences: what differs all the same, a sentence each.
    """

    kind: str
    fields: Mapping[str, Any]
    gain: Any = 1.0
    v_min: Any = None
    settings: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()


class Refuse(Protocol):
    """Refusal of a neuron."""

    def __call__(self, why: str, resets: Sequence[Reset] = (), *, one_spike: bool = False) -> NoReturn:
        """Raise an `UnsupportedError`.

        Args:
            why: what the framework lacks, and what to do unless that follows from the others.
            resets: those that the framework has, where it lacks the neuron's.
            one_spike: whether the framework lacks several spikes in a step.
        """


WriteNeuron: TypeAlias = Callable[[Any, float, Refuse], WrittenNeuron]
"""f(neuron, dt in s of the network, refuse) → what is written."""


# ------------------------------------------------------------------------------------------------------------ numbers


def _find_rates(neuron: Any, dt_s: float) -> dict[str, Array]:
    """Return dt / tau of each time constant, in float64."""
    names = [name for name in ("tau_s", "tau_mem_s", "tau_syn_s") if hasattr(neuron, name)]
    return {name: dt_s / getattr(neuron, name).astype(np.float64) for name in names}


def _find_gain(neuron: Any, dt_s: float) -> Array:
    """Return the factor by which an input counts in the membrane, through the synaptic current where there is one."""
    r = neuron.r.astype(np.float64)
    rates = _find_rates(neuron, dt_s)
    if isinstance(neuron, CubaLIF):
        gain: Array = r * rates["tau_mem_s"] * neuron.w_in * rates["tau_syn_s"]
        return gain
    return r if isinstance(neuron, IF) else r * rates["tau_s"]


def _scale_state(neuron: Any, gain: Array, refuse: Refuse) -> tuple[Any, Array]:
    """Return the neuron with its membrane in units of `gain`, and the gain, which is 1 where it is so but for rounding."""
    if (np.asarray(gain) <= 0).any():
        refuse("its input counts by a factor of 0 or less; give it r and w_in above 0")
    if np.allclose(gain, 1, rtol=EXACT, atol=0):
        return neuron, np.ones(())
    names = [name for name in ("v_threshold", "v_reset", "v_leak", "v_min", "v_init") if getattr(neuron, name, None) is not None]
    return replace(neuron, **{name: getattr(neuron, name) / gain for name in names}), np.asarray(gain)


def _uniform(value: Array, name: str, refuse: Refuse) -> float:
    """Return the one value that all neurons of a layer share."""
    if np.ptp(value.astype(np.float32)) != 0:
        refuse(
            f"{PARAMETERS.get(name, name)} differs between neurons, the importer takes one a layer; share it, or use weights_into"
        )
    return float(value.reshape(-1)[0])


def _raise_threshold(v_threshold: Array) -> Array:
    """Return the threshold one float32 step higher, for an importer whose neurons spike where v reaches it."""
    return np.nextafter(v_threshold.astype(np.float32), np.float32(np.inf))


def _require_zero(neuron: Any, names: tuple[str, ...], refuse: Refuse) -> None:
    for name in names:
        value = getattr(neuron, name, None)
        is_unused = name == "v_reset" and getattr(neuron, "reset", "value") != "value" and not isinstance(neuron, IF)
        if value is not None and value.any() and not is_unused:
            refuse(f"{name} is {value.reshape(-1)[0]:g}, the importer takes 0; train with 0")


def _refuse_other_start(neuron: Any, start: Any, title: str, refuse: Refuse) -> None:
    """Refuse a potential that starts elsewhere than in the framework, for which NIR has no field."""
    differs = find_start(neuron) != start
    if differs.any():
        own, theirs = (float(np.broadcast_to(value, differs.shape)[differs][0]) for value in (find_start(neuron), start))
        refuse(f"its potential starts at {own:g}, that of {title}'s neurons at {theirs:g}; let it start there")


def _require_decay(rates: Mapping[str, Array], refuse: Refuse, *, below: float = 1.0) -> None:
    """Refuse time constants of less than one step, or of one where that is too little."""
    for name, rate in rates.items():
        wrong = (rate <= 0) | (rate > below)
        if wrong.any():
            least = "1 dt or more" if below == 1 else "more than 1 dt"
            steps = 1 / float(np.ravel(rate)[np.argmax(wrong)])
            refuse(f"{PARAMETERS[name]} is {steps:g} dt, the importer takes {least}; train with a longer one")


# ----------------------------------------------------------------------------------------------- neurons of a framework


def write_snntorch(neuron: Any, dt_s: float, refuse: Refuse) -> WrittenNeuron:
    """Return a neuron for snnTorch's Leaky or Synaptic."""
    if not isinstance(neuron, (IF, LIF, CubaLIF)):
        refuse("snnTorch's importer has no readout without spikes; end the network in spiking neurons")
    _refuse_several_spikes(neuron, "snnTorch", refuse)
    _refuse_lower_bound(neuron, refuse)
    _require_zero(neuron, ("v_reset", "v_leak"), refuse)
    if (neuron.v_threshold < 0).any():
        refuse("its threshold is below 0, at which snnTorch's reset comes in every other step; train with one above 0")
    rates = _find_rates(neuron, dt_s)
    _require_decay(rates, refuse)
    _refuse_other_start(neuron, 0.0, "snnTorch", refuse)
    neuron, gain = _scale_state(neuron, _find_gain(neuron, dt_s), refuse)
    fields: dict[str, Any] = {"v_threshold": _uniform(neuron.v_threshold, "v_threshold", refuse)}
    fields |= {"v_leak": 0.0, "v_reset": 0.0}
    if isinstance(neuron, CubaLIF):
        kind = "CubaLIF"
        fields |= {"tau_mem": SHORT_DT_S / rates["tau_mem_s"], "r": 1 / rates["tau_mem_s"]}
        fields |= {"tau_syn": SHORT_DT_S / rates["tau_syn_s"], "w_in": 1 / rates["tau_syn_s"]}
    else:
        kind, rate = "LIF", rates.get("tau_s", np.asarray(1 / NEVER_DECAYS))
        fields |= {"tau": SHORT_DT_S / rate, "r": 1 / rate}
    settings: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    if neuron.reset == "none":
        settings = ('m.reset_mechanism, m.state_function = "none", m._base_int',)
    elif neuron.reset == "subtract":
        is_late = resets_late(neuron) or isinstance(neuron, IF)  # an IF loses nothing in between
        settings = (f'm.reset_mechanism, m.reset_delay, m.state_function = "subtract", {is_late}, m._base_sub',)
        if not is_late:
            differences = (
                "where the membrane stays above the threshold after a reset, snnTorch with reset_delay=False takes the next "
                "spike's threshold off before the comparison",
            )
    return WrittenNeuron(kind=kind, fields=fields, gain=gain, settings=settings, differences=differences)


def write_spikingjelly(neuron: Any, dt_s: float, refuse: Refuse) -> WrittenNeuron:
    """Return a neuron for SpikingJelly's IFNode, LIFNode or CubaLIF."""
    if not isinstance(neuron, (IF, LIF, CubaLIF)):
        refuse("SpikingJelly's importer has no readout without spikes; end the network in spiking neurons")
    _refuse_several_spikes(neuron, "SpikingJelly", refuse)
    _refuse_lower_bound(neuron, refuse)
    rates = {name: np.asarray(_uniform(rate, name, refuse)) for name, rate in _find_rates(neuron, dt_s).items()}
    gain = _find_gain(neuron, dt_s)
    decays_input = isinstance(neuron, LIF) and not np.allclose(gain, 1, rtol=EXACT, atol=0)
    if isinstance(neuron, LIF):
        _require_decay(rates, refuse, below=np.nextafter(1, 0))
        gain = neuron.r.astype(np.float64) if decays_input else gain
    elif isinstance(neuron, CubaLIF):
        _require_decay(rates, refuse)
        _require_zero(neuron, ("v_leak",), refuse)
    neuron, gain = _scale_state(neuron, gain, refuse)
    v_reset = 0.0 if neuron.reset == "subtract" else _uniform(neuron.v_reset, "v_reset", refuse)
    if isinstance(neuron, LIF) and _uniform(neuron.v_leak, "v_leak", refuse) != v_reset:
        refuse("v_leak is not v_reset, which are one in SpikingJelly; train with the same value")
    if isinstance(neuron, CubaLIF) and v_reset:
        refuse("v_reset is not 0, from which its membrane would start in SpikingJelly; train with 0")
    _refuse_other_start(neuron, v_reset, "SpikingJelly", refuse)
    fields: dict[str, Any] = {
        "v_threshold": _raise_threshold(np.asarray(_uniform(neuron.v_threshold, "v_threshold", refuse))),
        "v_reset": v_reset,
    }
    if isinstance(neuron, IF):
        fields |= {"r": 1 / SHORT_DT_S}
    elif isinstance(neuron, LIF):
        tau = 1 / rates["tau_s"]
        fields |= {"tau": tau * SHORT_DT_S, "r": 1.0 if decays_input else tau, "v_leak": v_reset}
    else:
        fields |= {"tau_mem": SHORT_DT_S / rates["tau_mem_s"], "r": 1 / rates["tau_mem_s"], "v_leak": 0.0}
        fields |= {"tau_syn": SHORT_DT_S / rates["tau_syn_s"], "w_in": 1 / rates["tau_syn_s"]}
    _refuse_other_resets(neuron, "SpikingJelly", refuse)
    settings = ("m.v_reset = None",) if neuron.reset == "subtract" else ()
    return WrittenNeuron(kind=type(neuron).__name__, fields=fields, gain=gain, settings=settings)


def write_sinabs(neuron: Any, dt_s: float, refuse: Refuse) -> WrittenNeuron:
    """Return a neuron for sinabs' IAF, LIF or ExpLeak."""
    if not isinstance(neuron, (IF, LIF, LI)):
        refuse(f"{type(neuron).__name__} has no place in sinabs' importer; use weights_into, or train LIF without tau_syn")
    _require_zero(neuron, ("v_reset", "v_leak"), refuse)
    _refuse_other_start(neuron, 0.0, "sinabs", refuse)
    _refuse_other_resets(neuron, "sinabs", refuse)
    rates = _find_rates(neuron, dt_s)
    _require_decay(rates, refuse, below=np.nextafter(1, 0))
    gain = _find_gain(neuron, dt_s)
    if isinstance(neuron, LI):
        if not np.allclose(gain, 1, rtol=EXACT, atol=0):
            refuse("its input does not count in full, as in sinabs' importer; train ExpLeak with norm_input=False")
    else:
        neuron, gain = _scale_state(neuron, gain, refuse)
    fields: dict[str, Any] = {"r": 1.0}
    if rates:
        fields |= {"tau": -1 / np.log1p(-rates["tau_s"]), "v_leak": 0.0}
    if not emits_spikes(neuron):
        return WrittenNeuron(kind="LI", fields=fields)
    fields["v_threshold"] = _raise_threshold(neuron.v_threshold)
    most = find_max_spikes(neuron)
    settings = [] if most is None else ["m.spike_fn = SingleSpike" if most == 1 else f"m.spike_fn = MaxSpike({most})"]
    if isinstance(neuron, IF):  # for which the importer takes -v_threshold
        settings += _set_lower_bound(neuron, refuse)
    if neuron.reset == "value":
        settings.append("m.reset_fn = MembraneReset()")
    v_min = getattr(neuron, "v_min", None)
    return WrittenNeuron(kind=type(neuron).__name__, fields=fields, gain=gain, v_min=v_min, settings=tuple(settings))


def write_rockpool(neuron: Any, dt_s: float, refuse: Refuse) -> WrittenNeuron:
    """Return a neuron for Rockpool's LIFTorch."""
    if not isinstance(neuron, CubaLIF):
        refuse(f"{type(neuron).__name__} has no place in Rockpool's importer, which reads LIFTorch alone; use weights_into")
    _refuse_other_resets(neuron, "Rockpool", refuse, ("subtract",))
    if neuron.reset != "subtract":
        refuse("it is set to v_reset, Rockpool's neurons subtract their threshold", ("subtract",))
    rates = _find_rates(neuron, dt_s)
    _require_decay(rates, refuse, below=np.nextafter(1, 0))
    _refuse_other_start(neuron, 0.0, "Rockpool", refuse)
    keep_syn = 1 - rates["tau_syn_s"]
    neuron, gain = _scale_state(neuron, _find_gain(neuron, dt_s) / keep_syn, refuse)
    taus = {name.removesuffix("_s"): (dt_s / -np.log1p(-rate)).astype(np.float32) for name, rate in rates.items()}
    fields = {
        **taus,
        "r": taus["tau_mem"].astype(np.float64) / dt_s - 1,
        "v_leak": rates["tau_mem_s"] * neuron.v_leak,  # which the importer takes for the bias
        "w_in": 1.0,
        "v_threshold": _raise_threshold(neuron.v_threshold),
    }
    most = find_max_spikes(neuron)
    settings = () if most is None else (f"m.max_spikes_per_dt = m.max_spikes_per_dt.new_tensor({most})",)
    return WrittenNeuron(kind="CubaLIF", fields=fields, gain=gain, settings=settings)


def write_norse(neuron: Any, dt_s: float, refuse: Refuse) -> WrittenNeuron:
    """Return a neuron for Norse's cells."""
    if not isinstance(neuron, (IF, LIF, CubaLIF)):
        refuse("Norse's importer has no readout without spikes; use weights_into, or end the network in spiking neurons")
    _refuse_several_spikes(neuron, "Norse", refuse)
    _refuse_lower_bound(neuron, refuse)
    _refuse_other_resets(neuron, "Norse", refuse, ("value",) if isinstance(neuron, IF) else ("value", "subtract"))
    _require_zero(neuron, ("v_reset", "v_leak") if isinstance(neuron, CubaLIF) else ("v_reset",), refuse)
    _refuse_other_start(neuron, neuron.v_leak if isinstance(neuron, LIF) else 0.0, "Norse", refuse)
    gain: Array = np.ones(())
    if not isinstance(neuron, CubaLIF):
        neuron, gain = _scale_state(neuron, neuron.r.astype(np.float64), refuse)
    fields: dict[str, Any] = {"v_threshold": neuron.v_threshold, "v_reset": 0.0, "r": 1.0}
    if isinstance(neuron, LIF):
        fields |= {"tau": LONG_DT_S / (dt_s / neuron.tau_s), "v_leak": neuron.v_leak}
    elif isinstance(neuron, CubaLIF):
        fields |= {"tau_mem": LONG_DT_S / (dt_s / neuron.tau_mem_s), "tau_syn": LONG_DT_S / (dt_s / neuron.tau_syn_s)}
        fields |= {"r": neuron.r, "w_in": neuron.w_in, "v_leak": 0.0}
    settings: tuple[str, ...] = ()
    if neuron.reset == "subtract":
        if isinstance(neuron, IF):
            refuse("it subtracts its threshold, Norse's IAFCell is set to 0", ("value",))
        part = "m.lif.p" if isinstance(neuron, CubaLIF) else "m.p"
        settings = (f"{part} = {part}._replace(reset_method=reset_subtract)",)
    return WrittenNeuron(kind=type(neuron).__name__, fields=fields, gain=gain, settings=settings)


def _set_lower_bound(neuron: IF, refuse: Refuse) -> list[str]:
    """Return the statement for an IF neuron's lower bound, for which sinabs' importer takes −v_threshold."""
    if neuron.v_min is None:
        return ["m.min_v_mem = None"]
    if np.allclose(neuron.v_min, -neuron.v_threshold, rtol=FLOAT32_ERROR, atol=0):
        return []
    return [f"m.min_v_mem.data.fill_({_uniform(neuron.v_min, 'v_min', refuse):.9g})"]


def _refuse_lower_bound(neuron: Neuron, refuse: Refuse) -> None:
    if getattr(neuron, "v_min", None) is not None:
        refuse("its membrane has a lower bound, which only sinabs has; train without it")


def _refuse_several_spikes(neuron: Neuron, title: str, refuse: Refuse) -> None:
    if sends_several(neuron):
        refuse(f"it sends several spikes in a step, {title}'s neurons one", one_spike=True)


def _refuse_other_resets(neuron: Neuron, title: str, refuse: Refuse, resets: Sequence[Reset] = ("value", "subtract")) -> None:
    if getattr(neuron, "reset", "value") == "none":
        refuse(f"it has no reset, {title}'s neurons reset when they spike", resets)
    if resets_late(neuron):
        others = tuple(reset for reset in resets if reset != "subtract")  # snnTorch subtracts in the step otherwise than others
        refuse(f"it subtracts its threshold one step late, {title}'s neurons in the step of the spike", others)
