"""Lava processes for a network on some samples.

Weights become Dense where they are mostly full and Sparse elsewhere, a convolution directly behind a source becomes Conv. A
convolution behind a pool is one matrix with it, and so are the copies of a network: Sparse takes a sixth to a tenth of the time
of Conv at 8x8x16, 32x32x16 and 16x16x32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, identity, kron

from spear_deploy.lava.convolution import describe_conv
from spear_deploy.lava.formats import Plane, needs_complete_lif, split_into_digits, split_into_planes
from spear_deploy.lava.linear_maps import Convolution
from spear_deploy.lava.plan import InputConnection, LavaPlan
from spear_deploy.lava.program import Pass
from spear_deploy.network import Array
from spear_deploy.network.graph import unused_name
from spear_deploy.simulator.stepper import apply_delay

DENSE_WEIGHTS = 1_000_000
"""Weights up to which Lava's Dense is as fast as Sparse on a matrix that is mostly full."""
DELAYED_WEIGHTS = 300_000
"""Weights times steps up to which DelayDense is faster than a delay line in front of the weights."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """File with the spikes, states or values of some samples of a population.

    Attributes:
        layer: the population.
        what: "spikes", "v", "u" or "value".
        file: name of the `.npy` file.
        samples: of the run.
        copies: of the network, side by side in the recording.
        offset: Lava's step of the graph's step 0.
    """

    layer: str
    what: str
    file: str
    samples: slice
    copies: int
    offset: int

    def read(self, kept: Array, steps: int, shape: tuple[int, ...]) -> Array:
        """Return (T, samples, *shape) from what the recorder kept, (Lava's steps, copies · neurons)."""
        per_copy = (self.samples.stop - self.samples.start) // self.copies
        cut = kept[self.offset : self.offset + per_copy * steps].reshape(per_copy, steps, self.copies, *shape)
        order = (1, 2, 0, *range(3, cut.ndim))
        return cut.transpose(order).reshape(steps, -1, *shape)


class PassBuilder:
    """Collects the rows of one pass.

    Args:
        plan: the network.
        sources: (T, samples, n) of the values that the host sends.
        samples: of the run.
        key: prefix of the names of arrays and files.
    """

    def __init__(self, plan: LavaPlan, sources: Mapping[str, Array], samples: slice, key: str) -> None:
        self.plan, self.sources, self.samples, self.key = plan, sources, samples, key
        self.graph_steps, batch = next(iter(sources.values())).shape[:2]
        self.copies = batch if plan.needs_copies else 1
        self.steps = batch // self.copies * self.graph_steps + plan.depth
        self.rows: dict[str, dict[str, Any]] = {}
        self.connections: list[tuple[str, str]] = []
        self.arrays: dict[str, Array] = {}
        self.recordings: list[Recording] = []
        self.settings: dict[int, list[list[str]]] = {}

    def build(self, record: set[str]) -> Pass:
        """Return the pass, which records spikes, and of "v" and "u" those in `record`."""
        for target, inputs in self.plan.inputs.items():
            if target in self.plan.parameters:
                self.add_neurons(target)
                self.add_recorders(target, record)
            else:
                self.record(target, "value", "int32", into=target)
            for incoming in inputs:
                self.connect(target, incoming)
            self.connect_constants(target)
        pauses = tuple({"step": step, "set": rows} for step, rows in sorted(self.settings.items()))
        processes = tuple(self.rows.values())
        return Pass(steps=self.steps, processes=processes, connections=tuple(self.connections), pauses=pauses)

    def add(self, name: str, kind: str, size: int, **options: Any) -> str:
        """Add a process and return its name, which errors use; `size` is the number of values that it sends."""
        self.rows[name] = {"name": name, "kind": kind, "size": size, **options}
        return name

    def keep(self, name: str, value: Array) -> str:
        """Add an array and return its key."""
        key = f"{self.key}:{name}"
        self.arrays[key] = value
        return key

    # ------------------------------------------------------------------------------------------ neurons and recorders

    def add_neurons(self, name: str) -> None:
        """Add LIFReset, or a LIF that becomes active with its first sample, or our process `CompleteLIF` in place of either.

        Before that step a plain LIF has no bias, so it stays at 0 and sends nothing over edges with delay.
        """
        neuron: Any = self.plan.graph[name].neuron
        values = dict(self.plan.parameters[name])
        offset = self.plan.offsets[name]
        reset = None if self.plan.needs_copies else self.graph_steps
        if reset is None and offset:
            for variable in ("v", "bias_mant"):
                if values[variable].any():
                    full = np.broadcast_to(values[variable], (self.plan.size(name),))
                    key = self.keep(f"{name}.{variable}.later", np.tile(full, self.copies))
                    self.settings.setdefault(offset, []).append([name, variable, key])
                    values[variable] = np.zeros((), np.int64)
        complete = needs_complete_lif(neuron)
        if not complete:
            del values["v_reset"]
        parameters = {
            key: int(value) if value.ndim == 0 else self.keep(f"{name}.{key}", np.tile(value, self.copies))
            for key, value in values.items()
        }
        size = self.plan.size(name) * self.copies
        row: dict[str, Any] = {"parameters": parameters, "reset_interval": reset, "reset_offset": offset + 1}
        if complete:
            row |= {"subtract": neuron.reset == "subtract", "refractory_steps": neuron.refractory_steps}
        self.add(name, "complete_lif" if complete else "lif", size, **row)

    def add_recorders(self, name: str, record: set[str]) -> None:
        """Record spikes, which are always counted, the states in `record`, and the potential of a readout as its output."""
        graph = self.plan.graph
        if graph[name].spikes:
            self.record(name, "spikes", "bool")
        if "v" in record or (not graph[name].spikes and name == graph.output):
            self.record(name, "v", "int32")
        if "u" in record:
            self.record(name, "u", "int32")

    def record(self, name: str, what: str, dtype: str, into: str = "") -> None:
        """Add a recorder, behind the population, or with the name `into` for synapses to end in."""
        kind = "state_recorder" if what in ("v", "u") else "port_recorder"
        file = f"{self.key}-{len(self.recordings)}.npy"
        recorder = self.add(into or f"{name}/{what}", kind, self.plan.size(name) * self.copies, dtype=dtype, file=file)
        if not into:
            self.connections.append((f"{name}.{what}" if kind == "state_recorder" else name, recorder))
        self.recordings.append(
            Recording(
                layer=name,
                what=what,
                file=file,
                samples=self.samples,
                copies=self.copies,
                offset=self.plan.offsets[name],
            )
        )

    # -------------------------------------------------------------------------------------------- sources and synapses

    def connect(self, target: str, incoming: InputConnection) -> None:
        """Add the processes between a source and a population."""
        offset = self.plan.offsets[target]
        if incoming.injected:
            self.connections.append((self.source(incoming.source, incoming.delay, offset), target))
            return
        as_conv = incoming.conv is not None and self.copies == 1
        if not incoming.max_gain.any() or not (as_conv or incoming.planes):  # all weights are zero
            return
        source = self.source(incoming.source, incoming.delay, offset - 1) if incoming.from_host else incoming.source
        bits = _message_bits(self.sources[incoming.source]) if incoming.from_host else 0
        delay = self.plan.synaptic_delay(target, incoming)
        suffix = (f" +{incoming.delay}" if incoming.delay else "") + (f" >>{incoming.shift}" if incoming.shift else "")
        if incoming.conv is not None:
            suffix += f" by {incoming.conv.layer}"
        name = unused_name(f"{target}/from {incoming.source}{suffix}", self.rows)
        if incoming.conv is not None and as_conv:
            self.add_conv(name, source, target, incoming.conv, bits, delay)
            return
        for i, plane in enumerate(incoming.planes):
            self.add_synapse(name + (f" #{i}" if i else ""), source, target, plane, bits, delay)

    def source(self, name: str, delay: int, offset: int) -> str:
        """Add a RingBuffer that plays a source, shifted by `delay` steps within a sample, from Lava's step `offset` on."""
        row = f"{name}/from step {offset}" + (f" +{delay}" if delay else "")
        if row not in self.rows:
            self.play(row, apply_delay(self.sources[name], delay), offset)
        return row

    def play(self, row: str, value: Array, offset: int) -> None:
        """Add a RingBuffer with values (T, samples, n), which Lava takes with time last."""
        steps, samples, n = value.shape
        per_copy = samples // self.copies
        data = np.zeros((self.copies * n, self.steps), np.int32)
        ordered = value.reshape(steps, self.copies, per_copy, n).transpose(1, 3, 2, 0)
        data[:, offset : offset + per_copy * steps] = ordered.reshape(self.copies * n, per_copy * steps)
        self.add(row, "source", self.copies * n, data=self.keep(row, data))

    def connect_constants(self, target: str) -> None:
        """Add the biases of synapses: a source that sends the place values of their digits, and their weights."""
        constants = self.plan.constants[target]
        weights, played = [], []
        for constant in constants:
            constant_digits, places = split_into_digits(constant.value)
            weights.append(constant_digits)
            ones = np.ones((self.graph_steps, self.samples.stop - self.samples.start, 1), np.int64)
            played.append(apply_delay(ones, constant.delay) * places)
        if not constants:
            return
        matrix = csr_matrix(np.concatenate(weights, axis=1))
        values = np.concatenate(played, axis=2)
        for i, plane in enumerate(split_into_planes(matrix)):
            if not i:
                self.play(f"{target}/one", values, self.plan.offsets[target] - 1)
            name = f"{target}/from bias" + (f" #{i}" if i else "")
            self.add_synapse(name, f"{target}/one", target, plane, _message_bits(values), 0)

    def add_synapse(self, name: str, source: str, target: str, plane: Plane, bits: int, delay: int) -> None:
        """Add Dense or Sparse, behind a delay line where that is faster than delaying every weight."""
        weights = plane.weights if self.copies == 1 else kron(identity(self.copies, np.int32), plane.weights, "csr")
        entries = weights.shape[0] * weights.shape[1]
        dense = 2 * weights.nnz >= entries and entries <= (DELAYED_WEIGHTS // (delay + 1) if delay else DENSE_WEIGHTS)
        if delay and not dense:
            source, delay = self.delay_line(source, delay), 0
        options = {"weight_exp": plane.exponent, "delay": delay, "synapses": int(weights.nnz)}
        if dense:
            key = self.keep(name, weights.toarray().astype(np.int32))
            self.add(name, "dense", weights.shape[0], weights=key, message_bits=bits, **options)
        else:
            # Lava multiplies sparse weights by messages five times faster than it gathers columns for binary spikes.
            self.add_sparse(name, weights, message_bits=bits or 1, **options)
        self.connections += [(source, name), (name, target)]

    def add_conv(self, name: str, source: str, target: str, conv: Convolution, bits: int, delay: int) -> None:
        """Add Conv, behind a delay line where it has a delay."""
        source = self.delay_line(source, delay) if delay else source
        row, weights = describe_conv(conv)
        size = int(np.prod(conv.synapse.output_shape(conv.input_shape)))
        self.add(name, "conv", size, weights=self.keep(name, weights), message_bits=bits, **row)
        self.connections += [(source, name), (name, target)]

    def add_sparse(self, name: str, weights: Any, **options: Any) -> None:
        """Add Sparse with its three arrays."""
        for part, dtype in (("data", np.int32), ("indices", np.int32), ("indptr", np.int32)):
            self.keep(f"{name}.{part}", getattr(weights, part).astype(dtype))
        key = f"{self.key}:{name}"
        self.add(name, "sparse", weights.shape[0], weights=key, shape=list(weights.shape), **options)

    def delay_line(self, source: str, delay: int) -> str:
        """Add a synapse of ones that delays spikes: its own step counts, the others are its delay."""
        name = f"{source}/late by {delay}"
        if name not in self.rows:
            size = self.rows[source]["size"] if source in self.rows else self.plan.size(source) * self.copies
            ones = identity(size, np.int32, "csr")
            self.add_sparse(name, ones, weight_exp=0, delay=delay - 1, synapses=size, message_bits=1)
            self.connections.append((source, name))
        return name


def _message_bits(values: Array) -> int:
    """Return the bits of a source's messages: 0 for spikes, as Lava has it, else with the sign."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    return 0 if low >= 0 and high <= 1 else max(-low, high).bit_length() + 1
