"""Cuts that level the work of the cores.

Vendors' tools fill cores with neurons and memory; the core with most work then decides the time of a step. Here the layer of
that core is cut once more, again and again, until the cores run out, the work is as small as asked, or one neuron has it all.
No layer gets fewer cores than its vendor's cut, so that every limit of a core is kept.

    dense layer    into one piece more, as equal as can be
    map            its longest axis of positions into halves, the channels last
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import numpy as np

from spear_deploy.network import Array
from spear_deploy.placement.core_needs import Cuts
from spear_deploy.placement.place import Placement
from spear_deploy.placement.splitting import cut_evenly
from spear_deploy.placement.synapse_memory import ceil_div


def level_cuts(placement: Placement, loads: Mapping[str, Array], *, max_cores: int, enough: float = 0.0) -> dict[str, Cuts]:
    """Return the cuts of layers that make the largest work of a core small; layers that stay as they are are left out.

    Args:
        placement: one layer a core, as the vendor's tool packs.
        loads: work of each neuron by layer, of the layer's shape.
        max_cores: cores that there are.
        enough: work of a core at which it ends.
    """
    start = {name: _cuts_of(placement, name) for name in placement.layers}
    maps = {population.name: population.is_map for population in placement.populations}
    cuts = dict(start)
    cores = sum(_count_boxes(along) for along in cuts.values())
    heap = [(-_largest_load(loads[name], along), name) for name, along in cuts.items()]
    heapq.heapify(heap)
    best, best_cuts = -heap[0][0] if heap else 0.0, start
    while heap and -heap[0][0] > enough:
        name = heap[0][1]
        finer = _refine(cuts[name], maps[name])
        if finer is None or cores + _count_boxes(finer) - _count_boxes(cuts[name]) > max_cores:
            break
        cores += _count_boxes(finer) - _count_boxes(cuts[name])
        cuts[name] = finer
        heapq.heapreplace(heap, (-_largest_load(loads[name], finer), name))
        if -heap[0][0] < best:
            best, best_cuts = -heap[0][0], dict(cuts)
    return {name: along for name, along in best_cuts.items() if along != start[name]}


def _cuts_of(placement: Placement, name: str) -> Cuts:
    boxes = [part.box for part in placement.slices_of(name)]
    return tuple(tuple(sorted({box[axis] for box in boxes})) for axis in range(len(boxes[0])))


def _count_boxes(cuts: Cuts) -> int:
    return int(np.prod([len(along) for along in cuts]))


def _largest_load(load: Array, cuts: Cuts) -> float:
    """Return the work of the box that has most."""
    for axis, along in enumerate(cuts):
        load = np.add.reduceat(load, [start for start, _ in along], axis=axis)
    return float(load.max())


def _refine(cuts: Cuts, is_map: bool) -> Cuts | None:
    """Return the cuts with one piece more along a line, or the longest axis of a map in halves; None where nothing is left."""
    shape = tuple(along[-1][1] for along in cuts)
    if not is_map:
        pieces, n = len(cuts[0]), shape[0]
        for more in range(pieces + 1, n + 1):
            if ceil_div(n, ceil_div(n, more)) > pieces:
                return cut_evenly(shape, (ceil_div(n, more), *shape[1:]))
        return None
    extent = [max(stop - start for start, stop in along) for along in cuts]
    axis = 1 + int(np.argmax(extent[1:])) if max(extent[1:]) > 1 else 0
    if extent[axis] == 1:
        return None
    extent[axis] = ceil_div(extent[axis], 2)
    return cut_evenly(shape, extent)
