"""Time and peak memory of check, rank, count, quantization and export over network sizes.

    python -m tests.benchmarks.scale --out DIR            # up to 10^7 weights, about five minutes
    python -m tests.benchmarks.scale --out DIR --large    # 10^8 and 10^9 synapses and ResNet18 at 224 as well
    python -m tests.benchmarks.scale --out DIR --page     # the table and the plot again, from the measurements alone

Each case runs in a separate process with one thread, for its peak memory; CPU seconds leave out imports and building the network.
After each case it writes `scale.json` (every measurement) and `scale.md`: the goals, the table, and how time grows, the slope of
a line through log time over log size. `scale.svg` shows both as a plot (needs matplotlib). Cases that the file in DIR holds are
not run again; `--verbs` and `--networks` choose among them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spear_deploy.network import WEIGHTED
from spear_deploy.network.graph import SNNGraph
from tests.benchmarks.scale_networks import line, maps, recurrent, resnet18, skipped, sparse_recurrent, vgg16
from tests.benchmarks.scale_plot import draw

NETWORKS: dict[str, Callable[[], SNNGraph]] = {
    "VGG16 / 4": lambda: vgg16(width=0.25),
    "VGG16 / 2": lambda: vgg16(width=0.5),
    "VGG16": lambda: vgg16(),
    "VGG16, batch norm": lambda: vgg16(norm=True),
    "ResNet18, 64": lambda: resnet18(size=64),
    "recurrent 10^5": lambda: recurrent(316),
    "recurrent 10^6": lambda: recurrent(1000),
    "recurrent 10^7": lambda: recurrent(3162),
    "100 layers": lambda: line(100),
    "1000 layers": lambda: line(1000),
    "10,000 layers": lambda: line(10_000),
    "50 skips": lambda: skipped(50),
    "100 skips": lambda: skipped(100),
    "200 skips": lambda: skipped(200),
    "VGG16 x 2": lambda: vgg16(width=2),
    "ResNet18, 224": lambda: resnet18(),
    "recurrent 10^8": lambda: recurrent(10000),
    "recurrent 10^9": lambda: recurrent(31623),
    "1 % of 10^6": lambda: sparse_recurrent(1000),
    "1 % of 10^7": lambda: sparse_recurrent(3162),
    "1 % of 10^8": lambda: sparse_recurrent(10000),
    "1 % of 10^9": lambda: sparse_recurrent(31623),
    "maps 10^5": lambda: maps(3),
    "maps 10^6": lambda: maps(7),
    "maps 10^7": lambda: maps(20),
    "maps 10^8": lambda: maps(61),
    "maps 10^9": lambda: maps(191),
}
LARGE = ("VGG16 x 2", "ResNet18, 224", "recurrent 10^8", "recurrent 10^9", "1 % of 10^8", "1 % of 10^9", "maps 10^8", "maps 10^9")
DEEP = ("100 layers", "1000 layers", "10,000 layers", "50 skips", "100 skips", "200 skips")
MAPS = tuple(name for name in NETWORKS if name.startswith("maps"))
RECURRENT = tuple(name for name in NETWORKS if name.startswith("recurrent"))
SPARSE = tuple(name for name in NETWORKS if name.startswith("1 % of"))
USUAL = tuple(name for name in NETWORKS if name not in (*DEEP, *MAPS, *SPARSE, "recurrent 10^9"))
HALA_POINT, ACTIVE = "check loihi2 x 1152", "check loihi2 x 1152 at 1 %"
GROWING_STEPS = tuple(f"count {n} steps" for n in (4, 16, 64, 256))
GROWING_SAMPLES = tuple(f"count {n} samples" for n in (1, 4, 16, 64))
CASES: dict[str, tuple[str, ...]] = {
    "check loihi1": USUAL,
    "check loihi2": (*USUAL, *DEEP, *SPARSE),
    "check loihi2 x 8": USUAL,
    "check truenorth": (*USUAL, *SPARSE),
    HALA_POINT: (*RECURRENT, *MAPS, *SPARSE),
    ACTIVE: (*RECURRENT, *MAPS, *SPARSE),
    "rank": (*(name for name in USUAL if name != "recurrent 10^8"), *SPARSE[:3]),
    "count": (*(name for name in USUAL if name != "ResNet18, 224"), *DEEP[:3], *SPARSE, *MAPS),
    "quantize": (*USUAL, *DEEP[:3], *SPARSE, *MAPS),
    "export nir": (*USUAL, *SPARSE[:3], *MAPS),
    **dict.fromkeys((*GROWING_STEPS, *GROWING_SAMPLES), ("VGG16 / 4",)),
}
"""Networks by verb. Of `check` the number of chips follows the cross; Hala Point has 1152 Loihi 2."""
GOALS: tuple[tuple[str, str, float, float | None], ...] = (
    *((f"check {chip}", "VGG16", 1.5, None) for chip in ("loihi1", "loihi2", "loihi2 x 8", "truenorth")),
    ("check truenorth", "VGG16 x 2", 3, None),
    ("check loihi2 x 8", "ResNet18, 224", 5, None),
    ("rank", "VGG16", 15, None),
    (HALA_POINT, "recurrent 10^9", 60, 6000),
    (HALA_POINT, "maps 10^9", 60, 6000),
    (HALA_POINT, "1 % of 10^9", 10, 1000),
    ("quantize", "VGG16", 1, None),
    ("quantize", "recurrent 10^8", 15, None),
    ("export nir", "ResNet18, 224", 8, 500),
)
"""Verb, network, CPU seconds and peak megabytes that were set beforehand."""
SIZES = {
    "VGG16": "weights",
    "recurrent": "weights",
    "1 %": "nonzero",
    "maps": "synapses",
    "layers": "layers",
    "skips": "synapses",
}
"""Series of networks, and what grows in it."""
COUNTED_STEPS, COUNTED_SAMPLES = 4, 2


def run_verb(verb: str, graph: SNNGraph) -> dict[str, object]:
    """Run one verb on a network and return its figures."""
    what, *rest = verb.split()
    if what == "check":
        from spear_deploy.budget.check import check
        from spear_deploy.hardware.profile import load_profile

        chips = int(rest[2]) if "x" in rest else 1
        report = check(graph, load_profile(rest[0]), chips=chips, activity=0.01 if "at" in rest else None)
        return {"verdict": report.verdict, "cores": report.cores_used}
    if what == "rank":
        from spear_deploy.adaptation.reach import add_reach
        from spear_deploy.budget.chip_ranking import rank
        from spear_deploy.hardware.catalog import list_profiles
        from spear_deploy.hardware.profile import load_profile

        targets = [(load_profile(name), 1) for name in list_profiles()]
        return {"chips": len(add_reach(rank(graph, targets), graph, targets))}
    if what == "count":
        from spear_deploy.pipeline import api

        steps = int(rest[0]) if "steps" in rest else COUNTED_STEPS
        samples = int(rest[0]) if "samples" in rest else COUNTED_SAMPLES
        x = np.random.default_rng(0).integers(0, 10, (steps, samples, *graph.input_shape), np.uint8) == 0
        return {"synops": api.count(graph, x, kind="spikes").synops_total, "steps": steps, "samples": samples}
    if what == "quantize":
        from spear_deploy.quantize import quantize

        return {"integer": quantize(graph).is_integer}
    from spear_deploy.interchange import export

    with tempfile.TemporaryDirectory() as folder:
        certificate = export(graph, Path(folder) / "a.nir", to="nir")
    return {key: certificate[key] for key in ("mismatches", "ties", "tie_distance")} | {"input": certificate["input"]}


def measure(verb: str, name: str) -> dict[str, object]:
    """Run one case in this process."""
    import spear_deploy.budget.check
    import spear_deploy.interchange
    import spear_deploy.pipeline.api
    import spear_deploy.quantize  # noqa: F401

    graph = NETWORKS[name]()
    begin, wall = time.process_time(), time.perf_counter()
    facts = run_verb(verb, graph)
    cpu, wall = time.process_time() - begin, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "verb": verb,
        "network": name,
        "weights": graph.weights,
        "layers": len(graph.layers),
        "synapses": count_synapses(graph),
        "nonzero": sum(
            int(np.count_nonzero(s.weight)) for s in (layer.synapse for layer in graph.layers) if isinstance(s, WEIGHTED)
        ),
        "cpu_s": cpu,
        "wall_s": wall,
        "peak_bytes": peak,
        **facts,
    }


def measure_apart(verb: str, name: str) -> dict[str, object]:
    """Run one case in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--case", verb, name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    completed = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if completed.returncode:
        return {"verb": verb, "network": name, "error": (completed.stderr.strip().splitlines() or ["died"])[-1][:200]}
    return dict(json.loads(completed.stdout))


