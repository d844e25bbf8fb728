"""Spike rasters of one sample by Norse, integers and Lava, differences marked."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from spear_deploy.network import Array
from spear_deploy.util.number_format import number

SIDES = {"norse": "Norse", "fixed": "Integers", "lava": "Lava"}
NEURONS = 40
"""Rows of a raster at most."""
STEPS = 200
"""Columns of a raster at most."""
SPIKES = 24_000
"""Spikes on the page, all layers and runs together, above which rasters get fewer rows."""


def draw_rasters(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Return the panels of each layer as plain data.

    Args:
        arrays: of `raster.npz`: `<layer>.<side>` (T, *shape), `sample`, and `y` where the sample has one label.
    """
    names = [name.removesuffix(".norse") for name in arrays if name.endswith(".norse")]
    sides = [side for side in SIDES if not names or f"{names[0]}.{side}" in arrays]
    layers = {name: [np.asarray(arrays[f"{name}.{side}"]) for side in sides] for name in names}
    flat = {name: [run.reshape(len(run), -1) != 0 for run in runs] for name, runs in layers.items()}
    spikes = sum(int(run.sum()) for runs in flat.values() for run in runs)
    rows = NEURONS if spikes <= SPIKES else max(8, int(NEURONS * SPIKES / spikes))
    return {
        "layers": [_draw_layer(name, runs, rows) for name, runs in flat.items()],
        "sample": int(arrays["sample"]),
        "label": int(arrays["y"]) if "y" in arrays else None,
        "sides": [SIDES[side] for side in sides],
    }


def _draw_layer(name: str, runs: list[Array], rows: int) -> dict[str, Any]:
    norse, fixed, lava = (*runs, runs[-1])[:3]
    steps, neurons = norse.shape
    start = _choose_first_step(norse != fixed, steps)
    window = slice(start, min(steps, start + STEPS))
    chosen = _choose_neurons(norse, fixed, lava, rows)
    parts = [run[window][:, chosen] for run in runs]
    empty = np.zeros_like(parts[0])
    panels = [_draw_panel(parts[0], empty, empty), *(_draw_panel(b & a, b & ~a, a & ~b) for a, b in pairwise(parts))]
    return {
        "name": name,
        "neurons": neurons,
        "rows": len(chosen),
        "first": start,
        "last": window.stop - 1,
        "steps": window.stop - start,
        "panels": panels,
        "spikes": [number(int(run.sum())) for run in runs],
        "integer_differences": int((norse != fixed).sum()),
        "lava_differences": int((fixed != lava).sum()) if len(runs) > 2 else None,
        "compared": norse.size,
    }


def _choose_first_step(different: Array, steps: int) -> int:
    """Return the first step of the raster: 0, or shortly before the first difference of a long run."""
    if steps <= STEPS or not different.any():
        return 0
    return int(np.clip(int(different.any(axis=1).argmax()) - STEPS // 8, 0, steps - STEPS))


def _choose_neurons(norse: Array, fixed: Array, lava: Array, rows: int) -> Array:
    """Return the neurons of the raster in order: those that differ most in up to half of the rows, then the most active."""
    if norse.shape[1] <= rows:
        return np.arange(norse.shape[1])
    differ = ((norse != fixed).astype(np.int64) + (fixed != lava)).sum(axis=0)
    active = norse.sum(axis=0) + fixed.sum(axis=0)
    first = [int(n) for n in np.argsort(-differ, kind="stable")[: rows // 2] if differ[n]]
    others = [int(n) for n in np.argsort(-active, kind="stable") if int(n) not in first]
    return np.array(sorted([*first, *others][:rows]))


def _draw_panel(same: Array, new: Array, gone: Array) -> dict[str, str]:
    """Return the marks of a panel as paths, from masks (steps, neurons); a step is 1 wide, a neuron 1 high."""
    return {
        "same": "".join(f"M{t + 0.1:g} {n + 0.5:g}h.8" for t, n in np.argwhere(same)),
        "new": "".join(f"M{t + 0.1:g} {n + 0.5:g}h.8" for t, n in np.argwhere(new)),
        "gone": "".join(f"M{t + 0.14:g} {n + 0.18:g}h.72v.64h-.72z" for t, n in np.argwhere(gone)),
    }
