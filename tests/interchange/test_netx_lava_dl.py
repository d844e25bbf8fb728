"""netx against lava-dl 0.6.0: its loader, its files, its spikes.

Slow: the package is installed into a folder of the test, without its dependencies. Skipped where no package index answers.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spear_deploy.errors import UnsupportedError
from spear_deploy.interchange.netx.lint import lint_netx
from spear_deploy.interchange.netx.reader import read_netx
from spear_deploy.interchange.netx.weights import distinct_values, simulate_loading
from spear_deploy.interchange.netx.writer import write_netx
from spear_deploy.network.graph import Edge
from spear_deploy.simulator import simulate
from tests.support.netx_files import dense, loihi, net, random_chain, raw, row
from tests.support.netx_flaws import CHANGED, FAILS, FINE, PASSED_OVER

pytestmark = [pytest.mark.slow, pytest.mark.lava, pytest.mark.timeout(1800)]

VERSION = "0.6.0"
DATA = "tests/lava/lib/dl/netx"
"""Where the package has its own test networks."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder with lava-dl, without its dependencies (it pins an older torch than ours)."""
    folder = tmp_path_factory.mktemp("lava_dl")
    package, uv = [f"lava-dl=={VERSION}"], str(Path(sys.executable).parent / "uv")
    options = ["-q", "--no-deps", "--target", str(folder)]
    installers = [
        [uv, "pip", "install", *options, *package],
        [sys.executable, "-m", "pip", "install", "--ignore-requires-python", *options, *package],
    ]
    for command in installers:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return folder
    pytest.skip(f"lava-dl {VERSION} cannot be installed here; an index that has it is needed")


def lava_dl(site, folder, jobs):
    """Run jobs with lava-dl, and return for each None or what went wrong."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).parents[1] / "support" / "lava_dl_run.py"
    memory = f"spear-lava-dl-{os.getpid()}"
    files = [str(folder / "jobs.json"), str(folder / "results.json")]
    command = [sys.executable, "-W", "ignore", str(script), str(site), *files, memory]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not [name for name in os.listdir("/dev/shm") if f"{memory}-" in name]
    return json.loads((folder / "results.json").read_text())


# ------------------------------------------------------------------------------------------------------ what we write


def networks():
    """Yield networks with what lava-dl can hold; it has no refractory time, and a bias in a loop acts before its first step."""
    for seed in range(24):
        graph = random_chain(seed)
        looped = any(edge.delay for edge in graph.edges)
        yield (
            f"chain{seed}",
            graph.with_layers(
                lambda layer, looped=looped: (
                    layer
                    if layer.neuron is None
                    else replace(
                        layer,
                        neuron=replace(
                            layer.neuron,
                            refractory_steps=0,
                            v_threshold=np.array(40) if layer.neuron.v_threshold is None else layer.neuron.v_threshold,
                            **({"bias_mantissa": np.array(0)} if looped else {}),
                        ),
                    )
                )
            ),
        )
    weights = np.random.default_rng(0).integers(-40, 90, (5, 5)) * 2
    loop = net(dense("fc", weights), shape=(5,))
    yield "own weights", replace(loop, edges=(*loop.edges, Edge(source="fc", target="fc", delay=1)))
    yield "dead", net(dense("dead", np.zeros((3, 2), int)), dense("out", np.ones((2, 3), int)), shape=(2,))
    yield "one neuron", net(dense("one", [[60]], v_threshold=50), shape=(1,))
    yield "wide", net(dense("fc", np.random.default_rng(1).integers(-128, 127, (9, 30))), shape=(30,))


def test_lava_dl_loads_exported_files_and_spikes_alike(site, tmp_path):
    jobs, expected = [], []
    for name, graph in networks():
        file = tmp_path / f"{name}.net"
        try:
            write_netx(graph, file)
        except UnsupportedError:
            continue
        if "input" in str(graph).split("\n")[1] and graph.layers[0].name == "in":
            continue  # driven by a current, which lava-dl's caller puts into the bias
        again = read_netx(file)
        x = np.random.default_rng(3).random((12, 1, *again.input_shape)) < 0.4
        np.save(tmp_path / f"{name}.npy", x[:, 0])
        bias = any(getattr(layer.neuron, "bias", np.zeros(1)).any() for layer in graph.layers if layer.neuron is not None)
        jobs.append({"file": str(file), "x": str(tmp_path / f"{name}.npy"), "out": str(tmp_path / f"{name}.npz")})
        jobs[-1] |= {"reset": 1000} if bias else {}
        expected.append((name, graph, x))
    assert len(jobs) >= 12
    assert lava_dl(site, tmp_path, jobs) == [None] * len(jobs)
    spikes = 0
    for name, graph, x in expected:
        result = np.load(tmp_path / f"{name}.npz")
        run = simulate(graph, x.reshape(12, 1, *graph.input_shape), record=("spikes",))
        neurons = [layer.name for layer in graph.layers if layer.neuron is not None]
        for n, layer in enumerate(neurons):
            truth = run.spikes[layer][:, 0].reshape(12, -1)
            assert np.array_equal(result[f"out{n}"].reshape(12, -1), truth), (name, layer)
            spikes += int(truth.sum())
    assert spikes > 1000


def test_weights_after_loading_are_the_simulated_ones(site, tmp_path):
    """`simulate_loading` against the loader and Lava's synapse, on matrices of all ranges and signs."""
    rng = np.random.default_rng(0)
    matrices = {}
    for n in range(3000):
        low = -int(rng.choice([0, 1, 2, 64, 127, 128, 129, 200, 255, 256, 300]))
        high = int(rng.choice([0, 1, 8, 64, 127, 128, 200, 255, 256, 300]))
        matrices[f"m{n}"] = rng.integers(low, high + 1, (2, 3)) * int(rng.choice([1, 1, 1, 2, 16]))
    np.savez(tmp_path / "given.npz", **matrices)
    assert lava_dl(site, tmp_path, [{"matrices": str(tmp_path / "given.npz"), "out": str(tmp_path / "result.npz")}]) == [None]
    result, changed = np.load(tmp_path / "result.npz"), 0
    for name, matrix in matrices.items():
        values = distinct_values(matrix)
        predicted = simulate_loading(values)
        truth = np.full(matrix.shape, np.nan) if predicted is None else predicted[np.searchsorted(values, matrix)]
        assert np.array_equal(result[name], truth, equal_nan=True), matrix
        changed += not np.array_equal(truth, matrix)
    assert changed > 300


