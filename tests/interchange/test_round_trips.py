"""Random networks through files of all formats: verdict, cores and spikes stay the same, or the writer says what differs."""

from functools import partial

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.errors import GraphError, SpearError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange import load
from spear_deploy.interchange.netx.writer import write_netx
from spear_deploy.interchange.nir.dialect_writer import write_dialect
from spear_deploy.interchange.nir.dialects import DIALECTS
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from tests.support.seeds import few_first
from tests.support.varied_networks import KINDS, vary_network

PROFILES = {name: load_profile(name) for name in ("loihi2", "speck2f", "xylo_audio3", "truenorth", "akd1000")}


def judge(graph, chip):
    """Return verdict, cores and rows; without rows that list a kind of layer that the chip has."""
    report = check(graph, PROFILES[chip], remedies=False)
    rows = sorted(
        (row.resource, "" if row.resource == "layer_kind" else str(row.place), float(f"{row.used or 0:.9g}"), row.status)
        for row in report.rows
        if (row.resource, row.status) != ("layer_kind", "ok")
    )
    return report.verdict, report.cores_used, rows


def run(graph, seed):
    x = (np.random.default_rng(seed).random((8, 2, *graph.input_shape)) < 0.5).astype(np.float32)
    with np.errstate(all="ignore"):
        return simulate(graph, x, record=("spikes",))


def make_round_trip(graph, write, path, chip, seed):
    """Return the network that was read back, None where it was refused; what the writer does not name is equal."""
    try:
        said = write(graph, path)
    except UnsupportedError:
        assert not path.exists()
        return None
    again = load(path)
    differences = " ".join(getattr(said, "differences", said) or ())
    where = (seed, path.name, chip, differences)
    if " is one of " in differences:  # another shape of the input
        return again
    one, two = run(graph, seed), run(again, seed)
    for name, spikes in one.spikes.items():
        np.testing.assert_array_equal(spikes, two.spikes[name], err_msg=str(where))
    if "other units" not in differences:
        np.testing.assert_array_equal(one.output, two.output, err_msg=str(where))
    if "got a weight" not in differences and "is written into its weights" not in differences:
        assert judge(graph, chip) == judge(again, chip), where
    return again


def count_round_trips(seeds, folder):
    """Return by file how many networks came back."""
    counts = dict.fromkeys(("a.snn", "a.nir", "b.nir", "d.nir", "a.net", "b.net"), 0)

    def trip(graph, write, name, chip, seed):
        (folder / name).unlink(missing_ok=True)
        again = make_round_trip(graph, write, folder / name, chip, seed)
        counts[name] += again is not None
        return again

    for seed in seeds:
        kind, chip = (list(options)[seed % len(options)] for options in (KINDS, PROFILES))
        try:
            graph = vary_network(seed, kind)
            run(graph, seed)
        except (GraphError, SpearError):  # no network, or one whose numbers overflow
            continue
        assert trip(graph, write_snn, "a.snn", chip, seed) == graph
        trip(graph, partial(write_dialect, framework=list(DIALECTS)[seed // 5 % len(DIALECTS)]), "d.nir", chip, seed)
        if (read := trip(graph, write_nir, "a.nir", chip, seed)) is not None:
            assert trip(read, write_nir, "b.nir", chip, seed) == read
            assert [layer.name for layer in read.layers] == [
                n.name for n in graph.layers if n.name in {m.name for m in read.layers}
            ]
        try:
            integers = quantize(graph)
        except SpearError:
            continue
        if (read := trip(integers, partial(write_netx, round_bias=True), "a.net", "loihi2", seed)) is not None:
            assert trip(read, write_netx, "b.net", "loihi2", seed) == read
    return counts


@pytest.mark.parametrize("seeds", few_first([range(730_000, 730_030), range(730_030, 730_090)], 1))
def test_random_networks_keep_verdict_and_spikes_in_files(tmp_path, seeds):
    counts = count_round_trips(seeds, tmp_path)
    assert min(counts.values()) >= 1, counts


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_random_networks_keep_verdict_and_spikes_in_files(tmp_path):
    counts = count_round_trips(range(740_000, 741_500), tmp_path)
    assert min(counts.values()) >= 60, counts