def count_synapses(graph: SNNGraph) -> int:
    """Count the synapses between neurons: those of a convolution at each position."""
    from spear_deploy.placement.populations import count_synapses_into, find_populations

    return sum(count_synapses_into(population).total for population in find_populations(graph))


def list_cases(large: bool) -> list[tuple[str, str]]:
    """List verbs and networks."""
    return [(verb, name) for verb, names in CASES.items() for name in names if large or name not in LARGE]


def list_curves(cases: list[dict]) -> dict[str, tuple[str, list[tuple[float, dict]]]]:
    """Return what grows and the points (size, case), by verb and series; those of three sizes and more."""
    curves: dict[str, tuple[str, list[tuple[float, dict]]]] = {}
    for case in cases:
        verb, name = case["verb"], case["network"]
        series = next((series for series in SIZES if series in name and "," not in name.removesuffix(" layers")), "")
        series = "layers" if name in DEEP[:3] else series
        key, size = f"{verb}, {series}", SIZES.get(series, "")
        if verb in (*GROWING_STEPS, *GROWING_SAMPLES):
            size = verb.split()[-1]
            key = f"count, {size}"
        if size in case:
            curves.setdefault(key, (size, []))[1].append((case[size], case))
    ordered = {key: (size, sorted(points, key=lambda point: point[0])) for key, (size, points) in curves.items()}
    return {key: curve for key, curve in ordered.items() if len(curve[1]) > 2}