def test_the_linter_reports_what_lava_dl_does(site, tmp_path):
    """Files of one flaw each: those that break do break, those without a finding load and run."""
    cases = [(table, name) for table in (FINE, FAILS, CHANGED, PASSED_OVER) for name in table]
    jobs = []
    for n, (table, name) in enumerate(cases):
        file = raw(tmp_path / f"{n}.net", *table[name])
        jobs.append({"file": str(file), "out": str(tmp_path / f"{n}.npz")})
    results = dict(zip([(id(table), name) for table, name in cases], lava_dl(site, tmp_path, jobs), strict=True))
    for name in FINE:
        assert results[id(FINE), name] is None, (name, results[id(FINE), name])
    for name in FAILS:
        assert results[id(FAILS), name] is not None, name
    for name in CHANGED:
        assert results[id(CHANGED), name] is None, (name, results[id(CHANGED), name])
    for n, (table, name) in enumerate(cases):
        assert bool([f for f in lint_netx(tmp_path / f"{n}.net") if f.breaks]) == (table is FAILS or table is CHANGED), name


# ------------------------------------------------------------------------------------------------- what lava-dl ships


def test_delays_per_neuron_spike_as_in_lava_dl(site):
    """NTIDIGITS: 22572 spikes of 242 neurons over 3000 steps, behind delays of up to 62 steps; recorded 4 steps later."""
    data = site / DATA / "gts/ntidigits"
    graph = read_netx(data / "ntidigits.net")
    x = np.load(data / "input.npy").T.reshape(3000, 1, *graph.input_shape).astype(bool)
    truth = np.load(data / "output.npy").T
    spikes = simulate(graph, x, record=("spikes",)).spikes["layer4"][:, 0]
    assert np.array_equal(spikes[:-4], truth[4:]) and truth.sum() == 22572


def test_pilotnet_lif_has_lava_dls_spikes_and_currents(site):
    """Layer d is recorded d steps later; v was recorded before the reset, so it is compared where nothing spiked."""
    data = site / DATA / "gts/pilotnet_lif"
    graph = read_netx(data / "network.net")
    scale = graph["layer0"].synapse
    image = (np.load(data / "image.npy").transpose(2, 1, 0) - scale.bias) / scale.weight
    run = simulate(graph, np.broadcast_to(image, (15, 1, *image.shape)), kind="current", record=("spikes", "u", "v"))
    names = [f"conv-{n}" for n in range(5)] + [f"fc-{n}" for n in range(3)]
    for depth, (layer, name) in enumerate(zip([f"layer{n}" for n in (1, 2, 3, 4, 5, 7, 8, 9)], names, strict=True), 1):
        spikes, u, v = (
            np.load(data / f"{name}{what}.npy").T[depth:15].reshape(15 - depth, *graph.shape_of(layer))
            for what in ("", "-u", "-v")
        )
        assert np.array_equal(run.spikes[layer][: 15 - depth, 0], spikes), layer
        assert np.array_equal(run.u[layer][: 15 - depth, 0], u), layer
        still = ~spikes.astype(bool)
        assert np.array_equal(run.v[layer][: 15 - depth, 0][still], v[still]), layer
        assert spikes.any()


