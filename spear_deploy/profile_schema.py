"""What does a hardware profile say? Its keys, their units, and what contradicts itself.

Every fact is a leaf `{value, unit, source, evidence}`. `value: null` means that nobody published the number; a check that
needs it then says `unchecked` instead of guessing. Keys that are left out are unpublished. The folder `hardware_profiles`
explains each key in its README.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Evidence: TypeAlias = Literal["measured", "simulated", "vendor", "derived", "projected", "unpublished", "user"]
UNPUBLISHED: Literal["unpublished"] = "unpublished"

MEMORY_FORMATS: dict[str, tuple[str, ...]] = {
    "list_words": ("word_bits", "header_bits", "index_bits", "conv_header_bits"),
    "list_blocks": ("word_bits", "header_bits", "block_synapses", "index_widths"),
}
"""Storage formats of synapses and the parameters each cannot do without; one function each in `synapse_memory`."""


class Contradiction(ValueError):
    """Two facts of one block that cannot both be; `key` is the one to correct."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} given, expected a number or null")
    return value


class Leaf(_Strict):
    """A fact and where it comes from."""

    unit: str
    source: str | None = None
    evidence: Evidence
    value: Any = None

    @model_validator(mode="after")
    def _sourced(self) -> Leaf:
        if (self.value is None) != (self.evidence == UNPUBLISHED):
            raise ValueError(
                f"value {self.value!r} with evidence '{self.evidence}'; null and 'unpublished' go together, "
                "every other value says what supports it"
            )
        if self.value is not None and not self.source:
            raise ValueError("has a value but no source; say where it comes from")
        return self


NonNegative: TypeAlias = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, BeforeValidator(_no_bool), Field(ge=0)]


class Number(Leaf):
    """A quantity of at least 0."""

    value: NonNegative | None = None


class Whole(Leaf):
    """A count of at least 0."""

    value: Count | None = None


class Wholes(Leaf):
    """A set of counts, e.g. the weight widths a chip can store."""

    value: tuple[Count, ...] | None = None


class Name(Leaf):
    """One word out of a list."""

    value: str | None = None


class Names(Leaf):
    """Words, e.g. the neuron models a chip has."""

    value: tuple[str, ...] | None = None


class Table(Leaf):
    """A quantity by a count, e.g. the barrier's time by the number of tiles."""

    value: dict[int, NonNegative] | None = None


def _unit(unit: str) -> AfterValidator:
    def check(leaf: Any) -> Any:
        if leaf.unit != unit:
            raise ValueError(f"unit '{leaf.unit}' given, expected '{unit}'; convert the value")
        return leaf

    return AfterValidator(check)


def _capacity(leaf: Any) -> Any:
    if leaf.value == 0:
        raise ValueError("0 given, a capacity is at least 1; write null where it is not published")
    return leaf


def _among(*words: str) -> AfterValidator:
    def check(leaf: Any) -> Any:
        given = leaf.value if isinstance(leaf.value, tuple) else (leaf.value,)
        for word in given:
            if word is not None and word not in words:
                raise ValueError(f"'{word}' given, expected one of {', '.join(words)}")
        return leaf

    return AfterValidator(check)


def _open(kind: type[Leaf], unit: str) -> Any:
    """Return the default of a key that may be left out."""
    return kind(unit=unit, evidence=UNPUBLISHED)


Cores = Annotated[Whole, _unit("core"), AfterValidator(_capacity)]
Chips = Annotated[Whole, _unit("chip"), AfterValidator(_capacity)]
Bits = Annotated[Whole, _unit("bit")]
Steps = Annotated[Whole, _unit("step")]
Picojoules = Annotated[Number, _unit("pJ")]
Nanoseconds = Annotated[Number, _unit("ns")]


class Chip(_Strict):
    """How many cores, and on which boards."""

    cores: Cores
    usable_cores: Cores
    boards: dict[str, Chips] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Chip:
        if self.cores.value is not None and self.usable_cores.value is not None and self.usable_cores.value > self.cores.value:
            more = f"{self.usable_cores.value} given, more than the {self.cores.value} cores there are; swap or correct them"
            raise Contradiction("usable_cores", more)
        return self


class Topology(_Strict):
    """Where cores lie on the mesh, when they are filled in order."""

    cores_per_tile: Cores = _open(Whole, "core")
    mesh_columns: Annotated[Whole, _unit("tile"), AfterValidator(_capacity)] = _open(Whole, "tile")
    mesh_rows: Annotated[Whole, _unit("tile"), AfterValidator(_capacity)] = _open(Whole, "tile")


class Core(_Strict):
    """What one core holds."""

    neurons: Annotated[Whole, _unit("neuron"), AfterValidator(_capacity)]
    synapse_memory: Annotated[Whole, _unit("word"), AfterValidator(_capacity)]
    axons_in: Annotated[Whole, _unit("axon"), AfterValidator(_capacity)] = _open(Whole, "axon")
    axons_out: Annotated[Whole, _unit("axon"), AfterValidator(_capacity)] = _open(Whole, "axon")


class SynapseMemory(_Strict):
    """How synapses are stored: a named format and its parameters."""

    format: Annotated[Name, _unit("format"), _among(*MEMORY_FORMATS)]
    word_bits: Annotated[Bits, AfterValidator(_capacity)] = _open(Whole, "bit")
    header_bits: Bits = _open(Whole, "bit")
    index_bits: Bits = _open(Whole, "bit")
    conv_header_bits: Bits = _open(Whole, "bit")
    block_synapses: Annotated[Whole, _unit("synapse"), AfterValidator(_capacity)] = _open(Whole, "synapse")
    index_widths: Annotated[Wholes, _unit("bit")] = _open(Wholes, "bit")
    tag_bits: Bits = _open(Whole, "bit")

    @model_validator(mode="after")
    def _complete(self) -> SynapseMemory:
        if self.format.value is None:
            raise Contradiction("format", f"null given, expected one of {', '.join(MEMORY_FORMATS)}")
        for name in MEMORY_FORMATS[self.format.value]:
            if getattr(self, name).value in (None, ()):
                raise Contradiction(name, f"has no value, but the format '{self.format.value}' needs it; add it")
        return self


