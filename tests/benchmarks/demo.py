"""Demo benchmark: several seeds against the promised bounds.

    python -m tests.benchmarks.demo --seeds 0 1 2 --out results

Writes `demo.json` (every run's own JSON, the machine, the bounds) and prints a table. Exits with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DENSE_ACCURACY = 0.98
LOSS_ON_LAVA = 0.015
SECONDS = 180
COLUMNS = (
    "seed",
    *("dense", "pruned", "quantised", "Lava"),
    *("budget", "achieved", "of it"),
    "Lava ≠ ours",
    "Norse ≠ ours",
    "s",
)


def run(seed: int) -> dict:
    """Run `spear-deploy demo` in a process of its own and return its JSON and wall time."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "spear_deploy.cli", "demo", "--seed", str(seed), "--out", folder, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"seed {seed}: exit code {done.returncode}\n{done.stderr}")
    return {**json.loads(done.stdout), "wall_s": seconds}


def promises(result: dict) -> dict[str, bool]:
    """Return what was promised and whether it holds."""
    accuracy, synops = result["accuracy"], result["synops"]
    return {
        "dense accuracy": accuracy["dense"] >= DENSE_ACCURACY,
        "loss on Lava": accuracy["dense"] - accuracy["lava"] <= LOSS_ON_LAVA + 1e-12,
        "SynOps within budget": synops["achieved"] <= synops["budget"],
        "half of dense": synops["budget"] <= 0.5 * synops["dense"] + 1e-6,
        "Lava equals ours": result["lava"]["spike_mismatches"] == result["lava"]["value_mismatches"] == 0,
        "50 samples on Lava": result["lava"]["samples"] >= 50,
        "Norse equals ours": result["norse"]["spike_mismatches"] == 0,
        "three minutes": result["wall_s"] <= SECONDS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    rows = []
    print(f"| {' | '.join(COLUMNS)} |\n|{'--:|' * len(COLUMNS)}")
    for seed in arguments.seeds:
        result = run(seed)
        a, s = result["accuracy"], result["synops"]
        figures = [f"{100 * a[name]:.2f}" for name in ("dense", "pruned", "quantised", "lava")]
        figures += [f"{s['budget']:.0f}", f"{s['achieved']:.0f}", f"{100 * s['achieved'] / s['budget']:.1f} %"]
        figures += [str(result[name]["spike_mismatches"]) for name in ("lava", "norse")]
        print(f"| {seed} | {' | '.join(figures)} | {result['wall_s']:.0f} |", flush=True)
        rows.append({**result, "promises": promises(result)})
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "demo.json").write_text(json.dumps({"machine": machine, "runs": rows}, indent=1) + "\n")
    broken = [f"seed {row['seed']}: {name}" for row in rows for name, holds in row["promises"].items() if not holds]
    if broken:
        raise SystemExit("broken: " + "; ".join(broken))


if __name__ == "__main__":
    main()