def find_exponents(cases: list[dict]) -> dict[str, tuple[float, float]]:
    """Return by curve the slope of log CPU time over log size: of a line through all points, and of the last two."""
    exponents: dict[str, tuple[float, float]] = {}
    for name, (_, points) in list_curves(cases).items():
        sizes, seconds = np.log([(size, case["cpu_s"]) for size, case in points]).T
        last = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
        exponents[name] = float(np.polyfit(sizes, seconds, 1)[0]), float(last)
    return exponents


def write_goals(cases: list[dict]) -> list[str]:
    """Return the rows of what was set beforehand, and what was measured."""
    known = {(case["verb"], case["network"]): case for case in cases if "error" not in case}
    lines = ["| goal | CPU, s | at most | peak, MB | at most |", "|---|--:|--:|--:|--:|"]
    for verb, name, seconds, megabytes in GOALS:
        case = known.get((verb, name))
        measured = ("not run", "") if case is None else (f"{case['cpu_s']:.2f}", f"{case['peak_bytes'] / 1e6:.0f}")
        limit = "" if megabytes is None else f"{megabytes:g}"
        lines.append(f"| {verb}, {name} | {measured[0]} | {seconds:g} | {measured[1]} | {limit} |")
    return lines


def write_table(cases: list[dict]) -> str:
    """Return the page: goals, table, exponents, and what was not run."""
    lines = [
        "# Time and memory over sizes",
        "",
        "Made by `python -m tests.benchmarks.scale --large`; CPU seconds of one thread, without imports and building networks.",
        "Raw data: [scale.json](scale.json). First the goals, each a case of the table below, and what they allow *at most*.",
        "",
        *write_goals(cases),
        "",
        "![CPU seconds and peak memory over size](scale.svg)",
        "",
    ]
    lines += ["| command | network | weights | CPU, s | peak, MB | 3 x float32 weights + 300 MB |", "|---|---|--:|--:|--:|--:|"]
    for case in cases:
        if "error" in case:
            lines.append(f"| {case['verb']} | {case['network']} | | {case['error']} | | |")
            continue
        limit = (12 * case["weights"] + 300e6) / 1e6
        peak = case["peak_bytes"] / 1e6
        lines.append(
            f"| {case['verb']} | {case['network']} | {case['weights']:,} | {case['cpu_s']:.2f} | {peak:.0f} | {limit:.0f} |"
        )
    lines += ["", "Growth of CPU time with size (1 is linear): of a line through all points, and of the last two.", ""]
    lines += ["| command, series | size | all | last two |", "|---|---|--:|--:|"]
    curves = list_curves(cases)
    lines += [f"| {name} | {curves[name][0]} | {line:.2f} | {last:.2f} |" for name, (line, last) in find_exponents(cases).items()]
    run = {(case["verb"], case["network"]) for case in cases}
    missing = [f"{verb} of {name}" for verb, name in list_cases(True) if (verb, name) not in run]
    lines += ["", f"Not run here: {', '.join(missing)}."] if missing else []
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--large", action="store_true", help="10^8 weights and ResNet18 at 224 as well")
    parser.add_argument("--verbs", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--case", nargs=2, metavar=("VERB", "NETWORK"), help="one case in this process; prints its JSON")
    parser.add_argument("--page", action="store_true", help="run nothing, write the table and the plot")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(*arguments.case)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "scale.json"
    before = json.loads(path.read_text())["cases"] if path.exists() else []
    known = {(case["verb"], case["network"]): case for case in before if "error" not in case}
    for verb, name in [] if arguments.page else list_cases(arguments.large):
        if (verb, name) in known or verb not in arguments.verbs or name not in arguments.networks:
            continue
        known[verb, name] = measure_apart(verb, name)
        print(f"{verb}, {name}: {known[verb, name].get('cpu_s', known[verb, name].get('error'))} s", file=sys.stderr, flush=True)
        write_results(arguments.out, [known[case] for case in list_cases(True) if case in known])
    cases = [known[case] for case in list_cases(True) if case in known]
    (arguments.out / "scale.md").write_text(write_table(cases))
    draw(list_curves(cases), arguments.out / "scale.svg")
    print((arguments.out / "scale.md").read_text())


def write_results(folder: Path, cases: list[dict]) -> None:
    """Write the measurements and the table."""
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }
    result = {"machine": machine | {"numpy": np.__version__}, "exponents": find_exponents(cases), "cases": cases}
    (folder / "scale.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "scale.md").write_text(write_table(cases))


if __name__ == "__main__":
    main()
