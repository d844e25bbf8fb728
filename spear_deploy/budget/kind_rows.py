"""Does the chip have what a layer is made of? Weight widths, delays, neuron models, resets, kinds of layers.

Things that are there or not have a row too: `used` counts what the chip does not have, the limit is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spear_deploy.budget.geometry import unchecked_geometry
from spear_deploy.budget.rows import Row, row_of, status_of
from spear_deploy.budget.support import Unsupported, waits
from spear_deploy.graph import SNNGraph
from spear_deploy.layers import WEIGHTED, Layer, LoihiLIF, Scale
from spear_deploy.populations import Population
from spear_deploy.profile_schema import HardwareProfile
from spear_deploy.weight_widths import bias_bits, most_distinct


def kind_rows(
    graph: SNNGraph,
    profile: HardwareProfile,
    found: Sequence[Population],
    weight_bits: Mapping[str, int],
    findings: Sequence[Unsupported],
) -> Iterator[Row]:
    """Yield the rows of formats and kinds, layer by layer."""
    by_name = {population.name: population for population in found}
    for layer in graph.layers:
        missing = {f.resource: [g for g in findings if (g.layer, g.resource) == (layer.name, f.resource)] for f in findings}
        if layer.name in by_name:
            yield from _format_rows(by_name[layer.name], profile, weight_bits)
        yield from _palette(graph, layer, profile)
        yield from _neuron_rows(layer, profile, missing)
        if layer.synapse is not None or missing.get("layer_kind"):
            yield _kind_row(layer, profile, missing.get("layer_kind", []))
        for resource in ("recurrent", "weight_sign"):
            if missing.get(resource):
                yield _thing(resource, layer.name, missing[resource], known=True)


# ------------------------------------------------------------------------------------------------------------ inside


def _format_rows(population: Population, profile: HardwareProfile, bits: Mapping[str, int]) -> Iterator[Row]:
    """Yield rows for weight widths and delays, where there are any."""
    driven = population.is_input_layer and profile.meta.family == "loihi"
    widths = [] if driven else [bits[p.layer] for p in population.projections if p.layer in bits]
    if widths:
        most = max(profile.weights.bits.value or (0,))
        status = status_of(max(widths), most, capacity=False)
        remedy = f"quantise to {most} bits" if status == "over" else ""
        yield Row(
            resource="weight_bits", where=population.name, used=max(widths), limit=most, unit="bit", status=status, remedy=remedy
        )
    wait = max(waits(population, profile).values(), default=0)
    if wait > 0 and profile.weights.delay_max_steps.value != "unlimited":
        limit, free = profile.weights.delay_max_steps.most, profile.weights.delay_free_steps.most
        status, remedy = status_of(wait, limit, capacity=False), ""
        if status == "ok" and free is not None and wait > free:
            status = "unchecked"
            remedy = f"delays above {free} steps leave fewer neurons on a core; how many is not published"
        elif status == "over":
            remedy = f"let a layer that passes spikes on lie in between, one for each {wait - (limit or 0)} steps too many"
        yield Row(resource="delay", where=population.name, used=wait, limit=limit, unit="step", status=status, remedy=remedy)


def _palette(graph: SNNGraph, layer: Layer, profile: HardwareProfile) -> list[Row]:
    leaf = profile.connectivity.weight_palette
    if not isinstance(layer.synapse, WEIGHTED) or isinstance(layer.synapse, Scale) or leaf.value == "unlimited":
        return []
    if leaf.most is None:
        return row_of("weight_palette", layer.name, None, leaf)
    level = f"quantise each neuron's weights to {leaf.most} values"
    if not graph.is_integer:
        return row_of("weight_palette", layer.name, None, leaf, remedy=f"weights are not quantised yet; {level}")
    used = most_distinct(layer.synapse.weight)
    return row_of("weight_palette", layer.name, used, leaf, capacity=False, remedy=level if used > leaf.most else "")


def _neuron_rows(layer: Layer, profile: HardwareProfile, missing: Mapping[str, Sequence[Unsupported]]) -> Iterator[Row]:
    if layer.neuron is None:
        return
    models, resets = profile.neuron.models.value, profile.neuron.resets.value
    yield _thing("neuron_model", layer.name, missing.get("neuron_model", ()), known=models is not None, what=_model(layer))
    if layer.spikes and hasattr(layer.neuron, "reset"):
        yield _thing("reset", layer.name, missing.get("reset", ()), known=resets is not None, what=layer.neuron.reset)
    rest = layer.neuron.refractory_steps if isinstance(layer.neuron, LoihiLIF) else 0
    if rest and profile.neuron.refractory_max_steps.value != "unlimited":
        limit = profile.neuron.refractory_max_steps.most
        status = status_of(rest, limit, capacity=False)
        remedy = f"train with a rest of at most {limit} steps" if status == "over" else ""
        yield Row(resource="refractory", where=layer.name, used=rest, limit=limit, unit="step", status=status, remedy=remedy)
    bits = profile.neuron.bias_bits
    if isinstance(layer.neuron, LoihiLIF) and layer.neuron.bias.any() and bits.value != "unlimited":
        used = bias_bits(layer.neuron.bias)
        remedy = f"round the bias to {bits.most} bits" if bits.most is not None and used > bits.most else ""
        yield from row_of("bias_bits", layer.name, used, bits, capacity=False, remedy=remedy)


def _model(layer: Layer) -> str:
    return type(layer.neuron).__name__


def _kind_row(layer: Layer, profile: HardwareProfile, missing: Sequence[Unsupported]) -> Row:
    unsaid = unchecked_geometry(layer, profile)
    if unsaid and not missing:
        detail = f"{' and '.join(unsaid)}: {profile.name} publishes no limit"
        return Row(resource="layer_kind", where=layer.name, used=None, limit=0, unit="thing", status="unchecked", detail=detail)
    known = profile.layers.kinds.value is not None
    return _thing("layer_kind", layer.name, missing, known=known, what=type(layer.synapse).__name__)


def _thing(resource: str, where: str, missing: Sequence[Unsupported], *, known: bool, what: Any = "") -> Row:
    """Return the row of something that the chip has or has not."""
    detail = "; ".join(f"{f.what}: {f.why}" for f in missing) or str(what)
    used = len(missing) if known or missing else None
    status = status_of(used, 0, capacity=False)
    remedy = "; ".join(_cure(f) for f in missing)
    return Row(resource=resource, where=where, used=used, limit=0, unit="thing", status=status, remedy=remedy, detail=detail)


def _cure(finding: Unsupported) -> str:
    """Return what to do: what the finding's reason ends in."""
    return finding.why.rsplit("; ", 1)[-1]
