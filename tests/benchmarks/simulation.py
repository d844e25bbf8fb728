"""Time of the simulator and of the network as one Lava process, beside Lava's own processes and a numpy loop.

    python -m tests.benchmarks.simulation --out DIR

The same integer network runs on all sides, and their spikes are compared. Time per step leaves out what comes once (start,
building, stop); the whole time of a call is reported beside it. Sides take turns, and medians of the repeats count.

Writes `simulation.json` (every single measurement), `simulation.md` (how it grows with depth, width, batch and steps) and
`simulation.svg` (the same as a plot; needs matplotlib). Exits with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from spear_deploy.lava.batches import lower_in_passes
from spear_deploy.lava.plan import plan_network
from spear_deploy.lava.single_process import lower_to_single_process, read_single_process
from spear_deploy.lava.worker_process import run_program
from spear_deploy.network import LOIHI_UNIT, Conv2d, Dense, Layer, LoihiLIF
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.simulator import simulate

LIMIT = 1 << 23
STOCK, FAST, OURS, LOOP = "stock Lava", "fast Lava", "simulator", "numpy loop"
COLOURS = {STOCK: "#b2182b", FAST: "#2166ac", OURS: "#1b7837", LOOP: "#777777"}

PROMISES = (  # (what, case, slower side, faster side, least ratio of the first's time to the second's)
    ("fast Lava against stock Lava, dense layers, one sample", "dense, batch 1", STOCK, FAST, 15),
    ("fast Lava against stock Lava, dense layers, 32 samples", "dense, batch 32", STOCK, FAST, 60),
    ("simulator against a numpy loop, dense layers, one sample", "dense, batch 1", LOOP, OURS, 0.5),
    ("simulator against a numpy loop, dense layers, 32 samples", "dense, batch 32", LOOP, OURS, 0.5),
    ("simulator against stock Lava, convolution, one sample", "conv, batch 1", STOCK, OURS, 30),
    ("simulator against stock Lava, convolution, 32 samples", "conv, batch 32", STOCK, OURS, 60),
    ("fast Lava against stock Lava, convolution, one sample", "conv, batch 1", STOCK, FAST, 30),
    ("fast Lava against stock Lava, convolution, 32 samples", "conv, batch 32", STOCK, FAST, 60),
)


# ------------------------------------------------------------------------------------------------------------ the networks


def dense_network(depth: int, width: int) -> SNNGraph:
    """Return layers of 8-bit weights; both states decay, and about a tenth of the neurons spike in a step."""
    rng = np.random.default_rng(depth * width)
    neuron = LoihiLIF(decay_u=1024, decay_v=128, v_threshold=int(160 * np.sqrt(width)))
    weights = [rng.integers(-128, 128, (width, width)) for _ in range(depth)]
    layers = [Layer(name=f"fc{i}", synapse=Dense(weight=weight), neuron=neuron) for i, weight in enumerate(weights)]
    return chain(layers, input_shape=(width,))


def conv_network() -> SNNGraph:
    """Return one 3x3 convolution of 64 to 64 channels at 32x32."""
    weight = np.random.default_rng(0).integers(-128, 128, (64, 64, 3, 3))
    neuron = LoihiLIF(decay_u=1024, decay_v=128, v_threshold=2000)
    return chain([Layer(name="conv", synapse=Conv2d(weight=weight, padding=1), neuron=neuron)], input_shape=(64, 32, 32))


# --------------------------------------------------------------------------------------------------------------- the sides


def on_stock_lava(graph: SNNGraph, x: np.ndarray) -> dict:
    """Run Lava's processes as a user would write them: source, Dense or Conv, LIF, ... and one sink behind the last."""
    lowered = lower_in_passes(plan_network(graph), x, set())
    (whole,) = lowered.program.passes
    sink = f"{graph.output}/spikes"
    rows = tuple(row for row in whole.processes if row["kind"] != "port_recorder" or row["name"] == sink)
    names = {row["name"] for row in rows}
    pairs = tuple(pair for pair in whole.connections if pair[1] in names)
    program = replace(lowered.program, passes=(replace(whole, processes=rows, connections=pairs),))
    (recording,) = (each for each in lowered.recordings if each.layer == graph.output)

    def read(folder: Path) -> dict:
        kept = np.load(folder / recording.file, allow_pickle=False)
        output = recording.read(kept, len(x), graph.shape_of(graph.output))
        return {"output": output, **json.loads((folder / "done.json").read_text())}

    return timed(lambda: run_program(program, read))


