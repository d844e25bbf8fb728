"""Levelled packing against the vendor's and random ones on five networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.core_work import measure_core_work
from spear_deploy.budget.traffic import count_traffic
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, Conv2d, Dense, Flatten, SumPool
from spear_deploy.network.graph import Layer, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.placement.place import place, place_populations
from spear_deploy.placement.splitting import cut_evenly
from spear_deploy.placement.weight_bits import stored_bits
from spear_deploy.simulator import SpikeCounts
from tests.benchmarks.packings import cut_at_random, make_table
from tests.support.chips import dense_net, random_net

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")


def convolutional() -> SNNGraph:
    rng = np.random.default_rng(0)
    layers = (
        Layer(name="c1", synapse=Conv2d(weight=rng.normal(size=(8, 2, 3, 3)).astype(np.float32), padding=(1, 1)), neuron=IF()),
        Layer(name="pool", synapse=SumPool(kernel_size=(2, 2), stride=(2, 2))),
        Layer(name="c2", synapse=Conv2d(weight=rng.normal(size=(16, 8, 3, 3)).astype(np.float32)), neuron=IF()),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(10, 16 * 6 * 6)).astype(np.float32)), neuron=IF()),
    )
    return chain(layers, input_shape=(2, 16, 16))


NETWORKS: dict[str, Any] = {
    "digits": lambda: api.load("digits"),
    "convolutional": convolutional,
    "wide": lambda: dense_net(200, 600, 20),
    "deep": lambda: dense_net(40, 80, 80, 80, 10),
    "random": lambda: random_net(np.random.default_rng(5)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("chip", [LOIHI1, LOIHI2], ids=["loihi1", "loihi2"])
def test_the_fullest_core_has_less_work_than_the_vendors_and_than_random_cuts_into_as_many_cores(name: str, chip: Any) -> None:
    net = NETWORKS[name]()
    report = check(net, chip, activity=0.1, steps=8)
    vendor, balanced = report.work.load.max(), report.balanced
    assert balanced.gain == pytest.approx(vendor / balanced.work.load.max()) and balanced.gain > 1.2
    assert report.placement.cores_used < balanced.placement.cores_used <= report.cores_limit
    assert balanced.latency.interval.upper < report.latency.interval.upper
    assert balanced.work.synops.sum() == pytest.approx(report.work.synops.sum())
    counts = SpikeCounts(sent={k: np.full(net.shape_of(k), 0.8) for k in ("input", *(x.name for x in net.layers if x.spikes))},
                         steps=8, samples=1)  # fmt: skip
    rng = np.random.default_rng(0)
    populations, bits = report.placement.populations, stored_bits(net, chip)
    for _ in range(5):
        cuts = {}
        for population in populations:
            pieces = int(rng.integers(1, 1 + max(1, 2 * balanced.placement.cores_used // len(populations))))
            cuts[population.name] = cut_evenly(population.shape, (-(-population.shape[0] // pieces), *population.shape[1:]))
        other = place_populations(populations, bits, chip, own_cuts=cuts)
        work = measure_core_work(chip, other, count_traffic(net, chip, other, counts), 8, bits)
        assert other.cores_used > balanced.placement.cores_used or work.load.max() >= balanced.work.load.max() * (1 - 1e-9)


def test_it_is_said_with_cores_and_time() -> None:
    report = check(dense_net(40, 80, 10), LOIHI2, activity=0.5, steps=4)
    data = report.to_json()["packing"]["balanced"]
    assert data["cores"] == report.balanced.placement.cores_used and data["gain"] == report.balanced.gain
    assert data["latency_interval_s"] == report.balanced.latency.interval.ends()
    assert report.balanced.placement.packing == "balanced"
    assert "cores instead of 2 leave the fullest core" in " ".join(str(report).split())


@pytest.mark.parametrize("chip", ["speck2f", "truenorth", "odin", "xylo_imu"])
def test_chips_whose_layers_share_cores_or_lie_whole_on_one_are_not_levelled(chip: str) -> None:
    report = check(dense_net(10, 8, 4), load_profile(chip), activity=0.5)
    assert report.balanced is None and report.to_json()["packing"]["balanced"] is None


def test_without_activity_or_free_cores_nothing_is_levelled() -> None:
    assert check(dense_net(40, 80, 10), LOIHI2).balanced is None
    net = dense_net(10, 120 * 1024, 3)
    assert place(net, LOIHI1).cores_used >= 120 and check(net, LOIHI1, activity=0.1).balanced is None


def test_random_packings_of_the_table_have_the_cores_of_the_balanced_one() -> None:
    levelled = check(dense_net(40, 300, 10), LOIHI2, activity=0.2, steps=4).balanced
    assert levelled is not None
    cuts = cut_at_random(levelled.placement, np.random.default_rng(0))
    placement = levelled.placement
    other = place_populations(placement.populations, {}, LOIHI2, chips=1, own_cuts=cuts)
    assert other.cores_used == placement.cores_used
    assert [part.box for part in other.slices] != [part.box for part in placement.slices]


@pytest.mark.slow
def test_the_table_of_packings_is_that_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "semantics.md").read_text(encoding="utf-8")
    rows = make_table().splitlines()[2:]
    assert len(rows) == 5
    for row in rows:
        assert row in page
        vendor, balanced, best, middle = (float(cell.replace(",", "")) for cell in row.split("|")[3:7])
        assert balanced < best <= middle and balanced < vendor