class Axons(_Strict):
    """How spikes find their synapses."""

    conv: Annotated[Name, _unit("rule"), _among("position", "source")] = _open(Name, "rule")
    slots_per_position: Annotated[Whole, _unit("slot"), AfterValidator(_capacity)] = _open(Whole, "slot")
    positions_per_core: Annotated[Whole, _unit("position"), AfterValidator(_capacity)] = _open(Whole, "position")


class Packing(_Strict):
    """How the chip's own tool splits layers over cores."""

    rule: Annotated[Name, _unit("rule"), _among("divide", "equal")]
    tile_axes: Annotated[Names, _unit("axis"), _among("x", "y")] = _open(Names, "axis")


class Weights(_Strict):
    """Which weights a synapse may hold."""

    bits: Annotated[Wholes, _unit("bit")]
    default_bits: Bits
    delay_max_steps: Steps = _open(Whole, "step")
    delay_free_steps: Steps = _open(Whole, "step")

    @model_validator(mode="after")
    def _consistent(self) -> Weights:
        if not self.bits.value:
            raise Contradiction("bits", "is empty; list the widths that a weight may have")
        if self.default_bits.value not in self.bits.value:
            missing = f"{self.default_bits.value} given, which is not among weights.bits {list(self.bits.value)}"
            raise Contradiction("default_bits", missing)
        return self


class NeuronFormat(_Strict):
    """Which neurons the chip's stock models are."""

    models: Annotated[Names, _unit("model"), _among("IF", "LIF", "CubaLIF", "LI", "CubaLI", "LoihiLIF")]
    resets: Annotated[Names, _unit("reset"), _among("value", "subtract")]
    refractory_max_steps: Steps = _open(Whole, "step")
    state_bits: Bits = _open(Whole, "bit")


class LayerKinds(_Strict):
    """Which connections the chip's tools can map; a limit that is left out is not published."""

    kinds: Annotated[Names, _unit("kind"), _among("Dense", "Conv1d", "Conv2d", "Scale", "SumPool", "AvgPool", "Flatten")]
    conv_dilation_max: Annotated[Whole, _unit("position"), AfterValidator(_capacity)] = _open(Whole, "position")
    conv_groups_max: Annotated[Whole, _unit("group"), AfterValidator(_capacity)] = _open(Whole, "group")
    conv_stride_max: Annotated[Whole, _unit("position"), AfterValidator(_capacity)] = _open(Whole, "position")
    conv_kernel_max: Annotated[Whole, _unit("position"), AfterValidator(_capacity)] = _open(Whole, "position")


class Measured(_Strict):
    """A published run on a board: information, never a term of a sum."""

    task: str
    total_w: Annotated[Number, _unit("W")]
    static_w: Annotated[Number, _unit("W")] = _open(Number, "W")
    energy_per_inference_mj: Annotated[Number, _unit("mJ")] = _open(Number, "mJ")


class EnergyTerms(_Strict):
    """What one event costs; an all-in figure holds everything and is used alone."""

    synop_pj: Picojoules = _open(Number, "pJ")
    neuron_active_pj: Picojoules = _open(Number, "pJ")
    neuron_inactive_pj: Picojoules = _open(Number, "pJ")
    spike_local_pj: Picojoules = _open(Number, "pJ")
    hop_ew_pj: Picojoules = _open(Number, "pJ")
    hop_ns_pj: Picojoules = _open(Number, "pJ")
    static_w_per_chip: Annotated[Number, _unit("W")] = _open(Number, "W")
    all_in_pj_per_synop: Picojoules = _open(Number, "pJ")
    measured: tuple[Measured, ...] = ()


class Timing(_Strict):
    """How long a step takes."""

    mode: Annotated[Name, _unit("mode"), _among("barrier", "fixed_tick", "async")] = _open(Name, "mode")
    step_s: Annotated[Number, _unit("s")] = _open(Number, "s")
    synop_ns: Nanoseconds = _open(Number, "ns")
    neuron_active_ns: Nanoseconds = _open(Number, "ns")
    neuron_inactive_ns: Nanoseconds = _open(Number, "ns")
    hop_ew_ns: Nanoseconds = _open(Number, "ns")
    hop_ns_ns: Nanoseconds = _open(Number, "ns")
    barrier_ns_by_tiles: Annotated[Table, _unit("ns")] = _open(Table, "ns")


class Meta(_Strict):
    """What people call the chip, and which integer formats it belongs to."""

    title: str = Field(min_length=1)
    family: str = Field(min_length=1)


class HardwareProfile(_Strict):
    """A chip, as far as it is published."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(min_length=1)
    meta: Meta
    chip: Chip
    core: Core
    synapse_memory: SynapseMemory
    packing: Packing
    weights: Weights
    neuron: NeuronFormat
    layers: LayerKinds
    axons: Axons = Axons()
    topology: Topology = Topology()
    energy: EnergyTerms = EnergyTerms()
    timing: Timing = Timing()

    @property
    def weight_bits(self) -> tuple[int, ...]:
        """Widths that a stored weight may have."""
        return self.weights.bits.value or ()

    def cores_limit(self, chips: int = 1) -> int | None:
        """Return how many cores `chips` chips offer, or None where it is not published."""
        usable = self.chip.usable_cores.value
        return None if usable is None else usable * chips
