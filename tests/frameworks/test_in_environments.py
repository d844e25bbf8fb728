"""200 random networks there and back, and the page of each framework, in an environment that has it."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from spear_deploy.interchange.nir.dialect_writer import write_dialect
from spear_deploy.network import IF, LIF, AvgPool, Conv2d, CubaLIF, Dense, Layer
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.simulator import simulate
from tests.support.framework_environments import NotInstalled, install

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly", "sinabs", "rockpool", "norse"])
def test_200_random_networks_spike_as_in_their_framework(framework, tmp_path):
    try:
        python, environment = install(framework, tmp_path)
    except NotInstalled as error:
        pytest.skip(f"{framework} cannot be installed here: {error}")
    command = [
        python,
        "-m",
        "pytest",
        *[path for path in [HERE / f"test_{framework}.py"] if path.exists()],
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore",
        "-rs",
        "-m",
        "",
    ]
    environment["SPEAR_RANDOM_NETWORKS"] = "200"
    command += [HERE / "test_back_home.py", HERE.parent / "test_docs.py"]
    command += ["-k", f"test_{framework} or from_{framework} or (back_home and {framework}) or random_network_of_{framework}"]
    completed = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1], timeout=1800, check=False
    )
    assert completed.returncode == 0, completed.stdout[-3000:]
    assert "SKIPPED" not in completed.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("framework", ["sinabs", "rockpool"])
def test_a_file_is_imported_beside_the_version_of_nir_that_a_framework_asks_for(framework, tmp_path):
    graph = make_network(framework)
    advice = write_dialect(graph, tmp_path / "home.nir", framework=framework)
    x = (np.random.default_rng(1).random((20, 3, *graph.input_shape)) < 0.4).astype(np.float32)
    names = [layer.name for layer in graph.layers if layer.spikes]
    np.savez(tmp_path / "facts.npz", x=x, statements=np.array(advice.statements), names=np.array(names))
    try:
        python, environment = install(framework, tmp_path, also=("nir==1.0.4", "nirtorch==2.0.2"))
    except NotInstalled as error:
        pytest.skip(f"{framework} cannot be installed here: {error}")
    command = [python, "-W", "ignore", "-m", "tests.support.homecoming", framework, tmp_path / "home.nir", tmp_path / "facts.npz"]
    completed = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1], timeout=600, check=False
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    theirs, ours = np.load(tmp_path / "facts.npz"), simulate(graph, x, kind="current", record=("spikes",)).spikes
    assert str(theirs["nir"]).startswith("1.0.4")
    for name in names:
        assert ours[name].sum() > 10
        np.testing.assert_array_equal(ours[name], theirs[f"layer {name}"] != 0)


def make_network(framework):
    """Return a network on images for sinabs, a recurrent one for Rockpool."""
    rng = np.random.default_rng(0)

    def weights(*shape):
        return rng.normal(0.25, 0.45, shape).astype(np.float32)

    if framework == "sinabs":
        leaky = LIF(tau_s=np.asarray(5e-3), r=np.asarray(5.0), reset="subtract")
        layers = [
            Layer(name="c", synapse=Conv2d(weight=weights(3, 1, 3, 3), padding=(1, 1)), neuron=leaky),
            Layer(name="mean", synapse=AvgPool(kernel_size=(2, 2))),
            Layer(name="c2", synapse=Conv2d(weight=weights(3, 3, 3, 3), padding=(1, 1)), neuron=IF(reset="subtract")),
            Layer(name="out", synapse=Dense(weight=weights(5, 48) / 3), neuron=leaky),
        ]
        return chain(layers, input_shape=(1, 8, 8))
    keep, keep_syn = np.exp(-0.1), np.exp(-0.2)
    neuron = CubaLIF(
        tau_mem_s=np.asarray(1e-3 / (1 - keep)),
        tau_syn_s=np.asarray(1e-3 / (1 - keep_syn)),
        r=np.asarray(1 / (1 - keep)),
        w_in=np.asarray(keep_syn / (1 - keep_syn)),
        reset="subtract",
    )
    parts = (
        Layer(name="fc", synapse=Dense(weight=weights(6, 4))),
        Layer(name="lif.recurrent", synapse=Dense(weight=weights(6, 6) / 4)),
        Layer(name="lif", neuron=neuron),
        Layer(name="out", synapse=Dense(weight=weights(3, 6) / 2), neuron=neuron),
    )
    ends = (("input", "fc", 0), ("fc", "lif", 0), ("lif.recurrent", "lif", 0), ("lif", "lif.recurrent", 1), ("lif", "out", 0))
    return SNNGraph(layers=parts, edges=tuple(Edge(source=a, target=b, delay=d) for a, b, d in ends), input_shape=(4,))
