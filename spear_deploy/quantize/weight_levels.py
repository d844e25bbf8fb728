"""Layers of which rounding leaves few levels of weights, or none.

A layer's scale follows the largest of its neurons' numbers: a bias or a threshold far above the weights, or one large weight,
leaves the others a few whole numbers. That is reported where they are fewer than the bits hold and do not stand for the weights:
those of a network that learnt with two values are two on the chip as well, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from spear_deploy.network import Array, SparseMatrix, Weights
from spear_deploy.util.number_format import plural

WEIGHTS_LOST = "weights_lost"
FEW_LEVELS = "few_levels"
"""What findings name: weights that all round to 0, and weights of which one or two values are left beside 0."""
MAX_FEW = 2
"""Values beside 0 that are few: one of each sign."""
NOTABLE_ERROR = 0.25
"""Root mean square by which few levels miss the weights, relative to them, above which it is a finding.

Levels that stand for the weights miss them by a few percent, those nearest to normal weights by 44 % (one of each sign).
"""
FEW_WEIGHTS = 8
"""Weights that a layer has at least where their levels say something."""
PROBED = 4096
"""Weights in which a third level is looked for first."""


def report_levels(name: str, synapse: Any, stored: Any, bits: int) -> Iterator[dict[str, Any]]:
    """Yield a finding where few values, or none, are left of a layer's weights.

    Args:
        name: of the layer.
        synapse: its weights as floating-point numbers, with all factors that do not differ inside a row.
        stored: the integers.
        bits: of a stored weight, its sign included.
    """
    levels = _list_levels(_flatten(stored.weight))
    if levels is None:
        return
    given = _flatten(synapse.weight)
    given = given[given != 0]
    if not len(given):
        return
    if not levels:
        bias = 0.0 if synapse.bias is None else float(np.abs(synapse.bias).max())
        yield {"layer": name, "what": WEIGHTS_LOST, "given": float(np.abs(given).max()), "stored": 0.0, "bias": bias}
        return
    signs = bool((given > 0).any()) + bool((given < 0).any())
    held = signs * (2 ** (bits - 1) - 1)
    if len(levels) >= held or len(given) < FEW_WEIGHTS or _measure_error(synapse.weight, stored.weight) <= NOTABLE_ERROR:
        return
    yield {"layer": name, "what": FEW_LEVELS, "given": float(len(np.unique(given))), "stored": float(len(levels)), "held": held}


def describe_levels(finding: Mapping[str, Any]) -> str:
    """Return a sentence about a finding of `report_levels`."""
    if finding["what"] == FEW_LEVELS:
        stored = plural(int(finding["stored"]), "value")
        return (
            f"layer '{finding['layer']}': its {finding['given']:,.0f} different weights round to {stored} beside 0, of "
            f"{finding['held']:,} that the chip's bits hold; bring the weights, biases and thresholds of its neurons nearer to "
            "one size, or train with the chip's rounding"
        )
    cause, remedy = "of its neurons", "bring them to one size, or merge layers of weights whose sums add up"
    if finding["bias"] > finding["given"]:
        cause, remedy = f"of its bias of up to {finding['bias']:g}", "lower the bias"
    return (
        f"layer '{finding['layer']}': all its weights, of up to {finding['given']:g}, round to 0 at the scale {cause}, "
        f"so that its neurons take no spikes; {remedy}"
    )


# ------------------------------------------------------------------------------------------------------------ inside


def _flatten(weight: Weights) -> Array:
    values: Array = (weight.data if isinstance(weight, SparseMatrix) else np.asarray(weight)).reshape(-1)
    return values


def _list_levels(values: Array) -> list[float] | None:
    """Return the different values beside 0 in ascending order, or None where they are more than `MAX_FEW`."""
    if np.count_nonzero(np.unique(values[:PROBED])) > MAX_FEW:
        return None
    levels: list[float] = []
    rest = values[values != 0]
    while len(rest):
        if len(levels) == MAX_FEW:
            return None
        levels.append(float(rest[0]))
        rest = rest[rest != rest[0]]
    return sorted(levels)


def _measure_error(weight: Weights, stored: Weights) -> float:
    """Return by how much stored weights, each row times the factor that fits it best, miss the weights, relative to them."""
    rows, given, kept = _align(weight, stored)
    cross, size = (np.bincount(rows, weights=product) for product in (given * kept, kept * kept))
    covered = np.divide(cross**2, size, out=np.zeros_like(cross), where=size > 0).sum()
    total = float((given * given).sum())
    return float(np.sqrt(max(0.0, 1 - covered / total)))


def _align(weight: Weights, stored: Weights) -> tuple[Array, Array, Array]:
    """Return for each weight that is not 0 its row, itself, and the integer at its place."""
    if not isinstance(weight, SparseMatrix):
        given, kept = np.broadcast_arrays(np.asarray(weight, np.float64), np.asarray(stored, np.float64))
        count = len(given) if given.ndim else 1
        return np.repeat(np.arange(count), given.size // count), given.reshape(-1), kept.reshape(-1)
    places = [matrix.rows * matrix.shape[1] + matrix.indices.astype(np.int64) for matrix in (weight, stored)]
    at = np.searchsorted(places[0], places[1])
    kept = np.zeros(len(weight.data))
    kept[at] = stored.data
    return weight.rows, weight.data.astype(np.float64), kept
