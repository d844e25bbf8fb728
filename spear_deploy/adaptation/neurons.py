"""Replaced neuron models, time constants, resets and readouts.

LIF → CubaLIF        exact where the synaptic current may last one step: u is the input of the step; else learnt
CubaLIF → LIF        exact where its synaptic current lasts one step; else learnt
IF → LIF, CubaLIF    bounded: with the longest time constant v keeps 1 − dt_s / tau of itself a step
LIF, CubaLIF → IF    learnt: r becomes what an input adds to v in all
LI, CubaLI           as LIF, CubaLIF; else learnt: the spikes of output neurons are counted, of several a class if they fit
reset                learnt: value ↔ subtraction, one step late → in the step of the spike
time constants       learnt: the nearest that the chip has
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.adaptation.outputs import COPIES, ONE, SEVERAL, can_copy, copy_outputs
from spear_deploy.adaptation.replacement import Kind, Replacement
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import IF, LI, LIF, Array, CubaLI, CubaLIF, Layer, Reset, resets_late
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.neurons import SAME_TAU, TIME_CONSTANT_WORDS, lasts_one_step, needs_no_current

MAX_TAU_STEPS = 2**12
"""Longest time constant where the profile names none: decays have 12 bits on most chips that publish them."""
UNLIMITED = 1e9
"""Steps from which a time constant is that of a decay of 1, as importers write it."""
MODELS: tuple[type, ...] = (IF, LIF, CubaLIF, LI, CubaLI)
INSTEAD: dict[type, tuple[type, ...]] = {
    IF: (LIF, CubaLIF),
    LIF: (CubaLIF, IF),
    CubaLIF: (LIF, IF),
    LI: (CubaLI, LIF, CubaLIF, IF),
    CubaLI: (LI, CubaLIF, LIF, IF),
}
"""By model, those that may stand in, the closest first."""
SPIKING = (IF, LIF, CubaLIF)
TIME_CONSTANTS = ("tau_s", "tau_mem_s", "tau_syn_s")
SPIKE_FIELDS = ("v_threshold", "v_reset", "reset", "reset_delay", "max_spikes", "v_init")
"""What a neuron keeps in another model: when it spikes, what a spike does, and where it starts."""

INSTEAD_OF_RESET: dict[Reset, tuple[Reset, ...]] = {
    "value": ("subtract",),
    "subtract": ("value",),
    "none": ("subtract", "value"),
}
"""What stands in for a reset, the nearest first."""
RESET_NAMES: dict[Reset, str] = {"value": "reset by value", "subtract": "reset by subtraction", "none": "no reset"}

Change: TypeAlias = Callable[[Any], Any]


def find_models(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield a replacement for each neuron model that the chip lacks, where it has one that may stand in."""
    allowed = profile.neuron.models.value
    for model in MODELS:
        layers = [layer for layer in graph.layers if type(layer.neuron) is model]
        if allowed is None or not layers or model.__name__ in allowed:
            continue
        other = _choose_model(graph, model, allowed)
        if other is None:
            continue
        exchange = _exchange(graph, layers, other, profile)
        if exchange.topic == "readout" and graph.output in exchange.layers:
            yield from offer_counts(exchange, graph, profile)
        else:
            yield exchange