def on_fast_lava(graph: SNNGraph, x: np.ndarray) -> dict:
    """Run the whole network as one Lava process."""

    def read(folder: Path) -> dict:
        run = read_single_process(folder, "", x, "spikes")
        return {"output": run.output, **json.loads((folder / "done.json").read_text())}

    return timed(lambda: run_program(lower_to_single_process(graph, x, kind="spikes", record=frozenset(), prefix=""), read))


def on_simulator(graph: SNNGraph, x: np.ndarray) -> dict:
    """Run the simulator, which has no start to leave out."""
    return timed(lambda: {"output": simulate(graph, x).output})


def on_numpy_loop(graph: SNNGraph, x: np.ndarray) -> dict:
    """Run the equations of `LoihiLIF` as one writes them down: for each step, for each layer, in int64."""
    weights = [layer.synapse.weight.T.astype(np.float32) for layer in graph.layers]

    def decayed(state: np.ndarray, decay: np.ndarray) -> np.ndarray:
        product = state * (4096 - decay)
        return np.sign(product) * (np.abs(product) >> 12)

    def run() -> dict:
        u = [np.zeros((x.shape[1], weight.shape[1]), np.int64) for weight in weights]
        v = [np.zeros_like(state) for state in u]
        output = []
        for spikes in x:
            for i, (layer, weight) in enumerate(zip(graph.layers, weights, strict=True)):
                neuron = layer.neuron
                arrives = (spikes.astype(np.float32) @ weight).astype(np.int64)
                u[i] = decayed(u[i], neuron.decay_u) + LOIHI_UNIT * arrives
                u[i] = np.where(u[i] > LIMIT, u[i] - 2 * LIMIT, np.where(u[i] <= -LIMIT, u[i] + 2 * LIMIT, u[i]))
                v[i] = np.clip(decayed(v[i], neuron.decay_v) + u[i] + neuron.bias, 1 - LIMIT, LIMIT - 1)
                spikes = v[i] > LOIHI_UNIT * neuron.v_threshold
                v[i][spikes] = 0
            output.append(spikes)
        return {"output": np.array(output)}

    return timed(run)


def timed(run) -> dict:
    """Add the time of the whole call, and make it the time of the run where that is not known better."""
    begin = time.perf_counter()
    result = run()
    total = time.perf_counter() - begin
    return {"run": total, **result, "total": total}


SIDES = {STOCK: on_stock_lava, FAST: on_fast_lava, OURS: on_simulator, LOOP: on_numpy_loop}


# ------------------------------------------------------------------------------------------------------------ measurements


def measure(name: str, graph: SNNGraph, steps: dict[str, int], batch: int, repeats: int, **facts) -> dict:
    """Run each side on as many steps as `steps` says, in turn, and compare their spikes where they overlap."""
    rng = np.random.default_rng(1)
    x = rng.random((max(steps.values()), batch, *graph.input_shape)) < 0.1
    expected = simulate(graph, x, record=("spikes",))
    single = {side: x[:count, :1] if side == STOCK else x[:count] for side, count in steps.items()}
    runs: dict[str, list[dict]] = {side: [] for side in steps}
    equal = True
    for _ in range(repeats):
        for side, part in single.items():
            result = SIDES[side](graph, part)
            output = result.pop("output")
            equal &= bool(np.array_equal(output, expected.output[: len(part), : part.shape[1]]))
            runs[side].append(result)
    sides = {
        side: {
            "us_per_step_and_sample": 1e6 * median(run["run"] for run in runs[side]) / part.shape[0] / part.shape[1],
            "total_s": median(run["total"] for run in runs[side]),
            "steps": part.shape[0],
            "samples": part.shape[1],
            "runs": runs[side],
        }
        for side, part in single.items()
    }
    rates = {layer: float(spikes.mean()) for layer, spikes in expected.spikes.items()}
    case = {"case": name, **facts, "batch": batch, "sides": sides, "equal": equal, "rates": rates}
    print(row_of(case), flush=True)
    return case


