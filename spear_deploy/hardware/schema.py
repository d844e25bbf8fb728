"""Schema of hardware profiles: keys, units, meanings and contradictions.

Every fact is `{value, unit, source, evidence}`. `value: null` means that the number is not published; a check that needs it
then reports `unchecked` instead of guessing. Keys that are left out are unpublished. A limit that the chip does not have is
`unlimited`, with its source. The meaning of each key is written here, once; `profiles --keys` prints it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from spear_deploy.hardware.fields import (
    UNLIMITED,
    Block,
    Contradiction,
    Fact,
    Flag,
    Integer,
    Integers,
    Limit,
    LimitOrZero,
    Name,
    Names,
    Number,
    Range,
    Table,
    quote_value,
)

__all__ = ["MEMORY_FORMATS", "Contradiction", "CoreLimits", "CycleModel", "Fact", "HardwareProfile", "SynapseMemory"]


# -------------------------------------------------------------------------------------------------- energy and timing


class BoardRun(Block):
    """A published run on a board: information, never a term of a sum."""

    task: str = Field(min_length=1, description="what ran, on which board, at which rate")
    total_w: Number = Number.key("W", "power in all")
    static_w: Number = Number.key("W", "of it, power of a chip that does nothing")
    dynamic_w: Number = Number.key("W", "of it, power that the activity adds")
    energy_per_inference_mj: Number = Number.key("mJ", "energy of an inference")
    dynamic_energy_mj: Range = Range.key("mJ", "of it, energy that the activity adds")
    synops: Range = Range.key("synop", "SynOps of an inference")
    neuron_ops: Number = Number.key("update", "neuron updates of an inference")
    seconds: Number = Number.key("s", "time of an inference")

    @model_validator(mode="after")
    def _check_any_number(self) -> BoardRun:
        numbers = [getattr(self, name) for name in type(self).model_fields if name.endswith(("_w", "_mj"))]
        if all(fact.value is None for fact in numbers):
            raise Contradiction("task", f"'{self.task}' has no number; give a power or an energy, or leave the run out")
        return self


PRICES_OF_WAYS = ("spike_local_pj", "hop_ew_pj", "hop_ns_pj")
"""Keys of the prices of a spike by its way; a price of packets holds them all."""


class EnergyTerms(Block):
    """What one event costs. All prices of a profile come from one set and one operating point, which their sources quote."""

    synop_pj: Number = Number.key("pJ", "a synaptic operation")
    mac_pj: Number = Number.key("pJ", "a multiplication and addition of an analogue input")
    neuron_active_pj: Number = Number.key("pJ", "a neuron's update in a step")
    neuron_inactive_pj: Number = Number.key("pJ", "an update of a neuron at which nothing arrives")
    spike_local_pj: Number = Number.key("pJ", "a spike sent to a core of the same tile")
    hop_ew_pj: Number = Number.key("pJ", "a tile further east or west")
    hop_ns_pj: Number = Number.key("pJ", "a tile further north or south")
    packet_pj: Number = Number.key(
        "pJ", "a spike's packet, wherever it goes on its chip, in place of prices within a tile and of hops"
    )
    static_w_per_chip: Number = Number.key("W", "power of a chip that does nothing")
    static_w_range: Range = Range.key("W", "the same, where it depends on what is counted as the chip")
    active_w_per_core: Number = Number.key("W", "power of a core in use, on top of the chip's")
    neuron_op_synops: Number = Number.key(
        "synop", "a neuron's update, in synaptic operations, where the maker states their ratio"
    )
    effective_op_pj_range: Range = Range.key(
        "pJ", "an effective operation (SynOps + neuron_op_synops · updates): dynamic energy, where no event has a price"
    )
    all_in_pj_per_synop: Number = Number.key("pJ", "everything, divided by the SynOps; used alone, never added to terms")
    measured: tuple[BoardRun, ...] = Field(default=(), description="published runs; information, no part of a sum")

    @model_validator(mode="after")
    def _check_no_double_count(self) -> EnergyTerms:
        by_way = [name for name in PRICES_OF_WAYS if getattr(self, name).value is not None]
        if self.packet_pj.value is not None and by_way:
            more = f"stands beside energy.{by_way[0]}, but prices a spike wherever it goes; make one of them null"
            raise Contradiction("packet_pj", more)
        if self.all_in_pj_per_synop.value is None:
            return self
        for name in type(self).model_fields:
            if name.endswith(("_pj", "_w_per_chip", "_w_per_core", "_range")) and getattr(self, name).value is not None:
                raise Contradiction(
                    name, "stands beside energy.all_in_pj_per_synop, which holds it already; make one of them null"
                )
        return self


PRICES = tuple(name for name in EnergyTerms.model_fields if name not in ("all_in_pj_per_synop", "neuron_op_synops", "measured"))
"""Keys of the terms of a sum; an all-in figure holds them all."""


class CycleModel(Block):
    """Clock cycles of a step of a chip that works neuron by neuron, as Xylo's maker publishes them."""

    per_input_event_and_neuron: Number = Number.key("cycle", "an input event, for each hidden neuron", needed=True)
    per_input_channel: Number = Number.key("cycle", "an input channel", needed=True)
    per_recurrent_synapse: Number = Number.key("cycle", "a spike's synapse onto a hidden neuron", needed=True)
    per_output_synapse: Number = Number.key("cycle", "a spike's synapse onto an output neuron", needed=True)
    per_hidden_neuron: Number = Number.key("cycle", "the update of a hidden neuron", needed=True)
    per_hidden_loop: Number = Number.key("cycle", "the loop over a hidden neuron's synapses; again where it spikes", needed=True)
    per_hidden_spike: Number = Number.key("cycle", "the loop over the outputs for a hidden neuron that spikes", needed=True)
    per_output_neuron: Number = Number.key("cycle", "the update of an output neuron", needed=True)
    margin: Number = Number.key("factor", "clock that is asked for, in clock that is needed", needed=True)


