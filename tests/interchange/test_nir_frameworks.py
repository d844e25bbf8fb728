"""NIR conventions of each framework, against loops of its own discrete equations."""

import numpy as np
import pytest

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange import load, reader_options
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.network import Dense
from spear_deploy.simulator import simulate
from tests.interchange.test_nir_file import CHAIN, INPUT, OUTPUT, raw

STEPS = 80


def drive(seed=0):
    return (np.random.default_rng(seed).normal(0.15, 0.3, (STEPS, 1, 2)) * 64).round() / 64


def file(path, **fields):
    nodes = {"input": INPUT, "n": {"v_leak": np.zeros(2), **fields}, "output": OUTPUT}
    return raw(path, nodes, CHAIN)


def looped(x, keep, *, gain=1.0, reset="subtract", late=False, reached=False, keep_syn=None, syn_gain=1.0, threshold=1.0):
    """v ← keep · v + gain · i, where i is x or a current i ← keep_syn · i + syn_gain · x; spikes by step."""
    v = i = np.zeros(x.shape[1:])
    spikes = []
    z = np.zeros(x.shape[1:])
    for now in x:
        i = now if keep_syn is None else keep_syn * i + syn_gain * now
        v = keep * v + gain * i - (late * threshold * z)
        z = (v >= threshold if reached else v > threshold).astype(float)
        spikes.append(z)
        if reset == "value":
            v = v * (1 - z)
        elif not late:
            v = v - threshold * z
    return np.array(spikes) != 0


def spikes(graph, x):
    return simulate(graph, x, kind="current", record=("spikes",)).spikes["n"]


def snntorch_fields(beta=0.9, alpha=None):
    dt = 1e-4
    tau = np.full(2, dt / (1 - beta))
    if alpha is None:
        return {"type": "LIF", "tau": tau, "r": tau / dt, "v_threshold": np.ones(2)}
    syn = np.full(2, dt / (1 - alpha))
    return {"type": "CubaLIF", "tau_mem": tau, "r": tau / dt, "tau_syn": syn, "w_in": syn / dt, "v_threshold": np.ones(2)}


@pytest.mark.parametrize("alpha", [None, 0.8])
@pytest.mark.parametrize(("reset", "late"), [(None, True), ("subtract", False), ("value", False)])
def test_snntorch_resets_a_step_late_by_default(alpha, reset, late, tmp_path):
    graph = read_nir(file(tmp_path / "a.nir", **snntorch_fields(0.9, alpha)), source="snntorch", reset=reset)
    x = drive() * (1 if alpha is None else 0.3)
    expected = looped(x, 0.9, keep_syn=alpha, late=late, reset=reset or "subtract")
    assert expected.sum() > 10 and np.array_equal(spikes(graph, x), expected)
    assert graph.dt_s == 1e-4
    notes = " ".join(graph.metadata["assumptions"])
    assert "the time step is 0.0001 s, as snntorch writes its files" in notes
    assert ("subtracts the threshold one step later" in notes) == (reset is None)
    assert [layer.name for layer in graph.layers] == ["n"]
    assert graph["n"].neuron.reset_delay == (reset is None)


def test_sinabs_counts_tau_in_steps(tmp_path):
    fields = {"type": "LIF", "tau": np.array(12.0), "r": np.array(1.0), "v_threshold": np.array(0.25)}
    graph = read_nir(file(tmp_path / "a.nir", **fields), source="sinabs", dt_s=1e-3)
    keep = np.exp(-1 / 12)
    expected = looped(3 * drive(), keep, gain=1 - keep, reached=True, threshold=0.25)
    assert expected.sum() > 10 and np.array_equal(spikes(graph, 3 * drive()), expected)
    assert graph.dt_s == 1e-3 and graph["n"].neuron.reset == "subtract"


