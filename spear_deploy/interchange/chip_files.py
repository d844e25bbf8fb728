"""Runs of files for Xylo, Speck and PyNN.

By the package's reader of the file, and by the maker's simulator, of PyNN by Brian2, where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from spear_deploy.interchange.pynn import reader as pynn
from spear_deploy.interchange.speck import reader as speck
from spear_deploy.interchange.xylo import reader as xylo
from spear_deploy.network import Array

ChipFormat: TypeAlias = Literal["speck", "xylo", "pynn"]
SIMULATORS: dict[str, str] = {"xylo": "xylosim", "speck": "sinabs", "pynn": "brian2"}
"""By format, the package that runs its files: of the chip's maker, or the software back end of PyNN."""

NOT_HERE = {
    "pynn": "the script was not run, PyNN and Brian2 are not installed here; set the environment variable "
    f"{pynn.PYTHON} to a Python that has both"
}
"""By format, what to do where its package is not installed, if that is more than installing it."""


def has_simulator(format: str) -> bool:
    """Return whether the package of `SIMULATORS` that runs the files of a format can be run here."""
    return pynn.has_brian2() if format == "pynn" else find_spec(SIMULATORS[format]) is not None


def explain_no_simulator(format: str) -> str:
    """Return why a file is not run by the maker's simulator, and what to do."""
    name = SIMULATORS[format]
    return NOT_HERE.get(format, f"{name} is not installed here; install it to have the file run by it")


def run_chip_file(source: Path, format: ChipFormat, x: Array, *, output: str, simulator: bool = False) -> dict[str, Array] | None:
    """Run a written file.

    Args:
        source: the file.
        format: of the file.
        x: (T, B, *input shape).
        output: name of the network's output.
        simulator: run the maker's simulator in place of the reader.

    Returns:
        Values by layer, (T, B, neurons or *shape), each layer from its own first step on; None where the maker's simulator is
        not installed.

    Raises:
        FileError: the file does not read back.
    """
    if format == "speck":
        document = speck.read_speck(source)
        sent = (speck.run_sinabs if simulator else speck.run_document)(document, x)
        return None if sent is None else speck.values_by_layer(document, sent, output)
    if format == "pynn":
        network, numbers = pynn.read_pynn(source)
        flat = x.reshape(*x.shape[:2], -1)
        return pynn.run_brian2(source, flat) if simulator else pynn.run_populations(network, numbers, flat)
    arrays, description = xylo.read_xylo(source)
    late = max(description["offsets"].values())
    events = x.reshape(*x.shape[:2], -1)
    events = np.concatenate([events, np.zeros((late, *events.shape[1:]), events.dtype)])
    runs = (xylo.run_xylosim if simulator else xylo.run_arrays)(arrays, events)
    return None if runs is None else xylo.values_by_layer(runs, description, len(x))


def describe_chip_file(source: Path, format: ChipFormat) -> dict[str, Any] | None:
    """Return what is written as JSON beside a file: of Xylo its arrays as lists; others have none."""
    if format != "xylo":
        return None
    arrays, description = xylo.read_xylo(source)
    return {**description, "arrays": {name: value.tolist() for name, value in arrays.items()}}
