"""Quantization of a floating-point network for a chip family.

Each family is a module with its equations (`loihi`, `speck`, `xylo`) or a row of one (`chips`, `rounded_weights`). All start from
the same network: batch norm folded, one weighted layer on each way into a neuron layer (`fold`), and the floating-point weights
of each neuron layer (`weighted_inputs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from spear_deploy.errors import DataError, QuantizationError, Refusal, UnsupportedError, did_you_mean
from spear_deploy.frameworks.reset_words import name_resets
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import Array
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.equal_values import collapse_equal_values
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.network.layer_bits import read_layer_bits, state_layer_bits
from spear_deploy.quantize import akida, chips, loihi, rounded_weights, speck, xylo
from spear_deploy.quantize.even_neurons import even_neurons
from spear_deploy.quantize.fold import add_missing_weights, fold_batchnorm
from spear_deploy.quantize.fuse_pools import fuse_pools
from spear_deploy.quantize.layer_error import FloatRun, run_float_network
from spear_deploy.quantize.rounding import find_learnt_scales, stands_for
from spear_deploy.quantize.weighted_inputs import LoweringSettings, collect_neuron_inputs
from spear_deploy.simulator import InputKind, check_input, simulate
from spear_deploy.util.number_format import plural

__all__ = ["FORMATS", "Format", "quantize", "quantize_input"]

Format: TypeAlias = Literal[
    "loihi", "speck", "xylo", "truenorth", "spinnaker", "reckon", "odin", "spinnaker2", "brainscales", "akida",
    "catalyst",
]  # fmt: skip
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a chip family takes a network.

    Attributes:
        lower: returns the integers: (graph, settings, float_run=...).
        weight_bits: smallest and largest width of a stored weight.
        input_levels: number of events, or value of a graded spike, that stands for the largest value of a current; 1 where inputs
            spike or do not, so that a current cannot be sent.
    """

    lower: Callable[..., SNNGraph]
    weight_bits: tuple[int, int]
    input_levels: int


FAMILIES: dict[str, Family] = {
    "loihi": Family(lower=loihi.lower, weight_bits=(2, 8), input_levels=loihi.MAX_GRADED),
    "speck": Family(lower=speck.lower, weight_bits=(2, 8), input_levels=speck.INPUT_LEVELS),
    "xylo": Family(lower=xylo.lower, weight_bits=(2, 8), input_levels=15),
    "truenorth": Family(lower=partial(chips.lower, family="truenorth"), weight_bits=(2, 9), input_levels=1),
    "spinnaker": Family(lower=partial(chips.lower, family="spinnaker"), weight_bits=(16, 16), input_levels=speck.INPUT_LEVELS),
    "reckon": Family(lower=partial(chips.lower, family="reckon"), weight_bits=(2, 8), input_levels=1),
    "odin": Family(lower=partial(chips.lower, family="odin"), weight_bits=(1, 3), input_levels=speck.INPUT_LEVELS),
    "spinnaker2": Family(lower=partial(rounded_weights.lower, family="spinnaker2"), weight_bits=(2, 8), input_levels=1),
    "brainscales": Family(lower=partial(rounded_weights.lower, family="brainscales"), weight_bits=(2, 6), input_levels=1),
    "catalyst": Family(lower=partial(chips.lower, family="catalyst"), weight_bits=(16, 16), input_levels=speck.INPUT_LEVELS),
    akida.FORMAT: Family(lower=akida.lower, weight_bits=(2, 4), input_levels=akida.MAX_INPUT),
}
"""How each family takes a network."""
NETWORK = "network"
"""Where a refusal is that no single layer causes."""
BY_LAYER = ("loihi", akida.FORMAT)
"""Formats whose layers may have weights of different widths."""
RESETS: dict[str, tuple[str, ...]] = {
    **{family: rule.neuron.FORMAT.resets for family, rule in chips.RULES.items()},
    "xylo": ("subtract",),
    "brainscales": ("value",),
}
"""What a spike does to the potential, by family; those of the others reset to a value or subtract the threshold."""
MIN_SCALE_SHARE = 2**-6
"""Share of the first scale of a layer down to which it is halved while its state overflows."""


