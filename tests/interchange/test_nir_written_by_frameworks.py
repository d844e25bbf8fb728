"""NIR files of installed frameworks: the same spikes as in the framework."""

import nir
import numpy as np
import pytest

from spear_deploy.interchange.nir.frameworks import FRAMEWORKS
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.simulator import simulate
from tests.support.framework_environments import ALONE, BESIDE, NotInstalled, written_by


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Give, by framework, the folder and the cases that it wrote; skip where it cannot be installed."""
    made = {}

    def write(framework):
        if framework not in made:
            folder = tmp_path_factory.mktemp(framework)
            try:
                made[framework] = folder, written_by(framework, folder)
            except NotInstalled as error:
                pytest.skip(f"{framework} cannot be installed here: {error}")
        return made[framework]

    return write


TOLD_BY_TRACES = ("snntorch", "spikingjelly", "rockpool", "norse-LIFBoxCell", "norse-LIFCell", "sinabs-LIF")
"""Frameworks, or cases of one, whose files need no flag."""


def compare(folder, case, framework):
    """Return the graph of a case, and for each neuron layer what it does here and there, aligned."""
    is_told = framework in TOLD_BY_TRACES or f"{framework}-{case['case']}" in TOLD_BY_TRACES
    graph = read_nir(folder / f"{case['case']}.nir", source=None if is_told else framework, reset=case.get("reset"))
    data = np.load(folder / f"{case['case']}.npz", allow_pickle=False)
    x = data["x"].astype(bool).reshape(*data["x"].shape[:2], *graph.input_shape)
    run = simulate(graph, x, record=("spikes", "v"))
    rows = []
    for depth, layer in enumerate(layer for layer in graph.layers if layer.neuron is not None):
        theirs = data[f"s{depth}"]
        ours = (run.spikes if layer.spikes else run.v)[layer.name].reshape(theirs.shape)
        early = depth + 1 if case.get("early", 0) else int("early" in case)
        rows.append((layer, ours[: len(ours) - early], theirs[early:]))
    return graph, x, rows


@pytest.mark.slow
@pytest.mark.parametrize("framework", [*BESIDE, *ALONE])
def test_a_network_spikes_as_in_the_framework_that_wrote_it(framework, written):
    folder, cases = written(framework)
    assert cases
    for case in cases:
        graph, _, rows = compare(folder, case, framework)
        assert len(rows) == 2 and ("dt_s" not in case or graph.dt_s == pytest.approx(case["dt_s"]))
        for layer, ours, theirs in rows:
            if layer.spikes:
                assert theirs.sum() > 20, (case, layer.name)
                assert np.array_equal(ours, theirs), (case, layer.name, int((ours != theirs).sum()), int(theirs.sum()))
            else:
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5, err_msg=str(case))


@pytest.mark.slow
def test_from_snntorch_to_norse_with_and_without_us(written):
    """Norse's own reader passes over r and finds no spike; through us Norse spikes as snnTorch does."""
    import norse.torch as norse
    import torch

    from spear_deploy.norse.network import to_norse

    folder, cases = written("snntorch")
    case = next(case for case in cases if case["case"] == "Leaky-reset_mechanism=zero-reset_delay=False")
    graph, x, rows = compare(folder, case, "snntorch")
    expected = rows[-1][2]
    with torch.no_grad():
        through_us = to_norse(graph).eval()(x.astype(np.float32)).numpy()
        module = norse.from_nir(nir.read(folder / f"{case['case']}.nir"), dt=1e-4)
        state, alone = None, []
        for step in torch.from_numpy(x.astype(np.float32)):
            out, state = module(step, state)
            alone.append(out.numpy())
    assert expected.sum() > 100 and np.array_equal(through_us, expected)
    assert np.sum(alone) == 0


def test_every_framework_that_writes_nir_is_tested():
    """Lava's scripts write no file without the chip's own tools; its equation is NIR's own, see test_nir_file."""
    assert {*BESIDE, *ALONE, "lava"} == set(FRAMEWORKS)