class Timing(Block):
    """How long a step takes."""

    mode: Name = Name.key(
        "mode",
        "`barrier`: cores wait for the slowest; `fixed_tick`: a step has its time, late work is lost; `async`: no steps",
        words=("barrier", "fixed_tick", "async"),
    )
    step_s: Number = Number.key("s", "time of a step, where it is fixed or known")
    speedup: Number = Number.key("factor", "how much faster than the network's own time the chip runs")
    clock_hz: Number = Number.key("Hz", "clock of the cores")
    events_per_core_and_step: Limit = Limit.key(
        "event", "synaptic events that a core can take in a step (`fixed_tick`); left out: no limit"
    )
    synop_ns: Number = Number.key("ns", "a synaptic operation on a core")
    neuron_active_ns: Number = Number.key("ns", "a neuron's update")
    neuron_inactive_ns: Number = Number.key("ns", "an update of a neuron at which nothing arrives")
    synop_ns_range: Range = Range.key("ns", "a synaptic operation on a core, where only its ends can be derived")
    neuron_ns_range: Range = Range.key("ns", "a neuron's update, where only its ends can be derived")
    barrier_ns_range: Range = Range.key("ns", "the barrier across a chip, where only its ends can be derived")
    hop_ew_ns: Number = Number.key("ns", "a tile further east or west")
    hop_ns_ns: Number = Number.key("ns", "a tile further north or south")
    barrier_ns_by_tiles: Table = Table.key("ns", "the barrier, by the number of tiles that wait")
    cycles: CycleModel | None = Field(default=None, description="clock cycles of a step of a chip that works neuron by neuron")

    @model_validator(mode="after")
    def _check_consistency(self) -> Timing:
        if self.mode.value == "async" and self.step_s.value is not None:
            raise Contradiction("step_s", "has a value, but timing.mode 'async' has no steps; correct one of them")
        return self


MEMORY_FORMATS: dict[str, tuple[str, ...]] = {
    "list_words": ("word_bits", "header_bits", "index_bits", "conv_header_bits"),
    "list_blocks": ("word_bits", "header_bits", "block_synapses", "index_widths"),
    "crossbar": ("word_bits", "cells_per_weight"),
    "pow2_kernel": ("word_bits",),
    "word_per_weight": ("word_bits",),
    "packed_weights": ("word_bits",),
    "sdram_rows": ("word_bits", "row_header_words"),
}
"""Storage formats of synapses and the parameters that each needs; `placement.synapse_memory` has a function for each."""

