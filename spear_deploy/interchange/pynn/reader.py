"""Independent reading of PyNN networks: sPyNNaker's neurons in float64; Brian2.

    current ← sum of weight over the spikes of `delay` steps before
    IF_curr_delta   i ← current / timestep
    IF_curr_exp     u ← u + current · (tau_syn / timestep) · (1 − exp(−timestep / tau_syn));  i ← u
    a = v_rest + i · tau_m / cm;  v ← a − exp(−timestep / tau_m) · (a − v);  u ← u · exp(−timestep / tau_syn)
    spike where v > v_thresh, then v ← v_reset

It shares no code with the script and none with the simulator of networks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import BackendError, FileError
from spear_deploy.network import Array
from spear_deploy.util.files import read_arrays
from spear_deploy.util.temporary_folder import make_file_error, open_temporary_folder

SCRIPT = Path(__file__).with_name("script.py")
NEEDED = ("timestep_ms", "inputs", "populations", "projections", "output")
PARAMETERS = ("tau_m", "cm", "v_rest", "v_reset", "v_thresh")
PYTHON = "SPEAR_PYNN_PYTHON"
"""Environment variable: a Python that has PyNN and Brian2, if this one has not; Brian2 2.7 asks for a numpy below 2."""
LIMIT_S = 3600
"""Seconds that a run in Brian2 may take."""


def read_pynn(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the description of a file and its arrays.

    Raises:
        FileError: no network for PyNN, or arrays that are missing.
    """
    arrays = read_arrays(path)
    try:
        description: Any = json.loads(str(arrays.pop("description", "null")))
    except (ValueError, RecursionError) as error:
        raise FileError(f"file '{path}': is damaged ({type(error).__name__}); export the network again") from error
    is_ours = isinstance(description, dict) and all(name in description for name in NEEDED)
    if not is_ours or not all(isinstance(description[name], list) for name in ("populations", "projections")):
        raise FileError(f"file '{path}': its description is not that of a network for PyNN; it is not an export to PyNN")
    wanted = [f"population{n}.{name}" for n in range(len(description["populations"])) for name in PARAMETERS]
    wanted += [f"projection{n}.{name}" for n in range(len(description["projections"])) for name in ("source", "target", "weight")]
    if missing := [name for name in wanted if name not in arrays]:
        raise FileError(f"file '{path}': has no {', '.join(missing[:3])}; export the network again")
    return description, arrays


def run_populations(description: Mapping[str, Any], arrays: Mapping[str, Array], x: Array) -> dict[str, Array]:
    """Run the populations.

    Args:
        description, arrays: of `read_pynn`.
        x: spikes (T, B, inputs), 0 or 1.

    Returns:
        By population, spikes or v in the network's units, (T, B, neurons), each from its own first step on.
    """
    steps, batch = x.shape[:2]
    dt, rows = description["timestep_ms"], description["populations"]
    p = [{name: arrays[f"population{n}.{name}"] for name in PARAMETERS} for n in range(len(rows))]
    tau_syn = [arrays.get(f"population{n}.tau_syn") for n in range(len(rows))]
    ticks = steps + max(row["offset"] for row in rows)
    sent: dict[Any, Array] = {n: np.zeros((ticks, batch, row["size"])) for n, row in enumerate(rows)}
    potentials = {n: np.zeros((ticks, batch, row["size"])) for n, row in enumerate(rows)}
    sent["input"] = np.concatenate([x.astype(float), np.zeros((ticks - steps, *x.shape[1:]))])
    sent["bias"] = np.ones((ticks, batch, 1))
    sent["start"] = (np.arange(ticks) == 0)[:, None, None] * sent["bias"]
    v = [np.tile(part["v_rest"], (batch, 1)) for part in p]
    u = [np.zeros((batch, row["size"])) for row in rows]
    for tick in range(ticks):
        current = [np.zeros((batch, row["size"])) for row in rows]
        for n, way in enumerate(description["projections"]):
            if tick >= way["delay"]:
                source, target, weight = (arrays[f"projection{n}.{name}"] for name in ("source", "target", "weight"))
                size = rows[way["target"]]["size"]
                for sample, spikes in enumerate(sent[way["source"]][tick - way["delay"]]):
                    on = spikes[source] > 0
                    current[way["target"]][sample] += np.bincount(target[on], weights=weight[on], minlength=size)
        for n, part in enumerate(p):
            syn = tau_syn[n]
            if syn is None:
                i = current[n] / dt
            else:
                i = u[n] + current[n] * (syn / dt) * (1 - np.exp(-dt / syn))
                u[n] = i * np.exp(-dt / syn)
            a = part["v_rest"] + i * part["tau_m"] / part["cm"]
            v[n] = a - np.exp(-dt / part["tau_m"]) * (a - v[n])
            potentials[n][tick] = v[n]
            fired = v[n] > part["v_thresh"]
            sent[n][tick], v[n] = fired, np.where(fired, part["v_reset"], v[n])
    values = {}
    for n, row in enumerate(rows):
        whole = potentials[n] / row["scale"] if row["readout"] else sent[n] > 0
        values[row["name"]] = whole[row["offset"] :][:steps]
    return values


def name_brian2() -> str:
    """Return the names and versions of Brian2 and PyNN that `run_brian2` runs."""
    names = "from importlib.metadata import version as v; print('brian2', v('brian2'), 'through pynn', v('pynn'))"
    command = [os.environ.get(PYTHON, sys.executable), "-c", names]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def has_brian2() -> bool:
    """Return whether PyNN and Brian2 are installed, or another Python is named by `PYTHON`."""
    if os.environ.get(PYTHON, sys.executable) != sys.executable:
        return True
    return find_spec("pyNN") is not None and find_spec("brian2") is not None


def run_brian2(path: Path, x: Array) -> dict[str, Array] | None:
    """Run the exported script in Brian2 through PyNN; None where they are neither installed nor named by `PYTHON`.

    Args:
        path: the `.npz`.
        x: as in `run_populations`.

    Returns:
        As `run_populations`.

    Raises:
        BackendError: the script ends with an error.
        FileError: the folder for temporary files cannot be written.
    """
    if not has_brian2():
        return None
    python = os.environ.get(PYTHON, sys.executable)
    with open_temporary_folder("pynn") as folder:
        given, made = Path(folder, "spikes.npy"), Path(folder, "recorded.npz")
        try:
            np.save(given, x.astype(np.uint8))
        except OSError as error:
            raise make_file_error("the input of PyNN cannot be written", error) from error
        command = [python, "-W", "ignore", SCRIPT, "--network", path, "--input", given, "--out", made]
        command += ["--backend", "brian2", "--together", x.shape[1]]
        try:
            subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=LIMIT_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            last = (str(getattr(error, "stderr", None) or error).strip().splitlines() or ["no message"])[-1]
            raise BackendError(
                f"run of PyNN with '{python}': {last}; install pynn and brian2 there", cause="exception"
            ) from error
        recorded = read_arrays(made)
    return {name.rpartition(".")[0]: value for name, value in recorded.items()}