def promised_cases(repeats: int) -> list[dict]:
    dense, conv = dense_network(4, 256), conv_network()
    many = {STOCK: 300, FAST: 4096, OURS: 4096, LOOP: 1000}
    few = {STOCK: 300, FAST: 512, OURS: 512, LOOP: 128}
    facts = {"depth": 4, "width": 256}
    return [
        measure("dense, batch 1", dense, many, 1, repeats, **facts),
        measure("dense, batch 32", dense, few, 32, repeats, **facts),
        measure("conv, batch 1", conv, {STOCK: 12, FAST: 64, OURS: 64}, 1, repeats),
        measure("conv, batch 32", conv, {STOCK: 12, FAST: 8, OURS: 8}, 32, repeats),
    ]


def growing_cases(repeats: int) -> list[dict]:
    cases = []
    for depth in (1, 2, 8, 16):
        steps = {STOCK: 100, FAST: 1024, OURS: 1024, LOOP: 256}
        cases.append(measure("depth", dense_network(depth, 256), steps, 1, repeats, depth=depth, width=256))
    for width in (64, 1024, 4096):
        steps = {FAST: 256, OURS: 256, LOOP: 32} | ({STOCK: 60} if width < 4096 else {})
        cases.append(measure("width", dense_network(4, width), steps, 1, repeats, depth=4, width=width))
    for batch in (2, 8, 128):
        steps = {FAST: 256, OURS: 256, LOOP: 32}
        cases.append(measure("batch", dense_network(4, 256), steps, batch, repeats, depth=4, width=256))
    for length in (16, 128, 1024, 16384):
        steps = {FAST: length, OURS: length} | ({STOCK: length, LOOP: length} if length <= 1024 else {})
        cases.append(measure("steps", dense_network(4, 256), steps, 1, repeats, depth=4, width=256, length=length))
    return cases


# ----------------------------------------------------------------------------------------------------------------- reports

COLUMNS = ("case", "depth", "width", "batch", *(f"{side}, µs" for side in SIDES), "stock / fast", "whole call: stock, fast, s")


def row_of(case: dict) -> str:
    """Return one row of the table: microseconds a step and sample; whole calls take different numbers of steps (see the JSON)."""

    def figure(side: str, key: str, digits: int) -> str:
        return f"{case['sides'][side][key]:.{digits}f}" if side in case["sides"] else "–"

    both = STOCK in case["sides"]
    name = case["case"] + (f" {case['length']}" if "length" in case else "")
    cells = [name, *(str(case.get(key, "–")) for key in ("depth", "width", "batch"))]
    cells += [figure(side, "us_per_step_and_sample", 1) for side in SIDES]
    cells += [f"{ratio(case, STOCK, FAST):.0f}" if both else "–", f"{figure(STOCK, 'total_s', 1)}, {figure(FAST, 'total_s', 1)}"]
    return f"| {' | '.join(cells)} |"


def ratio(case: dict, slower: str, faster: str) -> float:
    one, other = (case["sides"][side]["us_per_step_and_sample"] for side in (slower, faster))
    return one / other