def test_pilotnet_sdnn_has_lava_dls_states_and_output(site):
    """On Lava each layer acts a step later: with a step on every edge the whole run is equal, transients included."""
    data = site / DATA / "gts/pilotnet_sdnn"
    graph = read_netx(data / "network.net")
    late = replace(graph, edges=tuple(replace(e, delay=int(e.source != "input")) for e in graph.edges))
    frame = np.load(data / "input.npy").T / 64  # the input entry multiplies by 64
    run = simulate(late, np.broadcast_to(frame, (20, 1, *graph.input_shape)), kind="current", record=("v",))
    assert np.array_equal(run.output[:9, 0, 0], np.load(data / "output.npy")[0])
    for layer, name in (("layer1", "sigma1"), ("layer2", "sigma2")):
        truth = np.load(data / f"{name}.npy").T
        assert np.array_equal(run.v[layer][:9, 0], truth[:9]) and truth[8].any()


def test_sigma_delta_blocks_are_lava_dls(site, tmp_path):
    """tinynet_sdnn: an encoder, and a convolution and a decoder as recorded: fed with who sent, not with what, a step later."""
    data = site / DATA / "gts/tinynet_sdnn"

    def entry(kind, shape, **more):
        fields = {key: value for key, value in row(kind, shape, **more).items() if not key.startswith("neuron/")}
        return fields | {"neuron/type": "SDNN", "neuron/vThMant": 20}

    image = np.load(data / "input_bias.npy").T
    wave = (image[None] * np.sin(2 * np.pi * np.arange(15) / 15).reshape(-1, 1, 1, 1)).astype(int)
    recorded = np.load(data / "input.npy").T
    file = raw(tmp_path / "a.net", entry("input", [3, 16, 16]), entry("dense", [1], weight=np.ones((1, 768))))
    run = simulate(read_netx(file), wave[:, None] / 64, kind="current", record=("spikes",))
    assert np.array_equal(run.spikes["layer0"][:, 0], recorded) and (recorded < 0).any()
    kernel = np.load(data / "layer1_kernel.npy").transpose(0, 3, 2, 1)[:, :, ::-1, ::-1]  # Lava's order, flipped
    geometry = {"stride": 2, "padding": 0, "dilation": 1, "groups": 1}
    conv = entry("conv", [24, 6, 6], weight=kernel, bias=np.load(data / "layer1_bias.npy"), **geometry)
    graph = read_netx(raw(tmp_path / "b.net", {"type": "input", "shape": np.array([3, 16, 16])}, conv))
    layer1 = np.load(data / "layer1.npy").T
    fed = np.concatenate([np.zeros_like(recorded[:1]), recorded]) != 0
    result = simulate(graph, fed[:, None], record=("spikes",)).spikes["layer1"][:, 0]
    assert np.array_equal(result, layer1) and layer1.any()
    decoder = entry("dense", [100], weight=np.load(data / "layer2_weight.npy")) | {"neuron/sigma_output": True}
    flat = np.load(data / "layer1.npy").reshape(-1, 16).T != 0  # as the recording lies, without turning axes
    out = simulate(read_netx(raw(tmp_path / "c.net", decoder)), flat[:, None]).output[:, 0]
    truth = np.load(data / "layer2.npy").T
    assert np.array_equal(out[:-1], truth[1:]) and truth.any()


def test_all_files_of_the_package_are_read_and_sound(site):
    files = sorted((site / DATA).rglob("*.net"))
    assert len(files) >= 6
    for file in files:
        graph = read_netx(file)
        assert graph.is_integer
        broken = [finding.rule for finding in lint_netx(file) if finding.breaks]
        assert broken == (["not-implemented"] if file.name == "ntidigits.net" else []), file
        x = np.zeros((3, 1, *graph.input_shape))
        assert simulate(graph, x, kind="current").output.shape[0] == 3
    assert loihi().v_threshold == 60
