"""Runs of integer networks in two emulators of Loihi, nengo-loihi's and Brian2Loihi; in an environment that has one of them.

    python loihi_emulators.py nengo_loihi|brian2_loihi JOBS.npz SPIKES.npz

JOBS holds for each network n `n.weights<k>` (outputs, inputs), `n.loop<k>` (outputs, outputs; size 0 without feedback),
`n.numbers<k>` (decay of u, decay of v, threshold) of each layer k, and `n.x` (T, inputs). SPIKES gets `n.spikes<k>`
(T, outputs), each layer from the step on in which the first input can reach it: both emulators deliver a spike one step later.
"""

from __future__ import annotations

import sys

import numpy as np

UNIT = 64


def read_layers(jobs: dict, n: int) -> list:
    """Return (weights, loop, decay of u, decay of v, threshold) of each layer."""
    layers, k = [], 0
    while f"{n}.weights{k}" in jobs:
        decay_u, decay_v, threshold = (int(value) for value in jobs[f"{n}.numbers{k}"])
        layers.append((jobs[f"{n}.weights{k}"], jobs[f"{n}.loop{k}"], decay_u, decay_v, threshold))
        k += 1
    return layers


def run_nengo_loihi(layers: list, x: np.ndarray) -> list:
    """Run integer blocks; nengo-loihi's decay of u is one less than the number that acts."""
    from nengo_loihi.block import Axon, LoihiBlock, Synapse
    from nengo_loihi.builder import Model
    from nengo_loihi.emulator.interface import EmulatorInterface
    from nengo_loihi.inputs import SpikeInput

    model, blocks = Model(dt=0.001), []

    def connect(source: object, block: object, weights: np.ndarray) -> None:
        synapse = Synapse(weights.shape[1])
        synapse._set_weights_indices(list((UNIT * weights.T).astype(np.int32)), weight_dtype=np.int32, compression=3)
        block.add_synapse(synapse)
        axon = Axon(weights.shape[1])
        axon.target = synapse
        axon.set_compartment_axon_map(np.arange(weights.shape[1]))
        source.add_axon(axon)

    source = first = SpikeInput(x.shape[1])
    model.add_input(first)
    for weights, loop, decay_u, decay_v, threshold in layers:
        block = LoihiBlock(len(weights))
        c = block.compartment
        c.decay_u, c.decay_v = (np.full(len(weights), value, np.int32) for value in (decay_u - 1, decay_v))
        c.vth, c.bias = np.full(len(weights), UNIT * threshold, np.int32), np.zeros(len(weights), np.int32)
        c.scale_u = c.scale_v = False
        c.vmin, c.vmax = -(2**23) + 1, 2**23 - 1
        c.refract_delay[:] = 1
        connect(source, block, weights)
        if loop.size:
            connect(block, block, loop)
        model.add_block(block)
        blocks.append(block)
        source = block
    for t in range(len(x)):
        first.add_spikes(t + 1, list(np.flatnonzero(x[t])))
    rows: list = [[] for _ in layers]
    with EmulatorInterface(model, seed=0) as emulator:
        for _ in range(len(x) + len(layers)):
            emulator.step()
            for block, row in zip(blocks, rows, strict=True):
                row.append(emulator.compartment.spiked[emulator.block_info.slices[block]].copy())
    return [np.array(row)[k + 1 :][: len(x)] for k, row in enumerate(rows)]


def run_brian2_loihi(layers: list, x: np.ndarray) -> list:
    """Run groups of neurons with mixed weights of 8 bits."""
    import brian2
    from brian2_loihi import LoihiNetwork, LoihiNeuronGroup, LoihiSpikeGeneratorGroup, LoihiSpikeMonitor, LoihiSynapses

    brian2.prefs.codegen.target = "numpy"
    steps, ids = np.nonzero(x)
    parts, monitors = [LoihiSpikeGeneratorGroup(x.shape[1], ids, steps)], []

    def connect(source: object, target: object, weights: np.ndarray) -> None:
        to, of = np.nonzero(weights)
        synapses = LoihiSynapses(source, target, sign_mode=1)
        if len(to):
            synapses.connect(i=of, j=to)
            synapses.w = weights[to, of].astype(int)
            parts.append(synapses)

    source = parts[0]
    for weights, loop, decay_u, decay_v, threshold in layers:
        group = LoihiNeuronGroup(len(weights), threshold_v_mant=threshold, decay_v=decay_v, decay_I=decay_u)
        monitor = LoihiSpikeMonitor(group)
        parts.extend((group, monitor))
        monitors.append((monitor, len(weights)))
        connect(source, group, weights)
        if loop.size:
            connect(group, group, loop)
        source = group
    LoihiNetwork(*parts).run(len(x) + len(layers) + 1)
    result = []
    for k, (monitor, size) in enumerate(monitors):
        spikes = np.zeros((len(x) + len(layers) + 2, size), bool)
        spikes[np.asarray(monitor.t).round().astype(int), np.asarray(monitor.i)] = True
        result.append(spikes[k:][: len(x)])  # its generator sends at the start of a step, its neurons at the end
    return result


def main() -> None:
    """Run all networks."""
    emulator, jobs_file, spikes_file = sys.argv[1:]
    with np.load(jobs_file) as file:
        jobs = dict(file)
    run = {"nengo_loihi": run_nengo_loihi, "brian2_loihi": run_brian2_loihi}[emulator]
    spikes, n = {}, 0
    while f"{n}.x" in jobs:
        for k, values in enumerate(run(read_layers(jobs, n), jobs[f"{n}.x"])):
            spikes[f"{n}.spikes{k}"] = values
        n += 1
    np.savez(spikes_file, **spikes)


if __name__ == "__main__":
    main()