MAX_CELLS = 1 << 10
"""Cells that a weight may take in a crossbar."""

KINDS = ("Dense", "Conv1d", "Conv2d", "Scale", "SumPool", "AvgPool", "Flatten")
MODELS = (
    "IF", "LIF", "CubaLIF", "LI", "CubaLI", "SigmaDelta", "LoihiLIF", "SpeckIF", "XyloLIF", "TrueNorthLIF", "SpinnakerLIF",
    "ReckonLIF", "OdinLIF", "CatalystLIF",
)  # fmt: skip


class Meta(Block):
    """What people call the chip, which integer formats it belongs to, and at what its numbers hold."""

    title: str = Field(min_length=1, description="what people call the chip")
    family: str = Field(
        min_length=1,
        description="chips that share integer formats, such as `loihi`; others are pruned for in floating point",
    )
    domain: Literal["digital", "analog", "software"] = Field(default="digital", description="what computes")
    operating_point: str = Field(default="", description="voltage, clock and steps at which the numbers hold")
    aliases: tuple[str, ...] = Field(
        default=(), description="further names that `--chip` takes, of an included profile: chips with the same limits"
    )


class Chip(Block):
    """How many cores, on which boards, and what the cores of a chip share."""

    cores: Limit = Limit.key("core", "cores on a chip", needed=True)
    usable_cores: Limit = Limit.key("core", "of them, those a network may take: the limit of the verdict", needed=True)
    boards: dict[str, Limit] = Field(default_factory=dict, description="by board, how many chips it carries (unit: chip)")
    memory_words: Limit = Limit.key("word", "synapse memory that the cores of a chip share (`synapse_memory.scope: chip`)")
    multi_pass: Flag = Flag.key(
        "flag", "whether a network that needs more cores than there are runs in several passes; left out: it does not"
    )
    dense_layers: Limit = Limit.key("layer", "dense layers, where only some cores hold one; left out: no limit")

    @model_validator(mode="after")
    def _check_consistency(self) -> Chip:
        cores, usable = self.cores.max_value, self.usable_cores.max_value
        if cores is not None and usable is not None and usable > cores:
            more = f"{self.usable_cores.value} given, more than the {self.cores.value} cores there are; swap or correct them"
            raise Contradiction("usable_cores", more)
        if cores is not None and self.usable_cores.value == UNLIMITED:
            more = f"'{UNLIMITED}' given, but there are {cores} cores; write how many of them a network may take"
            raise Contradiction("usable_cores", more)
        if self.multi_pass.value and usable is None:
            raise Contradiction("multi_pass", "true given, but usable_cores is no number; say how many cores a pass has")
        for board, fact in self.boards.items():
            if fact.unit != "chip":
                raise Contradiction(f"boards.{board}", f"unit '{fact.unit}' given, expected 'chip'; convert the value")
        return self


class Topology(Block):
    """Where cores lie on the mesh, when they are filled in order; hops are counted if all three are known."""

    cores_per_tile: Limit = Limit.key("core", "cores that share a router")
    mesh_columns: Limit = Limit.key("tile", "tiles east-west")
    mesh_rows: Limit = Limit.key("tile", "tiles north-south")


class CoreLimits(Block):
    """What one core holds."""

    neurons: Limit = Limit.key("neuron", "neurons")
    synapse_memory: Limit = Limit.key("word", "words of synapse memory")
    neuron_memory: Limit = Limit.key("word", "words of neuron state, where a map takes more than a word a neuron")
    bias_memory: Limit = Limit.key("word", "words of biases, where they have a memory of their own")
    axons_in: Limit = Limit.key("axon", "inputs: synapse lists, rows of a crossbar")
    axons_out: Limit = Limit.key("axon", "destinations that the neurons have in all")
    layers: Limit = Limit.key("layer", "layers: groups of neurons of one configuration")
    destinations: Limit = Limit.key("layer", "layers that a layer's spikes can go to")