def test_sinabs_spikes_where_the_threshold_is_reached(tmp_path):
    path = file(tmp_path / "a.nir", type="IF", r=np.ones(2), v_threshold=np.ones(2))
    x = np.full((8, 1, 2), 0.25)
    assert np.flatnonzero(spikes(read_nir(path, source="sinabs"), x)[:, 0, 0]).tolist() == [3, 7]
    assert np.flatnonzero(spikes(read_nir(path), x)[:, 0, 0]).tolist() == [4]
    assert any("one float32 step lower" in note for note in read_nir(path, source="sinabs").metadata["assumptions"])


def test_sinabs_keeps_v_of_an_if_neuron_above_minus_the_threshold(tmp_path):
    """As its own reader sets min_v_mem; a LIF has none there."""
    path = file(tmp_path / "a.nir", type="IF", r=np.ones(2), v_threshold=np.array([1.0, 0.5]))
    graph, plain = read_nir(path, source="sinabs"), read_nir(path)
    assert graph["n"].neuron.v_min.tolist() == [-1.0, -0.5] and plain["n"].neuron.v_min is None
    x = np.concatenate([np.full((5, 1, 2), -1.0), np.full((5, 1, 2), 0.5)])
    assert np.flatnonzero(spikes(graph, x)[:, 0, 0]).tolist() == [8] and not spikes(plain, x)[:, 0, 0].any()
    assert any("does not write min_v_mem" in note for note in graph.metadata["assumptions"])
    lif = {"type": "LIF", "tau": np.array(12.0), "r": np.array(1.0), "v_threshold": np.array(0.25)}
    assert not hasattr(read_nir(file(tmp_path / "b.nir", **lif), source="sinabs")["n"].neuron, "v_min")


def test_sinabs_readout_is_not_normalised(tmp_path):
    graph = read_nir(file(tmp_path / "a.nir", type="LI", tau=np.full(2, 5.0), r=np.ones(2)), source="sinabs")
    v = simulate(graph, drive(), kind="current", record=("v",)).v["n"]
    expected, keep = np.zeros(2), np.exp(-1 / 5)
    for t, now in enumerate(drive()[:, 0]):
        expected = keep * expected + now
        np.testing.assert_allclose(v[t, 0], expected, atol=1e-5)


@pytest.mark.parametrize("dt", [1e-3, 2.5e-3])
def test_rockpools_step_follows_from_r_and_tau(dt, tmp_path):
    mem, syn = 0.02, 0.01
    r = mem * np.exp(-dt / mem) / dt
    fields = {"type": "CubaLIF", "tau_mem": np.full(2, mem), "tau_syn": np.full(2, syn), "r": np.full(2, r)}
    path = file(tmp_path / "a.nir", **fields, v_threshold=np.ones(2))
    graph = read_nir(path, source="rockpool")
    assert graph.dt_s == dt
    keep, keep_syn = np.exp(-dt / mem), np.exp(-dt / syn)
    x = 0.4 * drive()
    expected = looped(x, keep, keep_syn=keep_syn, syn_gain=keep_syn, reached=True)
    assert expected.sum() > 5 and np.array_equal(spikes(graph, x), expected)
    assert read_nir(path, source="rockpool", dt_s=5e-3).dt_s == 5e-3
    plain = {"type": "LIF", "tau": np.full(2, mem), "r": np.full(2, r), "v_threshold": np.ones(2)}
    graph = read_nir(file(tmp_path / "b.nir", **plain), source="rockpool")
    expected = looped(drive(), keep, reached=True)
    assert expected.sum() > 5 and np.array_equal(spikes(graph, drive()), expected)
    synapse = {"type": "LI", "tau": np.full(2, mem), "r": np.full(2, r)}
    v = simulate(read_nir(file(tmp_path / "c.nir", **synapse), source="rockpool"), drive(), kind="current", record=("v",)).v["n"]
    assert v[0, 0, 0] == pytest.approx(keep * drive()[0, 0, 0], rel=1e-5)


