"""Trained networks that ship with the toolkit, by name.

digits      conv 16, conv 32, dense 10 with LIF neurons on scikit-learn's digits; made by `examples/train_digits.py`

A module of its own, since shell completion reads the names and must not wait for numpy.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spear_deploy.network.graph import SNNGraph

NAMES = ("digits",)


def shipped_network(name: str) -> SNNGraph:
    """Return a network by its name, one of `NAMES`."""
    from spear_deploy.interchange.snn_file import read_snn

    folder = resources.files("spear_deploy.pipeline.shipped_networks")
    with resources.as_file(folder.joinpath(f"{name}.snn")) as path:
        return read_snn(path)