class CoreGroup(CoreLimits):
    """Cores that differ from the others: a limit that is left out is that of `core`."""

    name: str = Field(min_length=1, description="what the group is called")
    count: Limit = Limit.key("core", "cores of the group on a chip; all groups together make the chip", needed=True)
    role: Name = Name.key(
        "role",
        "`readout`: for the network's last layer; `hidden`: for the others; `any`: for all, so where it is left out",
        words=("any", "hidden", "readout"),
    )


class SynapseMemory(Block):
    """How synapses are stored: a named format and its parameters; null where the format is not public."""

    format: Name = Name.key("format", "how synapses are stored", words=tuple(MEMORY_FORMATS), needed=True)
    scope: Name = Name.key(
        "scope", "whether a `core` has its memory (so where it is left out) or the `chip` has one for all", words=("core", "chip")
    )
    word_bits: Limit = Limit.key("bit", "width of a memory word; of a cell of a crossbar")
    header_bits: Integer = Integer.key("bit", "what a list (or a block of it) holds besides synapses")
    index_bits: Integer = Integer.key("bit", "target's index of a synapse (`list_words`)")
    conv_header_bits: Integer = Integer.key("bit", "header of a convolution's list (`list_words`)")
    block_synapses: Limit = Limit.key("synapse", "synapses of a block at most (`list_blocks`)")
    index_widths: Integers = Integers.key("bit", "widths that an index may have (`list_blocks`)")
    tag_bits: Integer = Integer.key("bit", "learning tag of a synapse")
    cells_per_weight: Limit = Limit.key("cell", "cells, in rows above each other, that a weight with a sign takes (`crossbar`)")
    row_header_words: Integer = Integer.key("word", "header of a source's row of synapses (`sdram_rows`)")

    @model_validator(mode="after")
    def _check_parameters(self) -> SynapseMemory:
        for name in MEMORY_FORMATS.get(self.format.value or "", ()):
            value = getattr(self, name).value
            if value in (None, ()):
                raise Contradiction(name, f"has no value, but the format '{self.format.value}' needs it; add it")
            if value == UNLIMITED:
                raise Contradiction(name, f"'{UNLIMITED}' given, but the format '{self.format.value}' needs a number; correct it")
        cells = self.cells_per_weight.max_value
        if cells is not None and cells > MAX_CELLS:
            raise Contradiction("cells_per_weight", f"{cells} given, a weight takes at most {MAX_CELLS} cells; correct it")
        return self


class Axons(Block):
    """How spikes find their synapses."""

    conv: Name = Name.key(
        "rule",
        "input axons of a convolution: `position`, one for each input position; `source`, one for each source layer and stride; "
        "left out, one for each source neuron",
        words=("position", "source"),
    )
    slots_per_position: Limit = Limit.key("slot", "destinations that a position shared by all channels takes")
    positions_per_core: Limit = Limit.key("position", "positions of a tile that shared lists can reach")


class Connectivity(Block):
    """What one neuron, or the whole chip, may be connected to."""

    fan_in: Limit = Limit.key("synapse", "synapses that reach a neuron; cells of its column, in a crossbar")
    fan_out: Limit = Limit.key(
        "synapse", "synapses that leave a neuron; onto hidden cores, where the readout has cores of its own"
    )
    fan_out_mean: Limit = Limit.key("synapse", "the same, mean over the chip's neurons: a budget of the chip")
    fan_out_cores: Limit = Limit.key("core", "cores that a neuron's spikes can go to")
    fan_out_remote: Limit = Limit.key("synapse", "synapses of a neuron onto other cores than its own; left out: no limit")
    weight_palette: Limit = Limit.key("weight", "distinct non-zero weights of a neuron")
    input_channels: Limit = Limit.key("channel", "inputs of the network")
    output_channels: Limit = Limit.key("channel", "outputs of the network")
    input_reaches: Limit = Limit.key("neuron", "neurons that the network's input can reach")
    output_reads: Limit = Limit.key("neuron", "neurons that the output layer can read")
    recurrent: Flag = Flag.key("flag", "whether a spike may return to a layer that it has passed")
    recurrent_readout: Flag = Flag.key(
        "flag", "whether spikes of the output layer may go to neurons, its own or others; left out: they may"
    )
    mapped_hidden_layers: Limit = Limit.key(
        "layer", "hidden layers below which the maker's mapper stops, although the chip may hold the network"
    )
    input_to_readout: Flag = Flag.key(
        "flag", "whether the network's input may feed the output layer without a hidden one; left out: it may"
    )

    @model_validator(mode="after")
    def _check_consistency(self) -> Connectivity:
        mean, limit = self.fan_out_mean.max_value, self.fan_out.max_value
        if mean is not None and limit is not None and mean > limit:
            raise Contradiction(
                "fan_out_mean", f"{mean} given, more than fan_out allows any neuron ({limit}); correct one of them"
            )
        return self