def list_layer_widths(profile: HardwareProfile) -> tuple[int, ...]:
    """Return the widths that the weights of a layer may have on a chip, up to its default; none where all layers are alike.

    >>> from spear_deploy.hardware.profile import load_profile
    >>> list_layer_widths(load_profile("loihi1")), list_layer_widths(load_profile("akd1000"))
    ((2, 3, 4, 5, 6, 8), (2, 4))
    >>> list_layer_widths(load_profile("speck2f"))
    ()
    """
    default, family = profile.weights.default_bits.value, FAMILIES.get(profile.meta.family)
    if not profile.weights.bits_by_layer.value or default is None or family is None:
        return ()
    low, high = family.weight_bits
    return tuple(sorted(bits for bits in profile.weight_bits if low <= bits <= min(high, default)))


def quantize(
    graph: SNNGraph,
    *,
    format: Format = "loihi",
    weight_bits: int | None = None,
    calibration: Array | None = None,
    kind: InputKind = "spikes",
    headroom: Mapping[str, float] | None = None,
    max_spikes: int = 31,
    input_events: int = 15,
    layer_bits: Mapping[str, int] | None = None,
) -> SNNGraph:
    """Return the integer network for a family of chips.

    Args:
        graph: a floating-point network; batch norm is folded. One that is quantised to the format is returned as it is.
        format: the family.
        weight_bits: bits of a stored weight; the most that the format holds unless given (2..8; 2..9 TrueNorth, 16 SpiNNaker
            and Catalyst N1, 1..3 and a sign by source ODIN, 2..4 Akida).
        calibration: input (T, B, *input). The scale of each layer is the one whose spikes differ least from the floating-point
            network's on it; on Loihi that of a layer whose 24-bit state overflows is halved until none does.
        kind: of `calibration` and of the input the network will get; a "current" is sent as graded spikes or as a number of
            events, `round(metadata["input_scale"] · x)`, see `quantize_input`.
        headroom: by layer, a factor in 0..1 on the scale that the format would allow.
        max_spikes, input_events: what a hidden neuron sends, and an input channel takes, in a step; on Xylo.
        layer_bits: bits of a stored weight by layer, where they are fewer than `weight_bits`; on Loihi and Akida. Unless given
            those that the network states (`network.layer_bits`), brought into the format.

    `metadata["quantization"]` has the format, the scale and offset of each layer (a floating-point potential is
    v / (unit · scale) + offset; offsets that differ between neurons are a list), and for Speck and Xylo what changed by rounding
    as `findings`.

    Raises:
        UnsupportedError: what has no integer counterpart, by layer; a network that is quantised to another format.
        QuantizationError: a value or a width outside its format, by layer.
        DataError: a calibration that the network, or the chip, does not take.
    """
    family = _require_format(format)
    weight_bits = _require_width(family, weight_bits)
    graph = graph if layer_bits is None else state_layer_bits(graph, layer_bits)
    layer_bits = _choose_layer_bits(graph, format, weight_bits, layer_bits)
    if is_quantized(graph, format):
        return graph
    graph = collapse_equal_values(graph)
    _refuse_missing_parts(graph, format, kind)
    calibration = None if calibration is None else check_input(graph, calibration, kind)
    settings = LoweringSettings(
        weight_bits=weight_bits,
        kind=kind,
        input_scale=choose_input_scale(calibration, kind, input_events if format == "xylo" else family.input_levels),
        headroom=dict(headroom or {}),
        max_spikes=max_spikes,
        input_events=input_events,
        layer_bits=layer_bits,
    )
    return _lower_graph(graph, settings, format, calibration)


def is_quantized(graph: SNNGraph, format: str, chip: str = "") -> bool:
    """Return whether a network is quantised to a format.

    Args:
        graph: the network.
        format: the format.
        chip: for the message, the chip that takes it; the format unless given.

    Raises:
        UnsupportedError: it is quantised to another one.
    """
    held = find_chip_format(graph)
    if held is not None and held != format:
        raise UnsupportedError(
            Refusal(
                place=NETWORK,
                what=f"quantised for {held}",
                why=f"numbers of {chip or format} differ",
                remedy="give the floating-point network that it was made of",
            )
        )
    return held is not None