def kept(cases: list[dict]) -> list[dict]:
    """Return what was promised, what was measured, and whether it holds."""
    by_name = {case["case"]: case for case in cases}
    rows = [
        {"what": what, "least": least, "measured": ratio(by_name[case], slower, faster)}
        for what, case, slower, faster, least in PROMISES
    ]
    rows = [{**row, "holds": row["measured"] >= row["least"]} for row in rows]
    return [*rows, {"what": "all sides give the same spikes", "holds": all(case["equal"] for case in cases)}]


HEAD = f"| {' | '.join(COLUMNS)} |\n|{'--:|' * len(COLUMNS)}"


def write_page(result: dict) -> str:
    """Return the page of a run: what it is about, what is promised, and the table."""
    machine, promises = result["machine"], kept(result["cases"])
    lines = [
        "# The simulator beside Lava",
        "",
        "Time of integer networks of Loihi's neurons, `python -m tests.benchmarks.simulation --out docs/benchmarks`. "
        "*Stock Lava*: "
        "Lava's own processes for synapses and neurons. *Fast Lava*: the whole network as one Lava process (`--backend "
        "lava-fast`). "
        "*Simulator*: this package's (`--backend fast`). *Numpy loop*: a plain loop over the steps, dense layers alone. "
        "Sides take turns, medians count; time a step leaves out start, building and stop, the last column has them. "
        f"Python {machine['python']}, numpy {machine['numpy']}, {machine['cores']} cores, threads: {machine['threads']}. "
        f"Raw data: "
        "[simulation.json](simulation.json).",
        "",
        "| comparison | times as fast | at least |",
        "|---|--:|--:|",
    ]
    for row in promises:
        broken = "" if row["holds"] else " **broken**"
        figures = f"{row['measured']:.1f}{broken} | {row['least']}" if "least" in row else f"{broken or 'yes'} | "
        lines.append(f"| {row['what']} | {figures} |")
    picture = "![Time over depth, width, batch and steps](simulation.svg)"
    lines += ["", picture, "", "Microseconds a step and sample:", "", HEAD, *(row_of(case) for case in result["cases"])]
    return "\n".join(lines) + "\n"


def plot(cases: list[dict], path: Path) -> None:
    """Draw time against depth, width, batch and steps."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(14, 3.6), sharey=True)
    drawn = (("depth", "depth", "layers"), ("width", "width", "neurons a layer"), ("batch", "batch", "samples"))
    drawn = (*drawn, ("steps", "length", "steps"))
    for axis, (name, key, label) in zip(axes, drawn, strict=True):
        also = {"depth": cases[:1], "width": cases[:1], "batch": cases[:2], "steps": []}[name]  # the promised networks fit in
        shown = sorted([*also, *(case for case in cases if case["case"] == name)], key=lambda case: case[key])
        for side in SIDES:
            points = [(case[key], case["sides"][side]["us_per_step_and_sample"]) for case in shown if side in case["sides"]]
            if points:
                axis.loglog(*zip(*points, strict=True), "o-", color=COLOURS[side], label=side)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("µs a step and sample")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--promised", action="store_true", help="only what is promised, not how it grows; no plot")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(HEAD, flush=True)
    promised = promised_cases(arguments.repeats)
    cases = [*promised, *([] if arguments.promised else growing_cases(min(3, arguments.repeats)))]
    promises = kept(cases)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    machine |= {"numpy": np.__version__, "threads": os.environ.get("OMP_NUM_THREADS", "default"), "load": os.getloadavg()}
    result = {"machine": machine, "promises": promises, "cases": cases}
    (arguments.out / "simulation.json").write_text(json.dumps(result, indent=1) + "\n")
    page = write_page(result)
    (arguments.out / "simulation.md").write_text(page)
    print(page)
    if not arguments.promised:
        plot(cases, arguments.out / "simulation.svg")
    broken = [row["what"] for row in promises if not row["holds"]]
    if broken:
        raise SystemExit("broken: " + "; ".join(broken))


if __name__ == "__main__":
    main()
