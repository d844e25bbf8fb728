"""PyNN script that runs the network in the file beside it.

    python NET.py --input spikes.npy --out recorded.npz [--backend spiNNaker|brian2] [--together SAMPLES]

`NET.npz` has the populations and, for each projection, lists of source, target and weight, as sPyNNaker takes them. The input is
0 or 1, (T, samples, neurons) or (T, samples, *shape). Recorded are spikes (T, samples, neurons) by population, v of a readout in
the network's units, each population from its own first step on: a spike takes `delay` steps.

sPyNNaker delivers a spike `delay` steps later, and its synapses act as the mean of their current over a step. Brian2 delivers it
one step after that, integrates exactly, and forgets a jump of v that meets a reset. So that it computes the same, three things
differ there: delays are one step shorter, weights are multiplied by the ratio of the two responses, and IF_curr_delta is an
IF_curr_exp with a time constant of 1/64 step. A membrane has 1/32 step at least. No pickle is loaded.
"""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

PULSE = 1 / 64
"""Time constant of a current that acts in one step alone, in steps."""
APART = 2.0**-26
"""Least distance of two time constants, of which Brian2's exact solution divides by the difference."""
SHORTEST = 1 / 32
"""Least time constant of a membrane in Brian2, in steps: nothing is left of a shorter one's response at the end of a step."""


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description and the arrays of a file."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(str(arrays.pop("description"))), arrays


def find_parameters(number: int, cell: str, arrays: dict[str, Any], *, is_brian2: bool, dt: float) -> tuple[dict[str, Any], Any]:
    """Return the parameters of a population, and what its incoming weights are multiplied by."""
    names = ("tau_m", "cm", "v_rest", "v_reset", "v_thresh", *(("tau_syn",) if cell == "IF_curr_exp" else ()))
    values = {name: arrays[f"population{number}.{name}"] for name in names}
    values |= {"tau_refrac": 0.0, "i_offset": 0.0}
    tau_syn, gain = values.pop("tau_syn", None), 1.0
    if is_brian2:
        tau_m = np.maximum(values["tau_m"], SHORTEST * dt)
        cm = tau_m * (values["cm"] / values["tau_m"])
        values |= {"tau_m": tau_m, "cm": cm}
        kept = np.exp(-dt / tau_m)
        wanted = -np.expm1(-dt / tau_m) * tau_m / cm  # of a current of 1 that lasts for a step
        if tau_syn is None:
            tau_syn, wanted = np.full_like(tau_m, PULSE * dt), wanted / dt
        else:
            wanted = wanted * tau_syn / dt * -np.expm1(-dt / tau_syn)
            tau_syn = np.where(np.abs(tau_syn / tau_m - 1) < APART, tau_m * (1 + APART), tau_syn)
        rates = 1 / tau_syn - 1 / tau_m
        gain = wanted / (kept * -np.expm1(-dt * rates) / rates / cm)
    if tau_syn is not None:
        values |= {"tau_syn_E": tau_syn, "tau_syn_I": tau_syn}
    return values, gain


