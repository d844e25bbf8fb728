"""Time and peak memory of check, rank, count, quantization and export over network sizes.

    python -m tests.benchmarks.scale --out DIR            # up to 10^7 weights, about three minutes
    python -m tests.benchmarks.scale --out DIR --large    # 10^8 recurrent weights and ResNet18 at 224 as well

Each case runs in a separate process with one thread, for its peak memory; CPU seconds leave out imports and building the network.
After each case it writes `scale.json` (every measurement) and `scale.md`: the table, and how time grows with the number of
weights or layers, the slope of a line through log time over the log of that number. Cases that the file in DIR holds are not run
again; `--verbs` and `--networks` choose among them.
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

from spear_deploy.network.graph import SNNGraph
from tests.benchmarks.scale_networks import line, recurrent, resnet18, skipped, vgg16

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
}
LARGE = ("VGG16 x 2", "ResNet18, 224", "recurrent 10^8")
DEEP = ("100 layers", "1000 layers", "10,000 layers", "50 skips", "100 skips", "200 skips")
SERIES = {
    "VGG16": ("VGG16 / 4", "VGG16 / 2", "VGG16", "VGG16 x 2"),
    "recurrent": tuple(name for name in NETWORKS if "recurrent" in name),
    "layers": DEEP[:3],
    "skips": DEEP[3:],
}
"""Networks of one kind; those of `skips` grow with the square of their number, as their synapses between neurons do."""
VERBS = ("check loihi1", "check loihi2", "check loihi2 x 8", "check truenorth", "rank", "count", "quantize", "export nir")
"""Chips and verbs that are measured; of `check` the number of chips follows the cross."""
LEFT_OUT = {("count", "ResNet18, 224"), ("rank", "recurrent 10^8")}
"""Cases that take minutes and show nothing more."""
COUNTED_STEPS, COUNTED_SAMPLES = 4, 2


def run_verb(verb: str, graph: SNNGraph) -> dict[str, object]:
    """Run one verb on a network and return its figures."""
    what, *rest = verb.split()
    if what == "check":
        from spear_deploy.budget.check import check
        from spear_deploy.hardware.profile import load_profile

        report = check(graph, load_profile(rest[0]), chips=int(rest[2]) if len(rest) > 1 else 1)
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

        x = np.random.default_rng(0).random((COUNTED_STEPS, COUNTED_SAMPLES, *graph.input_shape)) < 0.1
        return {"synops": api.count(graph, x, kind="spikes").synops_total}
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


def list_cases(large: bool) -> list[tuple[str, str]]:
    """List verbs and networks: deep networks are checked on one chip alone."""
    names = [name for name in NETWORKS if large or name not in LARGE]
    cases = [(verb, name) for verb in VERBS for name in names if name not in DEEP or verb == "check loihi2"]
    return [case for case in cases if case not in LEFT_OUT]


def find_exponents(cases: list[dict]) -> dict[str, float]:
    """Return by verb and series the slope of log CPU time over the log of weights, or of layers."""
    exponents: dict[str, float] = {}
    for verb in VERBS:
        for series, names in SERIES.items():
            size = "layers" if series in ("layers", "skips") else "weights"
            points = [
                (case[size], case["cpu_s"])
                for case in cases
                if case["verb"] == verb and case["network"] in names and size in case
            ]
            if len(points) > 2:
                sizes, seconds = np.log(np.array(points, float)).T
                exponents[f"{verb}, {series}"] = float(np.polyfit(sizes, seconds, 1)[0])
    return exponents


def write_table(cases: list[dict], exponents: dict[str, float]) -> str:
    """Return the page: the table, the exponents, and what was not run."""
    lines = [
        "# Time and memory over sizes",
        "",
        "Made by `python -m tests.benchmarks.scale --large`; CPU seconds of one thread, without imports and building networks.",
        "",
    ]
    lines += ["| verb | network | weights | CPU, s | peak, MB | 3 x float32 weights + 300 MB |", "|---|---|--:|--:|--:|--:|"]
    for case in cases:
        if "error" in case:
            lines.append(f"| {case['verb']} | {case['network']} | | {case['error']} | | |")
            continue
        limit = (12 * case["weights"] + 300e6) / 1e6
        peak = case["peak_bytes"] / 1e6
        lines.append(
            f"| {case['verb']} | {case['network']} | {case['weights']:,} | {case['cpu_s']:.2f} | {peak:.0f} | {limit:.0f} |"
        )
    lines += ["", "Growth of CPU time with the number of weights, or of layers (1 is linear):", ""]
    lines += [f"- {name}: {value:.2f}" for name, value in exponents.items()]
    run = {(case["verb"], case["network"]) for case in cases}
    missing = [f"{verb} of {name}" for verb, name in list_cases(True) if (verb, name) not in run]
    lines += ["", f"Not run here: {', '.join(missing)}."] if missing else []
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--large", action="store_true", help="10^8 weights and ResNet18 at 224 as well")
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=VERBS)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--case", nargs=2, metavar=("VERB", "NETWORK"), help="one case in this process; prints its JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(*arguments.case)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "scale.json"
    before = json.loads(path.read_text())["cases"] if path.exists() else []
    known = {(case["verb"], case["network"]): case for case in before if "error" not in case}
    for verb, name in list_cases(arguments.large):
        if (verb, name) in known or verb not in arguments.verbs or name not in arguments.networks:
            continue
        known[verb, name] = measure_apart(verb, name)
        print(f"{verb}, {name}: {known[verb, name].get('cpu_s', known[verb, name].get('error'))} s", file=sys.stderr, flush=True)
        write_results(arguments.out, [known[case] for case in list_cases(True) if case in known])
    print((arguments.out / "scale.md").read_text())


def write_results(folder: Path, cases: list[dict]) -> None:
    """Write the measurements and the table."""
    exponents = find_exponents(cases)
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }
    result = {"machine": machine | {"numpy": np.__version__}, "exponents": exponents, "cases": cases}
    (folder / "scale.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "scale.md").write_text(write_table(cases, exponents))


if __name__ == "__main__":
    main()
