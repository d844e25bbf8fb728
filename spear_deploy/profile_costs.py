"""What does a hardware profile say about energy and time? The blocks `energy` and `timing`, and what contradicts itself."""

from __future__ import annotations

from pydantic import Field, model_validator

from spear_deploy.profile_leaves import Contradiction, Limit, Name, Number, Strict, Table


class Measured(Strict):
    """A published run on a board: information, never a term of a sum."""

    task: str = Field(min_length=1, description="what ran, on which board, at which rate")
    total_w: Number = Number.key("W", "power in all")
    static_w: Number = Number.key("W", "of it, power of a chip that does nothing")
    dynamic_w: Number = Number.key("W", "of it, power that the activity adds")
    energy_per_inference_mj: Number = Number.key("mJ", "energy of an inference")

    @model_validator(mode="after")
    def _says_something(self) -> Measured:
        numbers = [getattr(self, name) for name in type(self).model_fields if name != "task"]
        if all(leaf.value is None for leaf in numbers):
            raise Contradiction("task", f"'{self.task}' has no number; give a power or an energy, or leave the run out")
        return self


class EnergyTerms(Strict):
    """What one event costs. All prices of a profile come from one set and one operating point, which their sources quote."""

    synop_pj: Number = Number.key("pJ", "a synaptic operation")
    mac_pj: Number = Number.key("pJ", "a multiplication and addition of an analogue input")
    neuron_active_pj: Number = Number.key("pJ", "a neuron's update in a step")
    neuron_inactive_pj: Number = Number.key("pJ", "an update of a neuron at which nothing arrives")
    spike_local_pj: Number = Number.key("pJ", "a spike sent to a core of the same tile")
    hop_ew_pj: Number = Number.key("pJ", "a tile further east or west")
    hop_ns_pj: Number = Number.key("pJ", "a tile further north or south")
    packet_pj: Number = Number.key("pJ", "a spike's packet, wherever it goes, where hops are not priced one by one")
    static_w_per_chip: Number = Number.key("W", "power of a chip that does nothing")
    active_w_per_core: Number = Number.key("W", "power of a core in use, on top of the chip's")
    all_in_pj_per_synop: Number = Number.key("pJ", "everything, divided by the SynOps; used alone, never added to terms")
    measured: tuple[Measured, ...] = Field(default=(), description="published runs; information, no part of a sum")

    @model_validator(mode="after")
    def _nothing_counted_twice(self) -> EnergyTerms:
        if self.all_in_pj_per_synop.value is None:
            return self
        for name in type(self).model_fields:
            if name.endswith(("_pj", "_w_per_chip", "_w_per_core")) and getattr(self, name).value is not None:
                raise Contradiction(
                    name, "stands beside energy.all_in_pj_per_synop, which holds it already; make one of them null"
                )
        return self


PRICES = tuple(name for name in EnergyTerms.model_fields if name not in ("all_in_pj_per_synop", "measured"))
"""Keys of the terms of a sum; an all-in figure holds them all."""


class CycleModel(Strict):
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


class Timing(Strict):
    """How long a step takes."""

    mode: Name = Name.key(
        "mode",
        "`barrier`: cores wait for the slowest; `fixed_tick`: a step has its time, late work is lost; `async`: no steps",
        words=("barrier", "fixed_tick", "async"),
    )
    step_s: Number = Number.key("s", "time of a step, where it is fixed or known")
    speedup: Number = Number.key("factor", "how much faster than the network's own time the chip runs")
    clock_hz: Number = Number.key("Hz", "clock of the cores")
    events_per_core_and_step: Limit = Limit.key("event", "synaptic events that a core can take in a step (`fixed_tick`)")
    synop_ns: Number = Number.key("ns", "a synaptic operation on a core")
    neuron_active_ns: Number = Number.key("ns", "a neuron's update")
    neuron_inactive_ns: Number = Number.key("ns", "an update of a neuron at which nothing arrives")
    hop_ew_ns: Number = Number.key("ns", "a tile further east or west")
    hop_ns_ns: Number = Number.key("ns", "a tile further north or south")
    barrier_ns_by_tiles: Table = Table.key("ns", "the barrier, by the number of tiles that wait")
    cycles: CycleModel | None = Field(default=None, description="clock cycles of a step of a chip that works neuron by neuron")

    @model_validator(mode="after")
    def _consistent(self) -> Timing:
        if self.mode.value == "async" and self.step_s.value is not None:
            raise Contradiction("step_s", "has a value, but timing.mode 'async' has no steps; correct one of them")
        return self