class Packing(Block):
    """How the chip's own tool splits layers over cores, and whether layers share a core."""

    rule: Name = Name.key(
        "rule",
        "`equal`: equal shares; `divide`: Loihi 2's, see `splitting.py`; `whole`: a layer lies whole on one core",
        words=("divide", "equal", "whole"),
        needed=True,
    )
    tile_axes: Names = Names.key("axis", "axes along which `divide` cuts a map", words=("x", "y"))
    share_cores: Flag = Flag.key("flag", "whether slices of several layers may lie on one core; left out: they may not")


class Weights(Block):
    """Which weights a synapse may hold."""

    bits: Integers = Integers.key("bit", "widths that a stored weight may have", needed=True)
    default_bits: Integer = Integer.key("bit", "width assumed for a network that is not quantised", needed=True)
    bits_by_layer: Flag = Flag.key("flag", "whether layers may have weights of different widths")
    sign: Name = Name.key(
        "rule",
        "what has a sign of its own: each `synapse` (so where it is left out), or all synapses of a source (`presynaptic`)",
        words=("synapse", "presynaptic"),
    )
    delay_max_steps: LimitOrZero = LimitOrZero.key("step", "longest delay of a synapse beyond the chip's own step")
    delay_free_steps: LimitOrZero = LimitOrZero.key("step", "longest delay that costs no neurons")
    zero_synops: Flag = Flag.key("flag", "whether a weight of zero costs a synaptic operation")
    zero_memory: Flag = Flag.key("flag", "whether a weight of zero inside a layer costs synapse memory")

    @model_validator(mode="after")
    def _check_consistency(self) -> Weights:
        if not self.bits.value:
            raise Contradiction("bits", "is empty; list the widths that a weight may have")
        if min(self.bits.value) < 1:
            raise Contradiction("bits", f"{list(self.bits.value)} given, a weight has at least 1 bit; correct it")
        if self.default_bits.value not in self.bits.value:
            widths = list(self.bits.value)
            missing = f"{self.default_bits.value} given, which is not among weights.bits {widths}; name one of them"
            raise Contradiction("default_bits", missing)
        free, limit = self.delay_free_steps.max_value, self.delay_max_steps.max_value
        if free is not None and limit is not None and free > limit:
            raise Contradiction("delay_free_steps", f"{free} given, more than delay_max_steps ({limit}); correct one of them")
        return self