def build(sim: Any, description: dict[str, Any], arrays: dict[str, Any], x: Any, *, is_brian2: bool) -> list[Any]:
    """Build populations and projections for samples side by side, each with neurons of its own; return the populations."""
    dt, (steps, copies, inputs) = description["timestep_ms"], x.shape
    sim.setup(timestep=dt)
    kind = importlib.import_module("pyNN.parameters").Sequence if is_brian2 else list
    times = [kind(np.flatnonzero(x[:, sample, neuron]) * dt) for sample in range(copies) for neuron in range(inputs)]
    sources = {"input": sim.Population(len(times), sim.SpikeSourceArray(spike_times=times), label="input")}
    ticks = steps + max(row["offset"] for row in description["populations"])
    for name, count in (("bias", ticks), ("start", 1)):  # one spikes in every step, one in the first alone
        if any(row["source"] == name for row in description["projections"]):
            times = [float(tick * dt) for tick in range(count)]
            sources[name] = sim.Population(1, sim.SpikeSourceArray(spike_times=times), label=name)
    populations, gains = [], []
    for number, row in enumerate(description["populations"]):
        values, gain = find_parameters(number, row["cell"], arrays, is_brian2=is_brian2, dt=dt)
        values = {name: np.tile(value, copies) if np.ndim(value) else value for name, value in values.items()}
        cell = getattr(sim, "IF_curr_exp" if is_brian2 else row["cell"])
        population = sim.Population(row["size"] * copies, cell(**values), label=row["name"])
        population.initialize(v=values["v_rest"])
        population.record("v" if row["readout"] else "spikes")
        populations.append(population)
        gains.append(np.broadcast_to(gain, row["size"]))
    for number, row in enumerate(description["projections"]):
        source, target, weight = (arrays[f"projection{number}.{name}"] for name in ("source", "target", "weight"))
        is_layer, size = isinstance(row["source"], int), description["populations"][row["target"]]["size"]
        width = description["populations"][row["source"]]["size"] if is_layer else inputs if row["source"] == "input" else 0
        weight = weight * gains[row["target"]][target]
        delay = np.full(len(weight), (row["delay"] - is_brian2) * dt)
        rows = np.concatenate([np.stack([source + n * width, target + n * size, weight, delay], 1) for n in range(copies)])
        for receptor, chosen in (("excitatory", rows[:, 2] > 0), ("inhibitory", rows[:, 2] < 0)):
            if chosen.any():
                sim.Projection(
                    populations[row["source"]] if is_layer else sources[row["source"]],
                    populations[row["target"]],
                    sim.FromListConnector(rows[chosen], column_names=["weight", "delay"]),
                    sim.StaticSynapse(),
                    receptor_type=receptor,
                )
    return populations


def run(sim: Any, description: dict[str, Any], arrays: dict[str, Any], x: Any, *, is_brian2: bool = False) -> dict[str, Any]:
    """Run samples side by side, x (T, samples, inputs) of 0 and 1; return what is recorded, by population."""
    dt, (steps, copies, _), rows = description["timestep_ms"], x.shape, description["populations"]
    populations = build(sim, description, arrays, x, is_brian2=is_brian2)
    sim.run((steps + max(row["offset"] for row in rows) + 1) * dt)
    recorded = {}
    for row, population in zip(rows, populations, strict=True):
        segment = population.get_data().segments[0]
        values = np.full((steps, copies * row["size"]), np.nan if row["readout"] else 0.0)
        if row["readout"]:  # the first sample is that before the first step; a machine that only plans gives none
            v = np.asarray(segment.filter(name="v")[0].magnitude)[row["offset"] + 1 :][:steps]
            values[: len(v)] = v / row["scale"]
        for neuron, train in enumerate(segment.spiketrains):
            at = np.rint(np.asarray(train.magnitude) / dt).astype(int) - row["offset"]
            values[at[(at >= 0) & (at < steps)], neuron] = 1
        recorded[row["name"] + (".v" if row["readout"] else ".spikes")] = values.reshape(steps, copies, row["size"])
    sim.end()
    return recorded


def main() -> None:
    """Run the network on an input file, and write what it does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="spikes of 0 and 1, .npy, (T, samples, *shape)")
    parser.add_argument("--out", type=Path, required=True, help="the .npz that gets what is recorded")
    parser.add_argument("--network", type=Path, default=Path(__file__).with_suffix(".npz"), help="the file beside the script")
    parser.add_argument("--backend", default="spiNNaker", choices=["spiNNaker", "brian2"])
    parser.add_argument("--together", type=int, default=1, help="samples that run side by side")
    options = parser.parse_args()
    description, arrays = read(options.network)
    x = np.load(options.input, allow_pickle=False)
    x = x.reshape(*x.shape[:2], -1)
    if x.shape[2] != description["inputs"] or not np.isin(x, (0, 1)).all():
        parser.error(
            f"{options.input}: {x.shape[2]} inputs, the network takes {description['inputs']}, of 0 and 1; change the file"
        )
    is_brian2 = options.backend == "brian2"
    if is_brian2:
        brian2 = importlib.import_module("brian2")
        brian2.prefs.codegen.target = "numpy"
        brian2.defaultclock.dt = description["timestep_ms"] * brian2.ms  # of spike sources
    sim = importlib.import_module(f"pyNN.{options.backend}")
    groups = range(0, x.shape[1], options.together)
    parts = [run(sim, description, arrays, x[:, n : n + options.together], is_brian2=is_brian2) for n in groups]
    np.savez_compressed(options.out, **{name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]})


if __name__ == "__main__":
    main()
