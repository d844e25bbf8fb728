"""Time of the simulator beside frameworks in one run, at 10 % activity, on the networks of `simulation`.

    git worktree add EARLIER 5803f6a    # the simulator before compiled kernels
    PYTHONPATH=FOLDER/spikingjelly python -m tests.benchmarks.simulation_frameworks --out DIR --earlier EARLIER

Networks of one shape on all sides: ours in Loihi's integers, with compiled kernels and with numpy, the frameworks' in float32
with their neuron of two states or, where the multi-step one has a single state, of one; the synapses alone are torch's.
Sides take turns with one thread each; medians of the repeats count. Ours with two threads runs in a process of its own, as does
the version in the folder EARLIER, which has no network of few weights; the spikes of compiled kernels and numpy are compared.
Frameworks that are not installed are left out by name.

Writes `simulation_frameworks.json` (every measurement) and `simulation_frameworks.md`. A row that is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from spear_deploy.network import Dense, Layer, LoihiLIF
from spear_deploy.network.graph import chain
from tests.benchmarks.simulation import conv_network, dense_network


def thin_network():
    """Return one dense layer of which 1 % of the weights are not zero."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (4096, 4096)) * (rng.random((4096, 4096)) < 0.01)
    neuron = LoihiLIF(decay_u=1024, decay_v=128, v_threshold=1024)
    return chain([Layer(name="thin", synapse=Dense(weight=weight), neuron=neuron)], input_shape=(4096,))


ROWS = {  # name: (network, steps at batch 1, steps at batch 32)
    "4 × 256 dense": (lambda: dense_network(4, 256), 512, 64),
    "3 × 1024 dense": (lambda: dense_network(3, 1024), 128, 32),
    "conv 32×32×64→64, 3×3": (conv_network, 16, 4),
    "4096 × 4096, 1 % of weights": (thin_network, 64, 8),
}
OURS, PLAIN, TWO, SYNAPSES = "ours", "ours, numpy", "ours, two threads", "synapses alone"
EARLIER = "ours, 24 November"
SIDES = (OURS, PLAIN, TWO, EARLIER, "SpikingJelly multi-step", "Norse", "snnTorch", SYNAPSES)
EARLIER_BUILDERS = {
    "4 × 256 dense": "dense_network(4, 256)",
    "3 × 1024 dense": "dense_network(3, 1024)",
    "conv 32×32×64→64, 3×3": "conv_network()",
}
"""How the version of EARLIER makes a network, by name."""


def choose_kernels(compiled: bool) -> None:
    from spear_deploy.simulator import compiled_kernels, kernel_choice

    kernel_choice._loaded[:] = [compiled_kernels if compiled else None]


def torch_layers(graph) -> list:
    """Return torch's layers of a network, with weights that make about a tenth of the neurons spike."""
    import torch

    made = []
    for layer in graph.layers:
        weight = torch.from_numpy(layer.synapse.weight.astype(np.float32))
        dense = weight.ndim == 2
        module = torch.nn.Linear(*weight.T.shape, bias=False) if dense else torch.nn.Conv2d(64, 64, 3, padding=1, bias=False)
        module.weight.data = weight / float(layer.neuron.v_threshold)
        made.append(module)
    return made


def on_spikingjelly(graph, x) -> Callable[[], object]:
    import torch
    from spikingjelly.activation_based import functional, layer, neuron

    parts = []
    for module in torch_layers(graph):
        parts += [layer.SeqToANNContainer(module), neuron.LIFNode(tau=8.0, step_mode="m", detach_reset=True)]
    network = torch.nn.Sequential(*parts)
    drive = torch.from_numpy(x).float()

    def run():
        functional.reset_net(network)
        with torch.no_grad():
            return network(drive)

    return run


def on_norse(graph, x) -> Callable[[], object]:
    import norse.torch as norse
    import torch

    layers = torch_layers(graph)
    cells = [norse.LIFBoxFeedForwardCell() if hasattr(norse, "LIFBoxFeedForwardCell") else norse.LIFCell() for _ in layers]
    drive = torch.from_numpy(x).float()

    def run():
        values = drive
        with torch.no_grad():
            for layer, cell in zip(layers, cells, strict=True):
                weighed = layer(values.flatten(0, 1)).unflatten(0, values.shape[:2])
                state, emitted = None, []
                for step in weighed:
                    spikes, state = cell(step, state)
                    emitted.append(spikes)
                values = torch.stack(emitted)
        return values

    return run


def on_snntorch(graph, x) -> Callable[[], object]:
    import snntorch
    import torch

    layers = torch_layers(graph)
    neurons = [snntorch.Synaptic(alpha=0.75, beta=0.97) for _ in layers]
    drive = torch.from_numpy(x).float()

    def run():
        states = [neuron.reset_mem() for neuron in neurons]
        emitted = []
        with torch.no_grad():
            for step in drive:
                spikes = step
                for i, (layer, neuron) in enumerate(zip(layers, neurons, strict=True)):
                    spikes, *states[i] = neuron(layer(spikes), *states[i])
                emitted.append(spikes)
        return torch.stack(emitted)

    return run


def on_synapses(graph, x) -> Callable[[], object]:
    import torch

    layers = torch_layers(graph)
    drive = torch.from_numpy(x).float().flatten(0, 1)

    def run():
        with torch.no_grad():
            return [layer(drive) for layer in layers]

    return run