def _require_format(format: str) -> Family:
    if format not in FORMATS:
        raise QuantizationError(f"format '{format}': expected one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    return FAMILIES[format]


def _require_width(family: Family, weight_bits: int | None) -> int:
    """Return the bits of a weight: the most that the family holds unless given."""
    low, high = family.weight_bits
    weight_bits = high if weight_bits is None else weight_bits
    if not low <= weight_bits <= high:
        raise QuantizationError(f"weight_bits: {weight_bits} given, the format holds {low}..{high}")
    return weight_bits


def _refuse_missing_parts(graph: SNNGraph, format: Format, kind: InputKind) -> None:
    """Refuse a current where spikes carry no value, and neurons without a reset where the family's have one."""
    if kind == "current" and FAMILIES[format].input_levels == 1:
        raise DataError(
            Refusal(
                layer=INPUT,
                place=INPUT,
                what="a current is sent as spikes that carry a value or come several a step",
                why=f"those of {format} do neither",
                remedy="code it as spikes (`spear_deploy.data.rate_code`)",
            )
        )
    resets = RESETS.get(format, ("value", "subtract"))
    for layer in graph.layers:
        if "none" not in resets and getattr(layer.neuron, "reset", "value") == "none":
            raise UnsupportedError(
                Refusal(
                    layer=layer.name,
                    what="has no reset after a spike",
                    why=f"neurons of the format {format} have one",
                    remedy=f"train with {name_resets(graph, resets)}",
                )
            )


def _lower_graph(graph: SNNGraph, settings: LoweringSettings, format: Format, calibration: Array | None) -> SNNGraph:
    """Return the integers of a network: those that it learnt with, else those on data, else those of its weights alone."""
    written = add_missing_weights(even_neurons(fold_batchnorm(graph), format))
    with _name_own_layers(graph, written):
        prepared = _prepare(written, format)
        learnt = _lower_as_learnt(graph, prepared, settings, format)
        if learnt is not None:
            return learnt
        integer = FAMILIES[format].lower(prepared, settings)
        return integer if calibration is None else _lower_on_data(prepared, integer, settings, calibration)


def _prepare(written: SNNGraph, format: Format) -> SNNGraph:
    """Return the network from which a family starts, see the module."""
    if format == "spinnaker":
        return fuse_pools(written)
    return xylo.convert_to_dense(written) if format == "xylo" else written


@contextmanager
def _name_own_layers(graph: SNNGraph, written: SNNGraph) -> Iterator[None]:
    """Let a refusal of a layer that integers add, as weights of 1, name the layer of the network that it leads to."""
    try:
        yield
    except (UnsupportedError, QuantizationError) as error:
        parts, own = error.refusal, {layer.name for layer in graph.layers}
        added = {layer.name for layer in written.layers} - own
        if parts is None or parts.layer not in added:
            raise
        name = parts.layer
        for _ in added:
            name = next((edge.target for edge in written.edges_from(name)), name) if name in added else name
        if name in added:
            raise
        place = parts.place.replace(f"'{parts.layer}'", f"'{name}'")
        raise type(error)(replace(parts, layer=name, place=place)) from None


def _lower_as_learnt(graph: SNNGraph, prepared: SNNGraph, settings: LoweringSettings, format: Format) -> SNNGraph | None:
    """Return the integers that a network learnt with; None where it learnt with none, or was changed since."""
    learnt = find_learnt_scales(graph, format, settings.weight_bits, settings.layer_bits)
    if not learnt:
        return None
    integer = FAMILIES[format].lower(prepared, replace(settings, learnt_scales=learnt))
    return integer if stands_for(graph, integer) else None


def _lower_on_data(prepared: SNNGraph, integer: SNNGraph, settings: LoweringSettings, calibration: Array) -> SNNGraph:
    """Return the integers whose scales are chosen on data.

    Args:
        prepared: the floating-point network.
        integer: its integers without data, which take the same input.
        settings: of both.
        calibration: the data.
    """
    sent = quantize_input(integer, calibration, settings.kind)
    float_run = run_float_network(prepared, calibration, sent=sent, kind=settings.kind)
    format = integer.metadata["quantization"]["format"]
    if format == "loihi":
        return _lower_without_overflow(prepared, settings, float_run=float_run, sent=sent)
    return FAMILIES[format].lower(prepared, settings, float_run=float_run)


def _choose_layer_bits(graph: SNNGraph, format: Format, weight_bits: int, layer_bits: Mapping[str, int] | None) -> dict[str, int]:
    """Return the bits by layer that are fewer than those of the others: the named ones, else those that the network states."""
    low, stated = FAMILIES[format].weight_bits[0], read_layer_bits(graph)
    if layer_bits is None:
        known = stated if format in BY_LAYER else {}
        return {name: max(bits, low) for name, bits in known.items() if max(bits, low) < weight_bits}
    if layer_bits and format not in BY_LAYER:
        raise QuantizationError(
            f"layer_bits: all layers of the format {format} have weights of one width, those of {' and '.join(BY_LAYER)} may "
            "differ; leave layer_bits out"
        )
    for name, bits in layer_bits.items():
        if not low <= bits <= weight_bits:
            raise QuantizationError(
                Refusal(
                    layer=name, what=f"weights of {bits} bits", why=f"expected {low}..{weight_bits}", remedy="correct layer_bits"
                )
            )
    return {name: bits for name, bits in layer_bits.items() if bits < weight_bits}


def _lower_without_overflow(graph: SNNGraph, settings: LoweringSettings, *, float_run: FloatRun, sent: Array) -> SNNGraph:
    """Return Loihi's integers; the scale of a layer whose state overflows on the calibration is halved until none does.

    Raises:
        QuantizationError: a state overflows at every scale; names the layer.
    """
    integer = loihi.lower(graph, settings, float_run=float_run)
    first_scales = integer.metadata["quantization"]["scale"]
    max_scales: dict[str, float] = {}
    while overflows := simulate(integer, sent, kind=settings.kind).overflows:
        for name in overflows:
            max_scales[name] = integer.metadata["quantization"]["scale"][name] / 2
            if max_scales[name] < first_scales[name] * MIN_SCALE_SHARE:
                raise QuantizationError(_refuse_overflow(graph, name, settings, scale=2 * max_scales[name], steps=len(sent)))
        integer = loihi.lower(graph, settings, max_scales=max_scales, float_run=float_run)
    return integer


def _refuse_overflow(graph: SNNGraph, name: str, settings: LoweringSettings, *, scale: float, steps: int) -> Refusal:
    """Return why a layer's state overflows down to a scale, and what to do."""
    layers = collect_neuron_inputs(graph, settings.kind, settings.input_scale)
    driving = [synapse for layer in layers if layer.name == name for synapse in layer.stored.values()]
    weight = max(float(np.abs(synapse.weight).max()) for synapse in driving)
    bias = max((float(np.abs(synapse.bias).max()) for synapse in driving if synapse.bias is not None), default=0.0)
    biased = f" and a bias of up to {bias:g}" if bias else ""
    return Refusal(
        layer=name,
        what=f"its 24-bit state overflows at every scale tried, down to {scale:.3g}",
        why=f"weights of up to {weight:g}{biased} add up over {plural(steps, 'step')}",
        remedy="lower them, let its neurons leak faster, or run fewer steps",
    )


# --------------------------------------------------------------------------------------------------------------- input


def choose_input_scale(calibration: Array | None, kind: InputKind, levels: int) -> float:
    """Return the factor on a current under which the largest value of the calibration is sent as `levels`; 1 for spikes."""
    if kind == "spikes":
        return 1.0
    largest = 1.0 if calibration is None else float(np.abs(calibration).max())
    return levels / largest if largest else 1.0


def quantize_input(graph: SNNGraph, x: Array, kind: InputKind = "spikes") -> Array:
    """Return an input in the form that an integer network takes: spikes as they are, a current as graded spikes or events.

    A chip of the Loihi family takes graded spikes of 8 bits. All others take events without size or sign: a value is sent as
    that many events in one step. A network that rounds its input in its first layer (netx) takes the current itself.

    Raises:
        DataError: more events in a step than the chip takes, or events below 0.
    """
    facts = graph.metadata.get("quantization", {})
    scale = facts.get("input_scale")
    sent = x if kind == "spikes" or scale is None else np.rint(np.asarray(x, np.float64) * scale).astype(np.int64)
    if facts.get("format", "loihi") != "loihi":
        _check_events(sent, facts)
    return sent


def _check_events(sent: Array, facts: Mapping[str, Any]) -> None:
    chip, max_events = facts["format"], facts.get("input_events_max")
    low, high = float(np.min(sent, initial=0)), float(np.max(sent, initial=0))
    if low < 0:
        value = low / facts.get("input_scale", 1.0)
        raise DataError(
            f"input: {value:.3g} given, {chip} takes events, which have no sign; give negative values channels of their own"
        )
    if max_events is not None and high > max_events:
        raise DataError(
            f"input: {high:.0f} events of one channel in one step, {chip} takes {max_events}; spread them over more steps"
        )