class NeuronFormat(Block):
    """Which neurons the chip's stock models are, and how wide their state is."""

    models: Names = Names.key("model", "neurons that the stock models hold", words=MODELS, needed=True)
    resets: Names = Names.key(
        "reset", "what a spike does to v: set a `value`, `subtract` or `none`", words=("value", "subtract", "none"), needed=True
    )
    late_reset: Flag = Flag.key("flag", "whether a neuron can subtract its threshold one step after the spike, undecayed")
    constants_of: Name = Name.key(
        "rule",
        "what has a threshold and time constants of its own: each `neuron`, a `pair` of neurons (2N and 2N + 1), or a `channel`, "
        "whose weights take what differs between channels; left out, each neuron",
        words=("neuron", "pair", "channel"),
    )
    distinct_per_core: Limit = Limit.key(
        "value", "distinct thresholds, and distinct time constants, of the neurons of a core; left out, any number"
    )
    refractory_max_steps: LimitOrZero = LimitOrZero.key("step", "longest rest after a spike")
    state_bits: Integer = Integer.key(
        "bit", "width of u and v; integers have that of their family, and `check` names a difference"
    )
    bias_bits: Limit = Limit.key("bit", "width of a bias before its exponent, sign included (`LoihiLIF`)")
    synaptic_states: Integer = Integer.key("state", "synaptic currents that a neuron has; no check reads it, `models` decides")
    tau_above_steps: Number = Number.key("step", "what a time constant must be longer than; left out: nothing")
    tau_powers_of_two: Flag = Flag.key("flag", "whether a time constant is a power of two of steps, a shift of the state")
    tau_max_steps: Limit = Limit.key("step", "longest time constant; left out: no limit")
    tau_spiking_min_steps: Number = Number.key("step", "shortest time constant of a neuron that spikes; left out: no limit")
    bias: Flag = Flag.key("flag", "whether a neuron can add a constant to v in each step; left out: it can")
    stops_at_reset: Flag = Flag.key("flag", "whether v never lies below what a spike resets it to")
    current_of_none: Integer = Integer.key(
        "dash", "shift of the current that a neuron without one gets, where every neuron has a current"
    )
    graded_spike_bits: Limit = Limit.key("bit", "width of the value that a spike carries; 1: it carries none")
    max_spikes_per_step: Limit = Limit.key("event", "spikes of a neuron in a step")
    max_input_events_per_step: Limit = Limit.key("event", "events of an input channel in a step")


class LayerKinds(Block):
    """Which connections the chip's tools can map, and in which sizes; a size that is left out restricts nothing."""

    kinds: Names = Names.key("kind", "connections that the tools map", words=KINDS, needed=True)
    conv_kernel_max: Limit = Limit.key("position", "largest kernel")
    conv_kernel_sizes: Integers = Integers.key("position", "kernels that there are")
    conv_kernel_square: Flag = Flag.key("flag", "whether a kernel must be square")
    conv_stride_max: Limit = Limit.key("position", "largest stride")
    conv_stride_sizes: Integers = Integers.key("position", "strides that there are")
    conv_strided_kernels: Integers = Integers.key("position", "kernels that may have a stride above 1")
    conv_padding_max: LimitOrZero = LimitOrZero.key("position", "largest padding")
    conv_padding_same: Flag = Flag.key("flag", "whether padding must be `same`: outputs = inputs / stride, rounded up")
    conv_dilation_max: Limit = Limit.key("position", "largest dilation")
    conv_groups_max: Limit = Limit.key("group", "most groups")
    pool_sizes: Integers = Integers.key("position", "windows that a pool may have")
    pool_square: Flag = Flag.key("flag", "whether a pool's window must be square and its stride the window")
    pool_padding_max: LimitOrZero = LimitOrZero.key("position", "largest padding of a pool")
    pool_merge: Flag = Flag.key("flag", "whether pools in a row are one, whose window is the product of theirs")
    input_pool_channels_max: Limit = Limit.key(
        "channel", "channels of a pool ahead of the first weights, where a block of its own pools the input"
    )
    input_pool_map_max: Limit = Limit.key("position", "positions along an axis of the map that such a pool reads")
    output_pool: Flag = Flag.key("flag", "whether a pool behind the last neurons is on the chip; else the host pools")
    kernels_into_layer: Limit = Limit.key("layer", "layers of weights whose currents may add up in one layer of neurons")
    channels_max: Limit = Limit.key("channel", "channels of a map")
    input_map_max: Limit = Limit.key("position", "positions of a convolution's input along an axis")
    output_map_max: Limit = Limit.key("position", "positions of a convolution's output along an axis, before a pool")
    dense_inputs_max: Limit = Limit.key("neuron", "inputs of a dense layer")

    @model_validator(mode="after")
    def _check_consistency(self) -> LayerKinds:
        for name in ("kernel", "stride"):
            sizes, limit = getattr(self, f"conv_{name}_sizes").value, getattr(self, f"conv_{name}_max").max_value
            if sizes and limit is not None and max(sizes) != limit:
                raise Contradiction(
                    f"conv_{name}_max", f"{limit} given, but conv_{name}_sizes goes to {max(sizes)}; correct one of them"
                )
        return self


