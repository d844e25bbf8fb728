"""Backend Norse: the simulator's spikes on a binary grid."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import norse.torch as norse  # noqa: E402

from spear_deploy.errors import DataError, UnsupportedError  # noqa: E402
from spear_deploy.frameworks.models import read_model, run_model  # noqa: E402
from spear_deploy.interchange.netx.writer import write_netx  # noqa: E402
from spear_deploy.norse.run import run_on_norse  # noqa: E402
from spear_deploy.pipeline.api import check  # noqa: E402
from spear_deploy.quantize import fold_batchnorm, quantize  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from tests.support.reference import random_graph, random_spikes  # noqa: E402


@pytest.mark.parametrize("seed", range(5))
def test_norse_gives_the_run_of_the_simulator(seed):
    graph = random_graph(seed)
    x = random_spikes(graph, seed, steps=12, batch=3)
    ours, theirs = simulate(graph, x, record=("spikes",)), run_on_norse(graph, x, record=("spikes",))
    assert sorted(ours.spikes) == sorted(theirs.spikes)
    for name, spikes in ours.spikes.items():
        np.testing.assert_array_equal(theirs.spikes[name], spikes, err_msg=name)
        np.testing.assert_array_equal(theirs.counts.sent[name], ours.counts.sent[name])
    np.testing.assert_array_equal(theirs.output, ours.output)
    assert theirs.counts.delivered.keys() == ours.counts.delivered.keys() and theirs.overflows == {}
    assert run_on_norse(graph, x).spikes == {}


def test_the_output_of_a_model_is_that_of_its_own_forward():
    torch.manual_seed(0)
    model = norse.SequentialState(torch.nn.Linear(6, 5), norse.LIFBoxCell(), torch.nn.Linear(5, 3), norse.LIFCell())
    graph = read_model(model, (6,))
    x = np.random.default_rng(0).random((20, 3, 6)) * 4
    run = run_on_norse(graph, x, kind="current", record=("spikes",), forward=partial(run_model, model))
    assert run.output.dtype == bool and run.output.any()
    np.testing.assert_array_equal(run.output, run_model(model, x) > 0)


def test_a_norm_behind_a_flatten_is_folded_exactly_and_reaches_the_chip(tmp_path):
    """Conv2d, LIF, Flatten, BatchNorm1d, Linear, LI: the folded network is Norse's, in spikes and readout."""
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm1d(48)
    with torch.no_grad():
        for value, (low, high) in ((norm.weight, (0.5, 2)), (norm.bias, (-1, 1)), (norm.running_mean, (-1, 1))):
            value.uniform_(low, high)
        norm.running_var.uniform_(0.5, 2)
    conv, readout = torch.nn.Conv2d(1, 3, 3), torch.nn.Linear(48, 4)
    model = norse.SequentialState(conv, norse.LIFBoxCell(), torch.nn.Flatten(), norm, readout, norse.LIBoxCell()).eval()
    graph = read_model(model, (1, 6, 6))
    x = (np.random.default_rng(0).random((30, 5, 1, 6, 6)) < 0.4).astype(np.float32) * 4
    folded = fold_batchnorm(graph)
    assert all(layer.norm is None for layer in folded.layers)
    ours, theirs = simulate(folded, x, kind="current", record=("spikes",)), run_model(model, x)
    counted = simulate(graph, x, kind="current").counts.sent
    assert ours.spikes.keys() and all((ours.counts.sent[name] == counted[name]).all() for name in ours.spikes)
    np.testing.assert_allclose(ours.output, theirs, rtol=1e-5, atol=1e-5)
    assert check(graph, "loihi2").verdict == "fits"
    write_netx(quantize(graph), tmp_path / "a.net")
    assert (tmp_path / "a.net").stat().st_size > 0


def test_integers_and_recorded_states_are_refused():
    graph = random_graph(0)
    with pytest.raises(UnsupportedError, match="backend 'norse': the network holds integers, Norse has floating point"):
        run_on_norse(quantize(graph), random_spikes(graph, 0))
    with pytest.raises(DataError, match="record 'v': backend 'norse' keeps spikes alone; record spikes, or use 'fast'"):
        run_on_norse(graph, random_spikes(graph, 0), record=("spikes", "v"))
