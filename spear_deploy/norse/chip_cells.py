"""Neurons with a chip's integers forwards and floating-point gradients backwards.

forwards    sums of weights in whole numbers ─► the chip's update ─► spikes and v, as the integer simulator has them
backwards   the Norse cell of the layer at this v; what the chip's update adds to it has no gradient

A chip that sends several spikes in a step passes several thresholds; the surrogate gradient is taken at the last of them. Beyond
the rounded weights this learns with the order of decay and input, with truncation, clipped states and late spikes, for each
family whose update is in the simulator. On Xylo, whose layers start before their first input arrives (`XyloLIF.early_steps`), the
bias acts in these steps; spikes that it makes other layers send in them are left out.

A chip that takes spike after spike (`EventCells`) passes a threshold within a step as often as the sum of the step holds it, and
loses little at each: the number of spikes is learnt as a rounded ramp of the sum,

    d n / d sum = clip(1 + (v + sum) / v_threshold, 0, 1) / v_threshold
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from spear_deploy.network import Array, find_drive
from spear_deploy.network.stored_neurons import StoredNeurons
from spear_deploy.norse.cells import CellState, NeuronModule, Tensor
from spear_deploy.norse.network import NorseNetwork
from spear_deploy.simulator import neurons

BLOCK_VALUES = 1 << 18
"""Values of a layer that its chip's neurons take at a time."""


def use_chip_neurons(network: NorseNetwork, stored: Mapping[str, StoredNeurons]) -> None:
    """Let layers of a network emit what the chip's neurons do, in place.

    Args:
        network: its weights run on the values of the integers (`straight_through.round_values`).
        stored: by neuron layer.
    """
    for name, layer in stored.items():
        module = network.module_of(name)
        assert module.neuron is not None
        module.by_event = find_drive(layer.neuron) == "events"
        if module.by_event:
            module.neuron = EventCells(module.neuron, layer, module)
            continue
        weights = {source: network.module_of(source) for source in layer.biases}
        module.neuron = ChipCells(module.neuron, layer, weights)


