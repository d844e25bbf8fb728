"""Rows of axons on cores, against sets of source neurons."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.network import IF, Conv1d, Layer
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.placement import core_axons
from spear_deploy.placement.axes import Axis
from spear_deploy.placement.axon_sets import AxonSet, count_union
from spear_deploy.placement.core_assignment import CoreBins, Slice
from spear_deploy.placement.core_axons import AxonRows, find_axon_bits
from spear_deploy.placement.core_needs import Core
from tests.support.chips import small_chip
from tests.support.seeds import seeds

Sources = set[tuple[str, int, int]]


def draw_set(rng: np.random.Generator) -> tuple[AxonSet, Sources]:
    """Return a box of a map of 4 x 6, seen through a kernel of random size and without some neurons, and those of it."""
    axis = Axis(inputs=6, outputs=6, used=6, taps=tuple(range(int(rng.integers(1, 4)))))
    name, way, first, start = (
        str(rng.choice(["a", "b"])),
        int(rng.integers(0, 2)),
        int(rng.integers(0, 4)),
        int(rng.integers(0, 6)),
    )
    channels, ranges = (first, int(rng.integers(first + 1, 5))), ((axis, start, int(rng.integers(start + 1, 7))),)
    positions = np.flatnonzero(axis.mark_inputs(*ranges[0][1:]))
    read = {(c, int(x)) for c, x in product(range(*channels), positions)}
    used, whole = b"", 0
    if rng.random() < 0.5:
        whole, read = len(read), {place for place in read if rng.random() < 0.6} or read
        marks = np.zeros((channels[1], 6), bool)
        marks[tuple(np.array(sorted(read)).T)] = True
        used = np.packbits(marks.reshape(-1)).tobytes()
    axons = AxonSet(sources=(name,), channels=channels, ranges=ranges, count=len(read), way=way, used=used, whole_count=whole)
    return axons, {(f"{name}{way}", *place) for place in read}


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_first_fit_has_a_row_for_each_source_that_a_slice_of_the_core_reads(seed: int) -> None:
    """Whichever parts of the sources slices read, and where two ways of a slice read the same ones."""
    rng = np.random.default_rng(seed)
    items, reads = [], []
    for k in range(15):
        sets, read = zip(*(draw_set(rng) for _ in range(int(rng.integers(1, 4)))), strict=True)
        items.append(Slice(layer=f"l{k}", needs={"neurons": 1, "axons_in": count_union(sets)}, axons=sets))
        reads.append(set[tuple[str, int, int]]().union(*read))
        assert items[-1].amount("axons_in") == len(reads[-1])
    core = Core(small_chip(), {})
    core.limits |= {"neurons": 15, "layers": 15, "axons_in": int(rng.integers(40, 80))}
    bins, rows = CoreBins(core, items, len(items)), [Sources() for _ in items]
    for item, read in zip(items, reads, strict=True):
        first = next(k for k, had in enumerate(rows) if not had or len(had | read) <= core.limits["axons_in"])
        assert bins.put_first(item) == first
        rows[first] |= read
        assert bins.left[first, -2] == core.limits["axons_in"] - len(rows[first])


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_slices_that_read_the_same_part_of_large_sources_share_its_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of cores that are looked up one by one, and of all together."""
    monkeypatch.setattr(core_axons, "MAX_MARKED", 5)
    monkeypatch.setattr(core_axons, "FEW", (0, 64)[seed % 2])
    rng = np.random.default_rng(seed)
    rows, had = AxonRows(), [Sources(), Sources(), Sources()]
    axons, _ = draw_set(rng)
    for _ in range(12):
        marks = rng.random(axons.channels[1] * 6) < 0.4
        marks[0] = True
        used = b"" if rng.random() < 0.1 else np.packbits(marks).tobytes()
        marks |= not used
        whole = marks.size if used else 0
        (bits,) = find_axon_bits((replace(axons, used=used, count=int(marks.sum()), whole_count=whole),))
        read, core = {("a", 0, int(n)) for n in np.flatnonzero(marks)}, int(rng.integers(0, 3))
        assert bits.key.used == b"" and bits.is_all == (not used)  # type: ignore[attr-defined]
        known = [len(read & have) for have in had] + [0]
        for cores in ([0, 1, 2, 3], [0, 1], [1, 3], [2]):
            assert rows.count_had(bits, np.array(cores)).tolist() == [known[k] for k in cores]
        rows.add(bits, core)
        had[core] |= read


def test_sources_are_marked_one_by_one_up_to_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of as many neurons as are marked; of one more, slices share rows where they read the same part."""
    axons, _ = draw_set(np.random.default_rng(0))
    for limit, key in ((axons.span, axons.row), (axons.span - 1, axons.whole)):
        monkeypatch.setattr(core_axons, "MAX_MARKED", limit)
        assert [bits.key for bits in find_axon_bits.__wrapped__((axons,))] == [key]


@pytest.mark.parametrize("few", [0, 64])
def test_rows_of_a_core_stay_its_own_where_more_cores_are_added(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of 41 cores has all of 24 sources, the others some."""
    monkeypatch.setattr(core_axons, "MAX_MARKED", 5)
    monkeypatch.setattr(core_axons, "FEW", few)
    axis = Axis(inputs=24, outputs=24, used=24)
    whole = AxonSet(sources=("a",), channels=(0, 1), ranges=((axis, 0, 24),), count=24)
    rows, counts = AxonRows(), [24, *(1 + core % 23 for core in range(40))]
    for core, count in enumerate(counts):
        used = b"" if count == 24 else np.packbits(np.arange(24) < count).tobytes()
        (bits,) = find_axon_bits((replace(whole, used=used, count=count, whole_count=24 if used else 0),))
        rows.add(bits, core)
    assert rows.count_had(find_axon_bits((whole,))[0], np.arange(41)).tolist() == counts


def test_two_kernels_that_read_one_map_share_its_rows_on_a_core() -> None:
    """131 inputs; each kernel alone has 131 rows, and both together: ODIN's core has 256, and 262 took a second core."""
    layers = [Layer(name=f"k{k}", synapse=Conv1d(weight=np.ones((1, 1, k))), neuron=IF()) for k in (15, 17)]
    edges = [Edge(source=INPUT, target=layer.name) for layer in layers]
    report = check(SNNGraph(layers=layers, edges=edges, input_shape=(1, 131), output="k17"), small_chip("odin"), remedies=False)
    assert report.cores_used == 1 and {row.used for row in report.rows if row.resource == "axons_in"} == {131}


def test_equal_sets_are_marked_once_and_what_is_kept_cannot_be_changed() -> None:
    first, second = (draw_set(np.random.default_rng(0))[0] for _ in range(2))
    assert first is not second and find_axon_bits((first,)) is find_axon_bits((second,))
    axis = Axis(inputs=5, outputs=4, used=5, taps=(0, 1))
    assert axis.mark_inputs(0, 2).tolist() == [True, True, True, False, False]
    with pytest.raises(ValueError, match="read-only"):
        axis.mark_inputs(0, 2)[0] = False