def test_rockpool_neurons_of_two_steps_are_refused(tmp_path):
    r = np.array([0.02, 0.02]) * np.exp(-np.array([1e-3, 2e-3]) / 0.02) / np.array([1e-3, 2e-3])
    path = file(tmp_path / "a.nir", type="LIF", tau=np.full(2, 0.02), r=r, v_threshold=np.ones(2))
    with pytest.raises(GraphError, match="node 'n': its r and tau imply another dt than 'n'; give dt_s"):
        read_nir(path, source="rockpool")


def spyx_nodes(kind, beta=0.875):
    tau = np.full(2, 1 / (1 - beta))
    fields = {"IF": {"r": np.ones(2)}, "LIF": {"tau": tau, "r": np.full(2, beta), "v_leak": np.zeros(2)}}[kind]
    return {"type": kind, "v_threshold": np.ones(2), **fields}


@pytest.mark.parametrize(("kind", "keep"), [("IF", 1.0), ("LIF", 0.875)])
def test_spyx_sends_spikes_a_step_late(kind, keep, tmp_path):
    """Two neurons in a row, and a way around the first one: the way around must wait for it."""
    nodes = {"input": INPUT, "a": spyx_nodes(kind), "n": spyx_nodes(kind), "output": OUTPUT}
    edges = [("input", "a"), ("a", "n"), ("input", "n"), ("n", "output")]
    graph = read_nir(raw(tmp_path / "a.nir", nodes, edges), source="spyx")
    x = drive()
    first = looped(x, keep, late=True)
    arriving = x + np.concatenate([np.zeros((1, 1, 2)), first[:-1]])
    assert np.array_equal(spikes(graph, x), looped(arriving, keep, late=True))
    assert any(
        note == "spyx sends each spike a step late: the output comes 1 steps earlier here"
        for note in graph.metadata["assumptions"]
    )
    nodes["a2"], nodes["w"] = spyx_nodes(kind), {"type": "Linear", "weight": np.eye(2)}
    graph = read_nir(
        raw(tmp_path / "b.nir", nodes, [("input", "a"), ("a", "a2"), ("a2", "w"), ("w", "n"), ("n", "output")]), source="spyx"
    )
    assert not any(edge.delay for edge in graph.edges)


def test_a_bias_keeps_spyxs_steps(tmp_path):
    nodes = {"input": INPUT, "a": spyx_nodes("LIF"), "w": {"type": "Affine", "weight": np.eye(2), "bias": np.full(2, 0.2)}}
    nodes |= {"n": spyx_nodes("LIF"), "output": OUTPUT}
    graph = read_nir(raw(tmp_path / "a.nir", nodes, [("input", "a"), ("a", "w"), ("w", "n"), ("n", "output")]), source="spyx")
    x = drive()
    arriving = 0.2 + np.concatenate([np.zeros((1, 1, 2)), looped(x, 0.875, late=True)[:-1]])
    assert np.array_equal(spikes(graph, x), looped(arriving, 0.875, late=True))
    assert "spyx sends each spike a step late: edges have that step here" in graph.metadata["assumptions"]


def nested(edges):
    inner = {
        "type": "NIRGraph",
        "edges": np.array(edges, dtype=object),
        "nodes": {
            "in": INPUT,
            "w": {"type": "Linear", "weight": np.array([[0.0, 0.5], [-0.25, 0.0]])},
            "n": spyx_nodes("LIF"),
            "out": OUTPUT,
        },
    }
    return {"input": INPUT, "rec": inner, "output": OUTPUT}


def flat_raw(path, nodes, edges):
    """`raw`, with nested graphs."""
    import h5py

    def put(group, fields):
        for key, value in fields.items():
            if isinstance(value, dict):
                put(group.create_group(key), value)
            else:
                group[key] = value.astype(h5py.string_dtype()) if getattr(value, "dtype", None) == np.dtype(object) else value

    with h5py.File(path, "w") as opened:
        put(opened.create_group("node"), {"type": "NIRGraph", "edges": np.array(edges, dtype=object), "nodes": nodes})
    return path