class ChipCells(torch.nn.Module):
    """The neurons of one layer; see the module."""

    def __init__(self, cells: NeuronModule, stored: StoredNeurons, weights: Mapping[str, torch.nn.Module]) -> None:
        super().__init__()
        self.cells, self.stored, self.shape = cells, stored, cells.shape
        self._weights: list[tuple[str, Any]] = list(weights.items())  # in a list: they are children of the network
        self._gain = np.asarray(stored.gain, np.float64)
        self._biases: Array = np.zeros(())
        self._neuron: Any = stored.neuron

    def start(self, like: Tensor) -> CellState:
        """Return the state before the first step: of the Norse cell and of the chip."""
        values = {name: module.synapse.bias.detach().cpu().numpy() for name, module in self._weights}
        self._neuron = self.stored.hold_biases(values)
        self._biases = self.stored.sum_biases(values) if values else np.zeros(())
        chip = neurons.start(self._neuron, len(like), self.shape, 1.0, np.int64)
        silence = np.zeros((len(like), *self.shape), np.int64)
        for _ in range(getattr(self._neuron, "early_steps", 0)):
            neurons.step(self._neuron, chip, silence)
        return self.cells.start(like), chip

    def step(self, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        """Advance one step: what drives the neurons (B, *shape) → number of spikes or potential (B, *shape), state."""
        before, chip = state
        emitted, v = self._run_chip(x.detach()[None], chip)
        if not torch.is_grad_enabled():
            return emitted[0], state
        out, after = self._pass_gradient(x, before, emitted[0], v[0])
        return _put_in_place(out, emitted[0], spikes=self.spikes), (after, chip)

    def forward(self, drive: Tensor) -> Tensor:
        """Run all steps from the initial state: (T, B, *shape) → numbers of spikes or potential of every step."""
        state, chip = self.start(drive[0])
        emitted, potentials = self._run_chip(drive.detach(), chip)
        if not torch.is_grad_enabled():
            return emitted
        several = bool((emitted > 1).any())
        outputs = []
        for x, sent, v in zip(drive.unbind(0), emitted.unbind(0), potentials.unbind(0), strict=True):
            out, state = self._pass_gradient(x, state, sent, v, several=several)
            outputs.append(out)
        return _put_in_place(torch.stack(outputs), emitted, spikes=self.spikes)

    @property
    def spikes(self) -> bool:
        """Whether the neurons send spikes, not potentials."""
        return self._neuron.v_threshold is not None

    def _run_chip(self, drive: Tensor, chip: neurons.NeuronState) -> tuple[Tensor, Tensor]:
        """Return what the chip emits and its v, in floating-point units, (T, B, *shape); without gradient the first alone is set.

        Some steps at a time, so that their values stay in the cache.
        """
        values = drive.cpu().numpy()
        sent, held = np.empty(values.shape, np.float32), np.empty(values.shape, np.float32)
        spikes, needs_v = self.spikes, torch.is_grad_enabled()
        block = max(1, BLOCK_VALUES // max(values[0].size, 1))
        for first in range(0, len(values), block):
            part = slice(first, first + block)
            sums: Array = values[part] - np.asarray(self._biases, np.float64)
            sums *= self._gain
            whole = np.rint(sums, out=sums).astype(np.int64)
            emitted, v = np.empty_like(whole), np.empty_like(whole)
            neurons.run(self._neuron, chip, whole, emitted, v)
            if spikes:
                sent[part] = emitted
            if needs_v or not spikes:
                np.divide(v, self.stored.unit, out=sums)
                held[part] = np.add(self.stored.level, sums, out=sums)
        result, potentials = (torch.from_numpy(array).to(drive.device) for array in (sent if spikes else held, held))
        return result, potentials

    def _pass_gradient(
        self, x: Tensor, state: CellState, sent: Tensor, v: Tensor, *, several: bool = True
    ) -> tuple[Tensor, CellState]:
        """Step the Norse cell, and put the chip's v in place of its own.

        Args:
            x: what drives the neurons.
            state: of the cell before this step.
            sent: what the chip emits.
            v: of the chip.
            several: whether some neuron may have sent more than one spike.
        """
        p = self.cells.cell.p
        if several and hasattr(p, "v_th"):
            kept = 1 - (self.cells.cell.dt * p.tau_mem_inv if hasattr(p, "tau_mem_inv") else 0.0)
            passed = (sent - 1).clamp(min=0) * (p.v_th / torch.as_tensor(kept).clamp(min=2.0**-8))
            state = state._replace(v=state.v - passed)
        out, after = self.cells.step(x, state)
        return out, after._replace(v=after.v + (v - after.v).detach())


class _Replacement(torch.autograd.Function):
    """One tensor in place of another, which the gradient goes to."""

    @staticmethod
    def forward(ctx: Any, replaced: Tensor, values: Tensor) -> Tensor:
        return values.view_as(replaced)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _put_in_place(out: Tensor, sent: Tensor, *, spikes: bool) -> Tensor:
    """Return what a chip emits, with the gradient of what a cell does: of spikes exactly, of potentials up to rounding."""
    if not spikes:
        return out + (sent - out).detach()
    replaced: Tensor = _Replacement.apply(out, sent)
    return replaced


class EventCells(torch.nn.Module):
    """The neurons of one layer that take spike after spike; see the module."""

    def __init__(self, cells: NeuronModule, stored: StoredNeurons, weights: torch.nn.Module) -> None:
        super().__init__()
        self.cells, self.stored, self.shape = cells, stored, cells.shape
        self._weights: list[Any] = [weights]  # in a list: they are the parent of this module

    def send_events(self, drive: Tensor, x: Tensor) -> Tensor:
        """Run all steps: sums of weights (T, B, *shape) and the spikes that make them (T, B, *input) → numbers of spikes.

        The sums carry the gradient, the spikes the result.
        """
        stored, neuron = self.stored, self.stored.neuron
        gain = np.asarray(stored.gain, np.float64)
        weight = self._weights[0].synapse.weight.detach().cpu().numpy().astype(np.float64)
        state = neurons.start(neuron, drive.shape[1], self.shape, 1.0, np.int64)
        state.constants["weight"] = np.rint(weight * (gain.reshape(-1, 1) if gain.ndim else gain)).astype(np.int64).T
        spikes = np.rint(x.detach().cpu().numpy()).astype(np.int64).reshape(*x.shape[:2], -1)
        emitted, v = np.empty(drive.shape, np.int64), np.empty(drive.shape, np.int64)
        neurons.run(neuron, state, spikes, emitted, v)
        sent = torch.from_numpy(emitted.astype(np.float32)).to(drive.device)
        if not drive.requires_grad:
            return sent
        before = torch.from_numpy(np.concatenate([np.zeros_like(v[:1]), v[:-1]]).astype(np.float32)).to(drive.device)
        factor = torch.from_numpy(np.asarray(gain / neuron.v_threshold, np.float32)).to(drive.device)
        threshold = torch.from_numpy(np.asarray(neuron.v_threshold, np.float32)).to(drive.device)
        ramp = factor * drive * (1 + before / threshold + factor * drive).detach().clamp(0, 1)
        return sent + (ramp - ramp.detach())  # exactly what was sent