def on_simulator(graph, x, compiled: bool) -> Callable[[], object]:
    from spear_deploy.simulator import simulate

    def run():
        choose_kernels(compiled)
        return simulate(graph, x).output

    return run


MAKERS = {
    OURS: lambda graph, x: on_simulator(graph, x, True),
    PLAIN: lambda graph, x: on_simulator(graph, x, False),
    "SpikingJelly multi-step": on_spikingjelly,
    "Norse": on_norse,
    "snnTorch": on_snntorch,
    SYNAPSES: on_synapses,
}


def make_row(name: str, batch: int) -> tuple:
    build, *steps = ROWS[name]
    graph = build()
    x = np.random.default_rng(1).random((steps[batch > 1], batch, *graph.input_shape)) < 0.1
    return graph, x


def measure(name: str, batch: int, repeats: int, earlier: Path | None) -> dict:
    """Return µs a step and sample of each side, in turns."""
    graph, x = make_row(name, batch)
    import torch

    torch.set_num_threads(1)
    runs, missing = {}, {}
    for side, make in MAKERS.items():
        try:
            runs[side] = make(graph, x)
            runs[side]()
        except ImportError as error:
            missing[side] = str(error)
            runs.pop(side, None)
    times: dict[str, list[float]] = {side: [] for side in runs}
    for _ in range(repeats):
        for side, run in runs.items():
            begin = time.perf_counter()
            run()
            times[side].append(1e6 * (time.perf_counter() - begin) / len(x) / batch)
        times.setdefault(TWO, []).append(run_in_own_process(name, batch))
        if earlier is not None and name in EARLIER_BUILDERS:
            times.setdefault(EARLIER, []).append(run_earlier(earlier, name, batch))
    equal = bool(np.array_equal(runs[OURS](), runs[PLAIN]()))
    return {"network": name, "batch": batch, "steps": len(x), "us": times, "equal": equal, "missing": missing}


def run_in_own_process(name: str, batch: int) -> float:
    """Return µs a step and sample of ours with two threads."""
    code = f"from tests.benchmarks.simulation_frameworks import time_ours; print(time_ours({name!r}, {batch}))"
    return _run_python(code, threads=2)


def run_earlier(folder: Path, name: str, batch: int) -> float:
    """Return µs a step and sample of the simulator in a folder, which times itself as `time_ours` does."""
    steps = ROWS[name][1 + (batch > 1)]
    code = f"""
import time
from statistics import median
import numpy as np
from tests.benchmarks.simulation import conv_network, dense_network
from spear_deploy.simulator import simulate
graph, times = {EARLIER_BUILDERS[name]}, []
x = np.random.default_rng(1).random(({steps}, {batch}, *graph.input_shape)) < 0.1
simulate(graph, x)
for _ in range(3):
    begin = time.perf_counter()
    simulate(graph, x)
    times.append(time.perf_counter() - begin)
print(1e6 * median(times) / {steps} / {batch})
"""
    return _run_python(code, threads=1, folder=folder)


def _run_python(code: str, *, threads: int, folder: Path | None = None) -> float:
    """Return the number that a program prints, run with so many threads; `folder`: whose modules it imports, where not ours."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    if folder is not None:
        environment |= {"PYTHONPATH": str(folder.resolve())}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True, check=True)
    return float(done.stdout)


def time_ours(name: str, batch: int) -> float:
    graph, x = make_row(name, batch)
    run, times = on_simulator(graph, x, True), []
    run()
    for _ in range(3):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return 1e6 * median(times) / len(x) / batch


def write_table(rows: list[dict]) -> str:
    """Return the page: medians, and ratios to ours."""
    lines = [
        "# The simulator beside frameworks",
        "",
        "Microseconds a step and sample, one thread, 10 % activity, sides in turns: medians of one run, beside other work that",
        "lengthens all sides. Ours is the simulator with compiled kernels (the extra `fast`), on Loihi's integers; the others",
        "compute in float32. *Synapses alone*: torch's sums of weights, without neurons. *24 November*: the simulator of that",
        "day, before it had compiled kernels, in a process of its own. `python -m tests.benchmarks.simulation_frameworks`, raw",
        "data: [simulation_frameworks.json](simulation_frameworks.json).",
        "",
    ]
    lines += [
        f"| network | batch | {' | '.join(SIDES)} | numpy / ours | 24 November / ours | SpikingJelly / ours |",
        "|---|--:|" + "--:|" * (len(SIDES) + 3),
    ]
    for row in rows:
        us = {side: median(times) for side, times in row["us"].items()}
        cells = [f"{us[side]:.1f}" if side in us else "–" for side in SIDES]
        ratios = [f"{us[side] / us[OURS]:.1f}" if side in us else "–" for side in (PLAIN, EARLIER, SIDES[4])]
        lines.append(f"| {row['network']} | {row['batch']} | {' | '.join([*cells, *ratios])} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--earlier", type=Path, help="folder of the version before compiled kernels; left out without it")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "simulation_frameworks.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for name in ROWS:
        for batch in (1, 32):
            if not any((row["network"], row["batch"]) == (name, batch) for row in rows):
                rows.append(measure(name, batch, arguments.repeats, arguments.earlier))
                path.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    page = write_table(rows)
    (arguments.out / "simulation_frameworks.md").write_text(page)
    print(page)
    if not all(row["equal"] for row in rows):
        raise SystemExit("spikes of compiled kernels and numpy differ")


if __name__ == "__main__":
    main()