def test_spyxs_recurrent_layer_gets_its_input_at_the_neuron(tmp_path):
    edges = [("in", "w"), ("w", "n"), ("n", "w"), ("n", "out")]
    path = flat_raw(tmp_path / "a.nir", nested(edges), [("input", "rec"), ("rec", "output")])
    graph = read_nir(path, source="spyx")
    w = np.array([[0.0, 0.5], [-0.25, 0.0]])
    v = z = np.zeros(2)
    x = drive()
    emitted = simulate(graph, x, kind="current", record=("spikes",)).spikes["rec.n"]
    for t, now in enumerate(x[:, 0]):
        v = 0.875 * v + now + w @ z - z
        z = (v > 1).astype(float)
        assert np.array_equal(emitted[t, 0], z != 0), t
    assert any("the input goes to 'n', not through the recurrent weights 'w'" in note for note in graph.metadata["assumptions"])
    plain = read_nir(path)
    assert any("which Spyx writes and does not mean; give the source 'spyx'" in note for note in plain.metadata["assumptions"])
    assert isinstance(plain["rec.n"].synapse, Dense) and graph["rec.n"].synapse is None  # the input through w, and not


def test_norse_writes_dt_tau_and_no_w_in(tmp_path):
    dt = 1e-3
    lif = {"type": "LIF", "tau": np.full(2, dt * 0.005), "r": np.ones(2), "v_threshold": np.full(2, 0.2)}
    graph = read_nir(file(tmp_path / "a.nir", **lif), source="norse")
    assert graph.dt_s == dt
    np.testing.assert_allclose(graph["n"].neuron.tau_s, 0.005)
    assert any("as Norse 1.1.0 writes them" in note for note in graph.metadata["assumptions"])
    cuba = {"type": "CubaLIF", "tau_mem": np.full(2, dt * 0.01), "tau_syn": np.full(2, dt * 0.004), "r": np.ones(2)}
    graph = read_nir(file(tmp_path / "b.nir", **cuba, v_threshold=np.full(2, 0.2)), source="norse")
    x = drive()
    i = v = np.zeros(2)
    emitted = spikes(graph, x)
    for t, now in enumerate(x[:, 0]):
        i = i + now
        v = v + dt / 0.01 * (i - v)
        i = i - dt / 0.004 * i
        z = v > 0.2
        assert np.array_equal(emitted[t, 0], z), t
        v = np.where(z, 0, v)
    # in seconds and with w_in, as others write for Norse: nothing to convert
    cuba = {"type": "CubaLIF", "tau_mem": np.full(2, 0.01), "tau_syn": np.full(2, 0.004), "w_in": np.full(2, 4.0)}
    neuron = read_nir(file(tmp_path / "c.nir", **cuba, v_threshold=np.ones(2)), source="norse")["n"].neuron
    assert neuron.w_in == 4.0 and neuron.tau_mem_s == 0.01


def test_options_go_before_the_defaults_of_a_framework(tmp_path):
    path = file(tmp_path / "a.nir", **snntorch_fields())
    graph = read_nir(path, source="lava", dt_s=2e-4, reset="subtract")
    assert graph.dt_s == 2e-4 and graph["n"].neuron.reset == "subtract" and len(graph.layers) == 1
    assert read_nir(path, source="lava")["n"].neuron.reset == "value"


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("nengo", "source 'nengo': reads NIR and writes none; name the framework that wrote the file"),
        ("snntroch", "source 'snntroch': expected one of snntorch, norse, .*; did you mean 'snntorch'"),
    ],
)
def test_unknown_sources(source, match, tmp_path):
    with pytest.raises(UnsupportedError, match=match):
        read_nir(file(tmp_path / "a.nir", **snntorch_fields()), source=source)


def test_our_own_file_has_no_other_source(tmp_path):
    from spear_deploy.interchange.nir.writer import write_nir

    graph = read_nir(file(tmp_path / "a.nir", **snntorch_fields()))
    write_nir(graph, tmp_path / "b.nir")
    with pytest.raises(
        UnsupportedError, match="source 'snntorch': the file was written by spear-deploy and needs none; leave it out"
    ):
        read_nir(tmp_path / "b.nir", source="snntorch")
    assert reader_options("b.nir") == ("dt_s", "reset", "source")
    assert load(tmp_path / "a.nir", source="snntorch").dt_s == 1e-4