class HardwareProfile(Block):
    """A chip, as far as it is published."""

    schema_version: Literal[1] = Field(alias="schema", description="version of this format")
    name: str = Field(min_length=1, description="what `--chip` takes: the file's name")
    meta: Meta
    chip: Chip
    core: CoreLimits
    core_groups: tuple[CoreGroup, ...] = Field(default=(), description="cores that differ; none: all are alike")
    synapse_memory: SynapseMemory
    packing: Packing
    weights: Weights
    neuron: NeuronFormat
    layers: LayerKinds
    axons: Axons = Axons()
    connectivity: Connectivity = Connectivity()
    topology: Topology = Topology()
    energy: EnergyTerms = EnergyTerms()
    timing: Timing = Timing()
    facts: dict[str, Number] = Field(default_factory=dict, description="further published numbers, which no check reads")
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="by name, facts of a variant that differ, by dotted key; `--chip CHIP@NAME` takes it",
    )

    def __repr__(self) -> str:
        """Return one line without the facts, for notebooks and lists."""
        return f"HardwareProfile('{self.name}': {self.meta.title})"

    @model_validator(mode="after")
    def _check_consistency(self) -> HardwareProfile:
        cores = self.chip.cores.max_value
        if self.core_groups:
            if (total := sum(group.count.max_value or 0 for group in self.core_groups)) != cores:
                more = f"{self.chip.cores.value} given, but the core groups hold {total}; correct one of them"
                raise Contradiction("chip.cores", more)
            for name in (names := [group.name for group in self.core_groups]):
                if names.count(name) > 1 or name.isdecimal():
                    raise Contradiction("core_groups", f"a group is called '{name}'; give each another name that is no number")
        mesh = (self.topology.mesh_columns.max_value, self.topology.mesh_rows.max_value, self.topology.cores_per_tile.max_value)
        if cores is not None and None not in mesh:
            room = (mesh[0] or 0) * (mesh[1] or 0) * (mesh[2] or 0)
            if room < cores:
                less = f"the mesh has room for {room} cores, fewer than the {cores} there are; correct one of them"
                raise Contradiction("topology.mesh_columns", less)
        skips, zeros = self.synapse_memory.format.value == "word_per_weight", self.weights.zero_memory.value
        if self.synapse_memory.format.value is not None and zeros is not None and zeros == skips:
            what = f"the format '{self.synapse_memory.format.value}' {'leaves zeros out' if skips else 'stores them'}"
            raise Contradiction("weights.zero_memory", f"{quote_value(zeros)} given, but {what}; correct one of them")
        if self.synapse_memory.scope.value == "chip" and self.chip.memory_words.value is None:
            raise Contradiction("chip.memory_words", "has no value, but synapse_memory.scope is 'chip'; add it")
        return self

    @property
    def weight_bits(self) -> tuple[int, ...]:
        """Widths that a stored weight may have."""
        return self.weights.bits.value or ()

    def store_bits(self, bits: int) -> int:
        """Return the width that weights of so many bits are stored with: the next one that a layer may have; else the default."""
        default = self.weights.default_bits.value or 0
        if not self.weights.bits_by_layer.value:
            return default
        return min((width for width in self.weight_bits if width >= bits), default=max(self.weight_bits))

    def cores_limit(self, chips: int = 1) -> int | None:
        """Return how many cores `chips` chips offer, or None where it is unlimited or not published."""
        usable = self.chip.usable_cores.max_value
        return None if usable is None else usable * chips

    def core_limits(self, group: int | None = None) -> dict[str, Any]:
        """Return the limits of a core by name, those of a group where it has its own."""
        limits = {name: getattr(self.core, name) for name in CoreLimits.model_fields}
        if group is not None:
            own = {name: getattr(self.core_groups[group], name) for name in CoreLimits.model_fields}
            limits |= {name: fact for name, fact in own.items() if fact.value is not None}
        return limits