def offer_counts(offer: Replacement, graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield a readout by counted spikes with several output neurons a class, where the chip has room, and with one.

    Args:
        offer: that with one.
        graph: the network before it.
        profile: the chip.
    """
    if can_copy(graph, profile):
        by = offer.by.replace("output neurons", "output neurons a class")
        by = by.replace("spikes of ", f"spikes of {COPIES} ")
        yield replace(offer, by=by, rewrite=partial(_copy_after, rewrite=offer.rewrite), option=SEVERAL)
        offer = replace(offer, option=ONE)
    yield offer


def find_time_constants(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the layers with a time constant that the chip cannot hold, and the nearest that it can."""
    for layer in graph.layers:
        for name in TIME_CONSTANTS:
            old = getattr(layer.neuron, name, None)
            if old is None or np.allclose(new := _nearest_tau(layer, name, graph.dt_s, profile), old, rtol=SAME_TAU, atol=0):
                continue
            before, after = _write_change(old, new, graph.dt_s)
            yield Replacement(
                layers=(layer.name,),
                what=f"{TIME_CONSTANT_WORDS[name]} of {before}",
                by=after,
                kind="learnt",
                topic="time_constant",
                rewrite=partial(_set_neuron, names=(layer.name,), change=partial(_set_parameter, name=name, value=new)),
            )


def find_resets(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the layers whose reset the chip lacks, by what they do instead."""
    resets = profile.neuron.resets.value
    if resets is None:
        return
    spiking = [layer for layer in graph.layers if isinstance(layer.neuron, SPIKING)]
    for reset, others in INSTEAD_OF_RESET.items():
        names = tuple(layer.name for layer in spiking if layer.neuron.reset == reset)  # type: ignore[union-attr]
        other = next((other for other in others if other in resets), None)
        if names and reset not in resets and other is not None:
            what, by = RESET_NAMES[reset], RESET_NAMES[other]
            change = partial(change_reset, reset=other)
            rewrite = partial(_set_neuron, names=names, change=change)
            yield Replacement(layers=names, what=what, by=by, kind="learnt", topic="reset", rewrite=rewrite)
    late = tuple(layer.name for layer in spiking if resets_late(layer.neuron))
    if late and profile.neuron.late_reset.value is False and "subtract" in resets:
        change = partial(change_reset, reset="subtract")
        yield Replacement(
            layers=late, what="a reset one step late", by="a reset in the step of the spike", kind="learnt", topic="reset",
            rewrite=partial(_set_neuron, names=late, change=change),
        )  # fmt: skip


def find_several_spikes(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the layers that may send more spikes in a step than the chip, which send as many as it."""
    limit = profile.neuron.max_spikes_per_step.max_value
    if limit is None:
        return
    names = tuple(
        layer.name
        for layer in graph.layers
        if isinstance(layer.neuron, SPIKING) and (layer.neuron.max_spikes is None or layer.neuron.max_spikes > limit)
    )
    if names:
        by = "one spike in a step" if limit == 1 else f"up to {limit:g} spikes in a step"
        change = partial(_set_parameter, name="max_spikes", value=int(limit))
        yield Replacement(
            layers=names, what="several spikes in a step", by=by, kind="learnt", topic="neuron",
            rewrite=partial(_set_neuron, names=names, change=change),
        )  # fmt: skip


def find_floors(graph: SNNGraph, profile: HardwareProfile) -> Iterator[Replacement]:
    """Yield the integrators whose potential may fall below the reset, where that of the chip stops there."""
    if not profile.neuron.stops_at_reset.value:
        return
    names = tuple(layer.name for layer in graph.layers if isinstance(layer.neuron, IF) and layer.neuron.v_min is None)
    if names:
        yield Replacement(
            layers=names, what="a potential below the reset", by="a potential that stops at the reset", kind="learnt",
            topic="reset", option="floor", rewrite=partial(_set_neuron, names=names, change=_stop_at_reset),
        )  # fmt: skip


def _stop_at_reset(neuron: IF) -> IF:
    return replace(neuron, v_min=np.asarray(neuron.v_reset if neuron.reset == "value" else np.minimum(neuron.v_reset, 0.0)))


# ------------------------------------------------------------------------------------------------------------ models


def _choose_model(graph: SNNGraph, model: type, allowed: tuple[str, ...]) -> type | None:
    """Return the model that stands in: for a readout that has to spike the one that the hidden layers have, if any."""
    candidates = [other for other in INSTEAD[model] if other.__name__ in allowed]
    if model in (LI, CubaLI) and candidates and candidates[0] in SPIKING:
        hidden = [type(layer.neuron) for layer in graph.layers if isinstance(layer.neuron, SPIKING)]
        candidates = [*[other for other in hidden if other in candidates], *candidates]
    return candidates[0] if candidates else None


def _exchange(graph: SNNGraph, layers: list[Layer], other: type, profile: HardwareProfile) -> Replacement:
    model = type(layers[0].neuron)
    dt_s, names = graph.dt_s, tuple(layer.name for layer in layers)
    kind = _kind_of(model, other, layers, dt_s, profile)
    becomes_spiking = model in (LI, CubaLI) and other in SPIKING
    by, bound = other.__name__, ""
    if becomes_spiking:
        by = f"spikes of {by} output neurons, counted"
    elif other is IF and _may_subtract(profile):
        by = "IF that resets by subtraction"
    if kind == "bounded":
        steps = longest_tau_steps(profile)
        by, bound = f"{by} with a time constant of {steps:g} steps", f"v loses at most 1/{steps:g} of itself a step"
    return Replacement(
        layers=names,
        what=model.__name__,
        by=by,
        kind=kind,
        bound=bound,
        topic="readout" if becomes_spiking else "neuron",
        rewrite=partial(_set_neuron, names=names, change=partial(convert_neuron, model=other, dt_s=dt_s, profile=profile)),
    )


def _copy_after(graph: SNNGraph, *, rewrite: Callable[[SNNGraph], SNNGraph]) -> SNNGraph:
    return copy_outputs(rewrite(graph))


def _kind_of(model: type, other: type, layers: list[Layer], dt_s: float, profile: HardwareProfile) -> Kind:
    one_step = shortest_current_steps(profile) == 1
    if (model, other) in ((LIF, CubaLIF), (LI, CubaLI)):
        return "exact" if one_step else "learnt"
    if (model, other) in ((CubaLIF, LIF), (CubaLI, LI)):
        one_step = all(lasts_one_step(layer.neuron.tau_syn_s, dt_s).all() for layer in layers)  # type: ignore[union-attr]
        return "exact" if one_step else "learnt"
    if model is IF:
        return "bounded" if other is LIF or one_step else "learnt"
    return "learnt"


def convert_neuron(neuron: Any, *, model: type, dt_s: float, profile: HardwareProfile) -> Any:
    """Return a neuron of another model whose potential is driven alike.

    An input of 1 adds to v, in all its steps, as much as before; where both leak, they leak alike. A readout that starts to spike
    gets the threshold 1.

    Args:
        neuron: IF, LIF, CubaLIF, LI or CubaLI.
        model: one of these.
        dt_s: the time step.
        profile: names the shortest synaptic current and the longest time constant.
    """
    r, v_leak = neuron.r, np.asarray(getattr(neuron, "v_leak", 0.0))
    reset: Reset = getattr(neuron, "reset", "value")
    spiking = {name: getattr(neuron, name) for name in SPIKE_FIELDS if hasattr(neuron, name)}
    if isinstance(neuron, (LI, CubaLI)) and model in SPIKING:
        spiking = {"v_threshold": np.asarray(1.0), "reset": "subtract" if _may_subtract(profile) else "value"}
    gain = r * neuron.w_in if hasattr(neuron, "w_in") else r
    if isinstance(neuron, IF):
        steps = longest_tau_steps(profile)
        tau_s, gain, v_leak = np.asarray(steps * dt_s), gain * steps, neuron.v_reset
    else:
        tau_s = neuron.tau_mem_s if hasattr(neuron, "tau_mem_s") else neuron.tau_s
    if model is IF:
        return _integrate(gain * (dt_s / tau_s), spiking, reset, profile)
    if model in (LIF, LI):
        return model(tau_s=tau_s, r=gain, v_leak=v_leak, **spiking)
    tau_syn_s = np.asarray(shortest_current_steps(profile) * dt_s)
    return model(tau_mem_s=tau_s, tau_syn_s=tau_syn_s, r=gain, w_in=np.asarray(1.0), v_leak=v_leak, **spiking)


def _integrate(r: Array, spiking: dict[str, Any], reset: Reset, profile: HardwareProfile) -> IF:
    """Return an IF neuron; it subtracts where the chip does, since what lies above the threshold would be lost otherwise."""
    for name in ("reset_delay", "v_init"):
        spiking.pop(name, None)
    neuron = IF(**{**spiking, "reset": spiking.get("reset", reset)}, r=r)
    return change_reset(neuron, "subtract") if _may_subtract(profile) and neuron.reset == "value" else neuron


def _may_subtract(profile: HardwareProfile) -> bool:
    return "subtract" in (profile.neuron.resets.value or ())


# --------------------------------------------------------------------------------------------------- resets and times


def change_reset(neuron: Any, reset: Reset) -> Any:
    """Return a neuron with another reset, in the step of the spike; potentials are measured from v_reset before it subtracts.

    >>> change_reset(LIF(tau_s=0.01, v_threshold=2.0, v_reset=1.0), "subtract").v_threshold
    array(1.)
    """
    changes: dict[str, Any] = {"reset": reset}
    if reset == "subtract" and neuron.reset == "value":
        changes |= {"v_threshold": neuron.v_threshold - neuron.v_reset, "v_reset": np.zeros(())}
        if hasattr(neuron, "v_leak"):
            changes["v_leak"] = neuron.v_leak - neuron.v_reset
        if getattr(neuron, "v_init", None) is not None:
            changes["v_init"] = neuron.v_init - neuron.v_reset
    if getattr(neuron, "reset_delay", 0):
        changes["reset_delay"] = 0
    return replace(neuron, **changes)


def shortest_current_steps(profile: HardwareProfile) -> float:
    """Return the shortest time constant of a synaptic current in steps: 1 where the profile names no limit."""
    above = profile.neuron.tau_above_steps.value
    if above is None or above < 1:
        return 1.0
    return float(2 ** np.floor(np.log2(above) + 1)) if profile.neuron.tau_powers_of_two.value else float(above) + 1


def longest_tau_steps(profile: HardwareProfile) -> float:
    """Return the longest time constant in steps."""
    longest = profile.neuron.tau_max_steps.max_value
    return float(MAX_TAU_STEPS if longest is None else longest)


def round_tau(tau_s: Array, dt_s: float, profile: HardwareProfile) -> Array:
    """Return the nearest time constants that the chip holds; the nearest power of two by its exponent."""
    steps = np.asarray(tau_s, np.float64) / dt_s
    if profile.neuron.tau_powers_of_two.value:
        steps = 2.0 ** np.rint(np.log2(np.maximum(steps, 2.0**-8)))
    above, longest = profile.neuron.tau_above_steps.value, profile.neuron.tau_max_steps.max_value
    if above is not None:
        steps = np.where(steps <= above * (1 + SAME_TAU), shortest_current_steps(profile), steps)
    if longest is not None:
        steps = np.minimum(steps, longest)
    unchanged = np.isclose(steps * dt_s, tau_s, rtol=SAME_TAU, atol=0)
    return np.where(unchanged, tau_s, steps * dt_s)


def _nearest_tau(layer: Layer, name: str, dt_s: float, profile: HardwareProfile) -> Array:
    """Return the time constants of a layer that the chip holds: those of a membrane that spikes may have a shortest one."""
    old, shortest = getattr(layer.neuron, name), profile.neuron.tau_spiking_min_steps.value
    new = round_tau(old, dt_s, profile)
    if name == "tau_syn_s" and layer.neuron is not None:
        new = np.where(needs_no_current(layer.neuron, dt_s, profile.neuron.models.value), old, new)
    return new if shortest is None or not layer.spikes or name == "tau_syn_s" else np.maximum(new, shortest * dt_s)


def _write_change(old: Array, new: Array, dt_s: float) -> tuple[str, str]:
    """Return time constants in steps before and after, with as many digits as tell them apart."""
    pairs = [(_write_steps(old, dt_s, digits), _write_steps(new, dt_s, digits)) for digits in (4, 7)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])


def _write_steps(tau_s: Array, dt_s: float, digits: int) -> str:
    """Return time constants in steps: the smallest and the largest, once where both read the same.

    >>> _write_steps(np.array([0.004, 1e9]), 0.001, 4)  # a decay that rounds to 1
    '4 to unlimited steps'
    """
    steps = np.asarray(tau_s) / dt_s

    def write(end: float) -> str:
        return "unlimited" if end >= UNLIMITED else f"{end:,.0f}" if end >= 10**digits else f"{end:.{digits}g}"

    ends = dict.fromkeys((write(steps.min()), write(steps.max())))
    return f"{' to '.join(ends)} {'step' if list(ends) == ['1'] else 'steps'}"


def _set_parameter(neuron: Any, *, name: str, value: Array | int) -> Any:
    return replace(neuron, **{name: value})


def _set_neuron(graph: SNNGraph, *, names: tuple[str, ...], change: Change) -> SNNGraph:
    """Return the network with a change of the neurons of some layers."""
    return graph.with_layers(lambda layer: replace(layer, neuron=change(layer.neuron)) if layer.name in names else layer)