def test_signs_of_another_step_are_noted(tmp_path):
    slow = file(tmp_path / "a.nir", type="LIF", tau=np.full(2, 1e-2), r=np.full(2, 10.0), v_threshold=np.ones(2))
    assert any(note.startswith("tau / r is 0.001 s in every neuron") for note in read_nir(slow).metadata["assumptions"])
    assert not any("tau / r" in note for note in read_nir(slow, dt_s=1e-3).metadata["assumptions"])
    fast = file(tmp_path / "b.nir", type="LIF", tau=np.full(2, 1e-5), r=np.ones(2), v_threshold=np.ones(2))
    notes = read_nir(fast, source="nir").metadata["assumptions"]
    assert any("node 'n': dt is 10 of its time constants" in note for note in notes)
    with pytest.raises(GraphError, match="dt_s: nan given, a time step is above 0 s"):
        read_nir(fast, dt_s=float("nan"))


def test_norses_trace_is_equal_with_source_norse():
    from tests.conftest import shared

    graph = read_nir(shared("conformance/nir_lif/lif_norse.nir"), source="norse", dt_s=1e-4)
    current, _, theirs = np.loadtxt(shared("conformance/nir_lif/lif_norse.csv"), delimiter=",").T
    emitted = simulate(graph, current[:, None, None], kind="current", record=("spikes",)).spikes["1"]
    assert np.array_equal(emitted.ravel(), theirs == 1)


def test_the_command_line_takes_a_source_and_prints_the_assumptions(tmp_path):
    import json

    from click.testing import CliRunner

    from spear_deploy.cli import main

    net = str(file(tmp_path / "a.nir", **snntorch_fields()))
    np.savez(tmp_path / "in.npz", current=drive())
    out = str(tmp_path / "run.npz")
    command = ["simulate", net, "--input", str(tmp_path / "in.npz"), "--out", out, "--json"]
    result = CliRunner().invoke(main, [*command, "--source", "snntorch"])
    assert result.exit_code == 0 and "note: the time step is 0.0001 s, as snntorch writes its files" in result.stderr
    assert json.loads(result.stdout)["out"] == out
    expected = looped(drive(), 0.9, late=True)
    assert np.array_equal(np.load(out)["n.spikes"], expected)
    recognised = CliRunner().invoke(main, command)
    assert "note: read as snnTorch's: r · 1e-4 equals tau in every neuron; --source overrules" in recognised.stderr
    assert np.array_equal(np.load(out)["n.spikes"], expected)
    plain = CliRunner().invoke(main, [*command, "--source", "nir"])
    assert "note: NIR has no time step: 0.0001 s is taken" in plain.stderr and json.loads(plain.stdout)
    wrong = CliRunner().invoke(main, [*command, "--source", "snnorch"])
    assert wrong.exit_code == 1 and "source 'snnorch': expected one of" in wrong.stderr
    exported = CliRunner().invoke(
        main, ["export", net, "--source", "snntorch", "--to", "nir", "--out", str(tmp_path / "b.nir"), "--json"]
    )
    report = json.loads(exported.stdout)
    assert report["mismatches"] == 0 and any("as snntorch writes its files" in note for note in report["assumptions"])


def test_only_nir_files_have_a_source(tmp_path):
    from spear_deploy.errors import DataError, FileError
    from spear_deploy.interchange.snn_file import write_snn
    from spear_deploy.pipeline import api

    graph = read_nir(file(tmp_path / "a.nir", **snntorch_fields()))
    write_snn(graph, tmp_path / "a.snn")
    with pytest.raises(FileError, match="states its own source; leave the option out"):
        api.load(tmp_path / "a.snn", source="snntorch")
    with pytest.raises(DataError, match="a model states its own source; leave the option out"):
        api.load("module:function", source="snntorch")
