"""Verbs called from Python: arguments and refusals."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.data import from_arrays
from spear_deploy.errors import ChipError, DataError, FileError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import Dense, Layer, LoihiLIF
from spear_deploy.network.graph import chain
from spear_deploy.pipeline import api
from spear_deploy.pipeline.deploy import deploy
from spear_deploy.pipeline.preflight import check_inputs
from spear_deploy.pipeline.prune import prune
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from tests.support.reference import random_graph, random_spikes


@pytest.fixture
def model():
    torch = pytest.importorskip("torch")
    import norse.torch as norse

    torch.manual_seed(0)
    return norse.SequentialState(torch.nn.Linear(6, 5), norse.LIFBoxCell(), torch.nn.Linear(5, 3), norse.LICell())


def test_a_graph_a_file_and_a_model_are_networks(tmp_path, model):
    graph = random_graph(0)
    write_snn(graph, tmp_path / "net.snn")
    assert api.load(graph) is graph and api.load(tmp_path / "net.snn") == graph
    loaded = api.load(model, input_shape=(6,), dt_s=1e-3)
    assert loaded.input_shape == (6,) and [layer.spikes for layer in loaded.layers] == [True, False]


def test_a_number_is_no_network_and_a_model_needs_an_input_shape(model, tmp_path):
    with pytest.raises(DataError, match="net: int given, expected a network"):
        api.load(3)
    assert api.load(model).input_shape == (6,)  # its linear layer says so
    with pytest.raises(
        UnsupportedError, match=r"the model states no input shape: it begins with neither a linear layer nor a conv"
    ):
        api.load(model[1])
    with pytest.raises(DataError, match="a model states its own reset"):
        api.load(model, input_shape=(6,), reset="subtract")
    write_snn(random_graph(0), tmp_path / "net.snn")
    with pytest.raises(FileError, match="states its own input_shape; leave the option out"):
        api.load(tmp_path / "net.snn", input_shape=(1,))


OPTIONS = {"input_shape": (6,), "dt_s": 1e-3, "reset": "subtract", "source": "snntorch"}
VERBS = {
    "load": lambda net, data, **options: api.load(net, **options),
    "check": lambda net, data, **options: api.check(net, "loihi2", **options),
    "rank": lambda net, data, **options: api.rank(net, ["loihi2"], **options),
    "count": lambda net, data, **options: api.count(net, data, **options),
    "simulate": lambda net, data, **options: api.simulate(net, np.moveaxis(data.test.x, 0, 1), **options),
    "compare": lambda net, data, **options: api.compare(net, net, np.moveaxis(data.test.x, 0, 1), **options),
    "export": lambda net, data, **options: api.export(net, "never.nir", to="nir", **options),
    "prune": lambda net, data, **options: prune(net, "loihi2", data, out="never", **options),
    "deploy": lambda net, data, **options: deploy(net, "loihi2", data, out="never", **options),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("option", OPTIONS)
def test_a_loaded_network_takes_no_option_of_reading(verb, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = random_graph(0)
    x = np.zeros((20, 5, *graph.input_shape), np.uint8)
    data = from_arrays({"x": x, "y": np.arange(20) % 2}, name="zeros", input_shape=graph.input_shape)
    with pytest.raises(DataError, match=f"^net: a loaded network states its own {option}; leave the option out$"):
        VERBS[verb](graph, data, **{option: OPTIONS[option]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", OPTIONS)
def test_a_network_that_ships_takes_no_option_of_reading(option):
    with pytest.raises(DataError, match=f"^digits: a network that ships states its own {option}; leave the option out$"):
        api.load("digits", **{option: OPTIONS[option]})


def test_a_nir_graph_takes_no_input_shape(tmp_path):
    import nir

    api.export(random_graph(0), tmp_path / "net.nir", to="nir")
    with pytest.raises(DataError, match="^net: a nir.NIRGraph states its own input_shape; leave the option out$"):
        api.check(nir.read(tmp_path / "net.nir", type_check=False), "loihi2", input_shape=(6,))


def test_a_backend_choice_takes_no_option_of_reading():
    graph = random_graph(0)
    x = random_spikes(graph, 0)
    for option in ({"dt_s": 1e-3}, {"chip": "loihi2"}, {"backend": "norse"}):
        with pytest.raises(DataError, match=f"^{next(iter(option))}: a BackendChoice states its own; leave it out, or give"):
            api.simulate(api.BackendChoice(net=graph), x, **option)


@pytest.mark.parametrize("verb", ["count", "prune", "deploy"])
def test_a_dataset_takes_no_option_of_coding(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = random_graph(0)
    x = np.zeros((20, 5, *graph.input_shape), np.uint8)
    data = from_arrays({"x": x, "y": np.arange(20) % 2}, name="zeros", input_shape=graph.input_shape)
    with pytest.raises(DataError, match="^data: a Dataset has its own steps; leave the option out$"):
        VERBS[verb](graph, data, steps=3)
    with pytest.raises(DataError, match=r"^data: an array \(T, B, \*input\) has its own encoding; leave the option out$"):
        api.count(graph, np.moveaxis(x, 0, 1), encoding="rate")


@pytest.mark.parametrize("file", [{"spikes": (7, 2, 6)}, {"x": (40, 7, 6), "y": (40,)}])
def test_the_input_shape_is_that_of_the_data(tmp_path, monkeypatch, file):
    (tmp_path / "verbs_model.py").write_text(
        "import torch, norse.torch as n\ndef build():\n    return n.SequentialState(torch.nn.Linear(6, 2), n.LIFBoxCell())\n"
    )
    monkeypatch.chdir(tmp_path)
    np.savez("like.npz", **{name: np.arange(np.prod(shape)).reshape(shape) % 2 for name, shape in file.items()})
    assert api.load("verbs_model:build", like="like.npz").input_shape == (6,)
    assert api.load("verbs_model:build").input_shape == (6,)  # its first layer says so


def test_a_linear_layer_takes_images_as_one_axis_and_a_convolution_needs_a_shape(tmp_path, monkeypatch):
    (tmp_path / "shape_model.py").write_text(
        "import torch, norse.torch as n\nfrom torch import nn\n"
        "def flat():\n    return n.SequentialState(nn.Linear(64, 2), n.LIFBoxCell())\n"
        "def conv():\n    return n.SequentialState(nn.Conv2d(1, 2, 3), n.LIFBoxCell())\n"
    )
    monkeypatch.chdir(tmp_path)
    assert api.load("shape_model:flat", like="digits").input_shape == (64,)
    assert api.load("shape_model:conv", like="digits").input_shape == (1, 8, 8)
    with pytest.raises(UnsupportedError, match="'shape_model:conv' states no input shape: its layers take any size; return"):
        api.load("shape_model:conv")


def test_one_chip_to_rank_and_one_recording_need_no_list():
    graph = random_graph(0)
    for chip in ("loihi2", load_profile("loihi2")):
        assert [row.profile for row in api.rank(graph, chip)] == ["loihi2"]
    run = api.simulate(graph, random_spikes(graph, 0), record="v")
    assert run.v and not run.spikes


def test_each_option_goes_to_the_network_that_takes_it(tmp_path):
    graph = random_graph(0)
    write_snn(graph, tmp_path / "net.snn")
    api.export(graph, tmp_path / "net.nir", to="nir")
    first, other = api.load_both(tmp_path / "net.snn", tmp_path / "net.nir", dt_s=0.004)
    assert first == graph and other == read_nir(tmp_path / "net.nir", dt_s=0.004)
    with pytest.raises(FileError, match="states its own dt_s"):
        api.load_both(tmp_path / "net.snn", tmp_path / "net.snn", dt_s=0.004)


def test_integers_of_a_chip():
    graph = random_graph(3)
    x = random_spikes(graph, 3)
    integer = api.quantize_for_chip(graph, "loihi2", calibration=x)
    assert integer == quantize(graph, calibration=x) and api.quantize_for_chip(integer, "loihi1") is integer
    run = api.simulate(graph, x, chip="loihi2", record=("spikes",))
    np.testing.assert_array_equal(run.output, simulate(integer, x).output)
    profile = load_profile("loihi2")
    other = profile.model_copy(update={"meta": profile.meta.model_copy(update={"family": "generic"})})
    with pytest.raises(UnsupportedError, match="no integers of the family .generic. are known; known are those of loihi, speck"):
        api.quantize_for_chip(graph, other)


def test_a_current_needs_spikes_that_carry_a_value():
    graph = random_graph(3)
    x = random_spikes(graph, 3).astype(np.float32)
    refusal = "input: a current is sent as spikes that carry a value, those of loihi1 carry none; code it as spikes"
    for net in (graph, quantize(graph)):
        with pytest.raises(UnsupportedError, match=refusal):
            api.simulate(net, x, chip="loihi1", kind="current")
        api.simulate(net, x, chip="loihi2", kind="current")
    data = from_arrays({"x": np.random.default_rng(0).random((40, 5, *graph.input_shape)), "y": np.arange(40) % 3}, name="d")
    with pytest.raises(UnsupportedError, match=refusal):
        check_inputs(graph, "loihi1", data)
    neither = "input: a current is sent as spikes that carry a value or come several a step, those of truenorth do neither;"
    with pytest.raises(ChipError, match=neither):
        api.quantize_for_chip(graph, "truenorth", kind="current")


def test_a_bias_beyond_the_chip_is_refused_before_anything_runs():
    wide = LoihiLIF(decay_u=4095, decay_v=0, v_threshold=9, bias_mantissa=4097, bias_exponent=7)
    layer = Layer(name="fc", synapse=Dense(weight=np.ones((2, 3), np.int64)), neuron=wide)
    graph = chain([layer], input_shape=(3,), dt_s=1e-3)
    refusal = r"layer 'fc': bias 524416\.\.524416 takes 14 bits, loihi2 holds 13 times 2\^0 to 2\^7; round it"
    with pytest.raises(UnsupportedError, match=refusal):
        api.simulate(graph, np.ones((4, 1, 3)), chip="loihi2")
    report = api.check(graph, "loihi2")
    [row] = [row for row in report.rows if row.resource == "bias_bits"]
    assert (row.where, row.used, row.limit, row.status, row.remedy) == ("fc", 14, 13, "over", "round the bias to 13 bits")
    assert report.verdict == "does_not_fit"
    narrow = graph.with_layers({"fc": replace(graph["fc"], neuron=replace(wide, bias_mantissa=4095))})
    api.simulate(narrow, np.ones((4, 1, 3)), chip="loihi2")
    assert next(row.status for row in api.check(narrow, "loihi2").rows if row.resource == "bias_bits") in ("ok", "tight")


def test_count_takes_lists_and_batches(monkeypatch):
    graph = random_graph(1)
    x = random_spikes(graph, 1, batch=5)
    whole = api.count(graph, x)
    assert api.count(graph, x.tolist()) == whole
    parts = api.count(graph, x, batch=2)
    assert parts.samples == 5 and parts.synops_total == pytest.approx(whole.synops_total)
    data = from_arrays({"x": np.moveaxis(random_spikes(graph, 2, batch=40), 1, 0), "y": np.arange(40) % 3}, name="d")
    assert api.count(graph, data).samples == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "spike"}, "kind 'spike': an input is 'spikes' or 'current'"),
        ({"backend": "lawa"}, "backend 'lawa': expected one of 'fast', 'lava', 'lava-fast', 'norse'; did you mean 'lava'"),
        ({"record": ("spike",)}, "record 'spike': what can be recorded is"),
    ],
)
def test_a_misspelt_kind_backend_or_record_is_refused(options, message):
    graph = random_graph(0)
    with pytest.raises(DataError, match=message):
        api.simulate(graph, random_spikes(graph, 0), **options)


def test_a_backend_choice_runs_its_backend_and_chip(model):
    x = np.random.default_rng(0).random((12, 3, 6)) * 3
    graph = api.load(model, input_shape=(6,))
    side = api.BackendChoice(net=model, graph=graph, backend="norse")
    theirs = api.simulate(side, x, kind="current")
    ours = api.simulate(graph, x, kind="current")
    np.testing.assert_allclose(theirs.output, ours.output, atol=1e-6)
    result = api.compare(side, graph, x, kind="current")
    assert result[0].mismatches == 0 and result[1].largest < 1e-6
    same = api.simulate(graph, x, kind="current", chip="loihi2", record=("v",))
    again = api.simulate(api.BackendChoice(net=graph, chip="loihi2"), x, kind="current", record=("v",))
    np.testing.assert_array_equal(same.output, again.output)


def test_a_current_meets_integers_as_graded_spikes():
    graph = random_graph(1)
    x = np.random.default_rng(0).random((10, 2, *graph.input_shape))
    integer = api.quantize_for_chip(graph, "loihi2", calibration=x, kind="current")
    result = api.compare(graph, integer, x, kind="current", states=("v",))
    by_chip = api.compare(graph, api.BackendChoice(net=graph, chip="loihi2"), x, kind="current", states=("v",))
    assert result == by_chip
    assert result[-1].what == "value" and 0 < result[-1].largest < 2
    with pytest.raises(DataError, match="record 'u': a floating-point network keeps u after its decay"):
        api.compare(graph, integer, x, kind="current", states=("u",))
    assert sum(layer.mismatches for layer in api.compare(integer, integer, x, kind="current", states=("u", "v"))) == 0


def test_explain_takes_data_with_labels():
    graph = random_graph(5)
    x = np.moveaxis(random_spikes(graph, 2, steps=8, batch=60), 1, 0)
    data = from_arrays({"x": x, "y": np.arange(60) % 3}, name="d")
    result = api.explain(graph, "loihi2", data, samples=5)
    assert result.samples == 5 and result.costs[0].accuracy is not None
    assert api.explain(graph, "loihi2", data).samples == len(data.test)
    with pytest.raises(UnsupportedError, match="the network is quantised already"):
        api.explain(quantize(graph), "loihi2", data)


def test_prune_reports_what_it_does_before_the_search(tmp_path):
    pytest.importorskip("torch")
    from tests.support.deployments import dense, task

    calls = []
    prune(dense(), "loihi2", task(), out=tmp_path, synops="70%", method="uniform", epochs=1, progress=calls.append)
    stages = list(dict.fromkeys(facts["stage"] for facts in calls))
    assert stages[:3] == ["load data", "check the network against the chip", "evaluate"]
    assert "fine-tune" in stages
