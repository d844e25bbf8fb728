"""Options, project file and JSON header are the same for every verb."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy import export, load
from spear_deploy.cli import main
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.interchange.snn_file import hash_network, write_snn
from spear_deploy.network import LIF, Dense, Layer
from spear_deploy.network.graph import chain

NETWORK_VERBS = ("check", "rank", "count", "prune", "simulate", "compare", "export", "deploy")
DATA_VERBS = ("count", "prune", "simulate", "deploy")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the working folder: a NIR file without time step, an input and data."""
    import nir

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    nodes = {
        "input": nir.Input({"input": np.array([16])}),
        "fc": nir.Affine(weight=rng.normal(size=(4, 16)).astype(np.float32), bias=np.zeros(4)),
        "lif": nir.LIF(tau=np.full(4, 0.01), r=np.full(4, 30.0), v_leak=np.zeros(4), v_threshold=np.ones(4)),
        "output": nir.Output({"output": np.array([4])}),
    }
    nir.write("net.nir", nir.NIRGraph(nodes=nodes, edges=[("input", "fc"), ("fc", "lif"), ("lif", "output")]))
    np.savez("in.npz", spikes=(rng.random((5, 2, 16)) < 0.5).astype(np.uint8))
    np.savez("images.npz", x=rng.random((40, 4, 4)).astype(np.float32), y=np.arange(40) % 4)
    return tmp_path


def run_json(*command, code=0):
    done = CliRunner().invoke(main, [*command, "--json"])
    assert done.exit_code == code, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("verb", NETWORK_VERBS)
def test_every_verb_takes_the_same_options(verb):
    options = {option for parameter in main.commands[verb].params for option in parameter.opts}
    assert {"--source", "--dt-s", "--reset", "--input-shape", "--decision", "--outputs-per-class"} <= options
    assert ({"--steps", "--encoding"} <= options) == (verb in DATA_VERBS)


@pytest.mark.parametrize("verb", ["prune", "deploy", "sweep", "adapt", "demo"])
def test_every_verb_that_learns_takes_workers_and_a_device(verb):
    assert {"--workers", "--device"} <= {option for parameter in main.commands[verb].params for option in parameter.opts}


@pytest.mark.parametrize(
    "command",
    [
        ("check", "net.nir", "--chip", "generic45nm"),
        ("rank", "net.nir", "--chip", "generic45nm"),
        ("count", "net.nir", "--input", "in.npz"),
        ("simulate", "net.nir", "--input", "in.npz", "--out", "run.npz"),
        ("compare", "net.nir", "net.nir", "--input", "in.npz"),
        ("export", "net.nir", "--to", "netx", "--out", "a/net.net"),
    ],
    ids=lambda command: command[0],
)
def test_json_carries_version_digest_and_assumptions(command, folder):
    value, _ = run_json(*command)
    graph = load("net.nir")
    assert value["tool_version"].startswith("0.") and value["schema_version"] == 1
    assert value["network_digest"] == hash_network(graph)
    stated = graph.metadata["assumptions"]
    assert value["assumptions"][: len(stated)] == stated and "NIR has no time step: 0.0001 s is taken" in stated


def test_verbs_without_a_network_have_no_digest(folder):
    for command in (("profiles",), ("profiles", "loihi2"), ("profiles", "--keys"), ("completion", "bash")):
        value, _ = run_json(*command)
        assert value["network_digest"] is None and value["assumptions"] == [] and value["schema_version"] == 1
    assert "tool_version" not in run_json("profiles", "--schema")[0]


def test_the_project_file_sets_how_networks_and_data_are_read(folder):
    (folder / "spear.toml").write_text(
        '[network]\nsource = "norse"\ndt_s = 1e-3\nreset = "subtract"\n[data]\nsteps = 3\nencoding = "rate"\n'
    )
    value, err = run_json("count", "net.nir", "--data", "images.npz")
    assert value["steps"] == 3 and value["macs_first_layer"] == 0
    assert "note: spear.toml sets source norse, dt_s 0.001, reset subtract, steps 3, encoding rate" in err
    stated = load("net.nir", source="norse", dt_s=1e-3, reset="subtract")
    assert value["network_digest"] == hash_network(stated) != hash_network(load("net.nir"))
    value, err = run_json("count", "net.nir", "--data", "images.npz", "--steps", "2", "--dt-s", "2e-3")
    assert value["steps"] == 2 and "sets source norse, reset subtract, encoding rate\n" in err
    assert value["network_digest"] == hash_network(load("net.nir", source="norse", dt_s=2e-3, reset="subtract"))


def test_the_decision_over_the_steps_is_an_option_of_every_network(folder):
    stated, plain = load("net.nir", source="norse", decision="maximum"), load("net.nir", source="norse")
    options = ("--source", "norse", "--decision", "maximum")
    assert run_json("check", "net.nir", "--chip", "generic45nm", *options)[0]["network_digest"] == hash_network(stated)
    assert hash_network(stated) != hash_network(plain)
    (folder / "spear.toml").write_text('[network]\ndecision = "last"\n')
    value, err = run_json("check", "digits", "--chip", "loihi2")
    assert value["network_digest"] == hash_network(load("digits", decision="last")) and "spear.toml sets decision last" in err


def test_outputs_that_stand_for_a_class_together_are_an_option_of_every_network(folder):
    value, _ = run_json("check", "digits", "--chip", "loihi2", "--outputs-per-class", "5")
    assert value["network_digest"] == hash_network(load("digits", outputs_per_class=5)) != hash_network(load("digits"))
    (folder / "spear.toml").write_text("[network]\noutputs_per_class = 2\n")
    value, err = run_json("check", "digits", "--chip", "loihi2")
    assert value["network_digest"] == hash_network(load("digits", outputs_per_class=2)) and "sets outputs_per_class 2" in err
    done = CliRunner().invoke(main, ["check", "digits", "--chip", "loihi2", "--outputs-per-class", "3"])
    assert done.exit_code == 1
    assert "outputs per class: 3 given, the network has 10 outputs; give a whole number that divides them" in done.stderr


def test_the_project_file_leaves_networks_alone_that_state_their_own(folder):
    (folder / "spear.toml").write_text('[network]\nsource = "norse"\n')
    value, _ = run_json("check", "digits", "--chip", "loihi2")
    assert value["network_digest"] == hash_network(load("digits"))
    assert run_json("check", "net.nir", "--chip", "generic45nm", "--no-budget")[0]["network_digest"] == hash_network(
        load("net.nir")
    )


def test_the_project_file_leaves_what_decides_to_a_snn_file(folder):
    """`adapt` writes such a file, and may have put spikes that are counted, or a readout on the host, in place of the outputs."""
    graph = load("digits", decision="last")
    write_snn(graph, "own.snn")
    (folder / "spear.toml").write_text('[network]\ndecision = "maximum"\noutputs_per_class = 2\n')
    value, err = run_json("check", "own.snn", "--chip", "loihi2")
    assert value["network_digest"] == hash_network(graph) and "sets" not in err
    value, _ = run_json("check", "own.snn", "--chip", "loihi2", "--decision", "mean")
    assert value["network_digest"] == hash_network(load("digits"))


@pytest.mark.parametrize("line", ['source = "snntorch"', "dt_s = 0.5", 'reset = "subtract"', "outputs_per_class = 2"])
def test_the_project_file_leaves_a_nir_file_alone_that_was_written_here(line, folder):
    graph = load("digits", outputs_per_class=5)
    write_nir(graph, "own.nir")
    (folder / "spear.toml").write_text(f"[network]\n{line}\n")
    value, err = run_json("check", "own.nir", "--chip", "loihi2")
    assert value["network_digest"] == hash_network(load("own.nir")) and load("own.nir").metadata["outputs_per_class"] == 5
    assert "sets" not in err
    value, _ = run_json("check", "own.nir", "--chip", "loihi2", "--dt-s", "2e-3")
    assert value["network_digest"] == hash_network(load("own.nir", dt_s=2e-3))


def test_options_of_a_sweep_leave_steps_to_a_file_that_states_them(folder):
    from spear_deploy.pipeline.inputs import select_options

    write_nir(load("net.nir", source="norse"), "own.nir")
    options = {"source": "norse", "dt_s": 1e-3, "decision": "last"}
    assert select_options("own.nir", options) == {"decision": "last"} and select_options("net.nir", options) == options


def test_the_project_file_is_for_that_one_of_two_networks_that_states_less(folder):
    write_nir(load("net.nir", source="norse", dt_s=2e-3), "own.nir")
    (folder / "spear.toml").write_text('[network]\nsource = "norse"\ndt_s = 2e-3\noutputs_per_class = 2\n')
    for pair in (("own.nir", "net.nir"), ("net.nir", "own.nir")):
        value, err = run_json("compare", *pair, "--input", "in.npz")
        assert [row["mismatches"] for row in value["layers"]] == [0]
        assert "sets source norse, dt_s 0.002, outputs_per_class 2" in err


def test_a_file_written_for_a_framework_states_its_steps_and_not_what_decides(folder):
    from spear_deploy.interchange import states_answer, states_steps

    run_json("export", "net.nir", "--source", "norse", "--to", "nir", "--for", "snntorch", "--out", "n/for.nir")
    assert states_steps("n/for.nir") and not states_answer("n/for.nir")
    assert not states_steps("net.nir") and not states_answer("net.nir") and not states_steps("none.nir")
    (folder / "spear.toml").write_text('[network]\nsource = "snntorch"\ndecision = "last"\n')
    value, err = run_json("check", "n/for.nir", "--chip", "generic45nm")
    assert value["network_digest"] == hash_network(load("n/for.nir", decision="last")) and "sets decision last\n" in err


def test_the_project_file_leaves_a_readout_on_the_host_alone(folder):
    """Its outputs are hidden neurons, which do not stand for a class together."""
    from spear_deploy.network.host_readout import move_to_host

    graph = move_to_host(load("digits"))
    write_snn(graph, "host.snn")
    write_nir(graph, "host.nir")
    (folder / "spear.toml").write_text("[network]\noutputs_per_class = 2\n")
    for name in ("host.snn", "host.nir"):
        assert run_json("check", name, "--chip", "loihi2")[0]["verdict"] == "fits"
        done = CliRunner().invoke(main, ["check", name, "--chip", "loihi2", "--outputs-per-class", "2"])
        assert done.exit_code == 1 and "the network has a readout on the host, of which each output is a class" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[network]\nsorce = 1\n", r"unknown key 'network.sorce'; .*; did you mean 'source'\?"),
        ("[network]\ndt_s = 0\n", "key 'network.dt_s': 0 given, expected a number above 0"),
        ("[network]\nreset = 'soft'\n", "key 'network.reset': 'soft' given, expected 'value', 'subtract' or 'none'"),
        (
            "[network]\ndecision = 'median'\n",
            "key 'network.decision': 'median' given, expected 'mean', 'maximum', 'last' or 'each'",
        ),
        ("[network]\noutputs_per_class = 0\n", "key 'network.outputs_per_class': 0 given, expected a whole number of at least 1"),
        ("[network]\ninput_shape = [28.0]\n", "key 'network.input_shape': .28.0. given, expected a list of whole numbers"),
        ("[data]\nsteps = true\n", "key 'data.steps': true given, expected a whole number of at least 1"),
        (
            "[network]\nsource = 'snntroch'\n",
            r"file 'spear.toml', key 'network.source': 'snntroch' given, expected 'snntorch', .*; did you mean 'snntorch'\?",
        ),
        ("[network]\nsource = 3\n", "key 'network.source': 3 given, expected 'snntorch', .*; correct it or leave it out"),
        (
            "[data]\nencoding = 'poisson'\n",
            "key 'data.encoding': 'poisson' given, expected 'direct', 'rate', 'bernoulli' or 'latency'; correct it",
        ),
    ],
)
def test_options_of_the_project_file_that_cannot_be_are_refused(text, message, folder):
    from spear_deploy.budget.budget_file import read_budget
    from spear_deploy.errors import FileError

    (folder / "spear.toml").write_text(text)
    with pytest.raises(FileError, match=message):
        read_budget("spear.toml")


@pytest.mark.parametrize(
    "command",
    [
        ("check", "net.nir", "--chip", "loihi2"),
        ("export", "net.nir", "--to", "nir", "--chip", "loihi2", "--out", "n.nir"),
        ("adapt", "net.nir", "--chip", "loihi2", "--out", "out"),
        ("prune", "net.nir", "--chip", "loihi2", "--data", "images.npz", "--synops", "50%", "--out", "out"),
        ("deploy", "net.nir", "--chip", "loihi2", "--data", "images.npz", "--synops", "50%", "--out", "out"),
    ],
    ids=lambda command: command[0],
)
def test_facts_of_the_project_file_that_the_chip_does_not_have_are_refused_by_every_command(command, folder):
    for text, message in (
        ("energy.synop_p = 3\n", r"unknown key 'energy.synop_p'; .*; did you mean 'energy.synop_pj'\?"),
        ("core.neurons = 'many'\n", "core.neurons"),
    ):
        (folder / "spear.toml").write_text(f"[set]\n{text}")
        done = CliRunner().invoke(main, list(command))
        assert done.exit_code == 1 and re.search(f"file 'spear.toml', table .set.: profile 'loihi2.*{message}", done.stderr)
        assert not (folder / "out").exists()


def test_facts_of_the_project_file_may_be_of_its_own_chip_and_concern_no_command_without_one(folder):
    """Only the board is one that the other chip does not have; a chip that there is not is refused as such."""
    (folder / "spear.toml").write_text("chip = 'loihi1'\n[set]\nchip.boards.kapoho_bay = 4\n")
    assert CliRunner().invoke(main, ["export", "net.nir", "--to", "nir", "--chip", "loihi2", "--out", "n.nir"]).exit_code == 0
    done = CliRunner().invoke(main, ["check", "net.nir", "--chip", "loihi3"])
    assert done.exit_code == 1 and "[set]" not in done.stderr and "loihi3" in done.stderr
    (folder / "spear.toml").write_text("[set]\nchip.boards.kapoho_bay = 4\n")
    assert CliRunner().invoke(main, ["count", "net.nir", "--input", "in.npz"]).exit_code == 0


def test_the_words_of_the_project_file_are_those_of_the_readers():
    from spear_deploy.budget.budget_file import WORDS
    from spear_deploy.data import ENCODINGS
    from spear_deploy.interchange.nir.frameworks import FRAMEWORKS, PLAIN
    from spear_deploy.network.classes import DECISION_WORDS

    assert WORDS["source"] == (*FRAMEWORKS, PLAIN) and WORDS["encoding"] == ENCODINGS
    assert WORDS["decision"] == tuple(DECISION_WORDS) and set(WORDS) == {"source", "reset", "decision", "encoding"}


def test_python_takes_the_same_options_as_keywords(folder):
    import spear_deploy as sd

    x = np.load("in.npz")["spikes"]
    options = {"source": "norse", "dt_s": 1e-3, "reset": "subtract"}
    graph = sd.load("net.nir", **options)
    assert sd.count("net.nir", x, **options) == sd.count(graph, x) != sd.count("net.nir", x)
    assert sd.count("net.nir", "images.npz", steps=3, encoding="rate", **options).steps == 3
    assert np.array_equal(sd.simulate("net.nir", x, **options).output, sd.simulate(graph, x).output)
    assert sum(layer.mismatches for layer in sd.compare("net.nir", graph, x, **options)) == 0
    assert sd.check("net.nir", "generic45nm", **options).to_json() == sd.check(graph, "generic45nm").to_json()
    assert sd.rank("net.nir", ["generic45nm"], **options)[0].to_json() == sd.rank(graph, ["generic45nm"])[0].to_json()
    assert sd.export("net.nir", "b/net.nir", to="nir", **options)["mismatches"] == 0
    for verb in (sd.count, sd.simulate):
        with pytest.raises(TypeError, match="there is no option 'sorce'; expected .*did you mean 'source'"):
            verb("net.nir", x, sorce="norse")


def test_count_and_simulate_draw_the_data_by_the_seed_that_pruning_draws_them_by(folder):
    import spear_deploy as sd
    from spear_deploy.data import load_data
    from spear_deploy.pipeline.api import explain

    reading, coding = ("net.nir", "--data", "images.npz", "--encoding", "bernoulli"), {"encoding": "bernoulli", "seed": 3}
    data = load_data("images.npz", input_shape=(16,), **coding)
    counted = sd.count("net.nir", data).synops_total
    assert run_json("count", *reading, "--seed", "3")[0]["synops_total"] == counted
    assert sd.count("net.nir", "images.npz", **coding).synops_total == counted
    assert run_json("count", *reading)[0]["synops_total"] != counted
    explained = [run_json("simulate", *reading, "--chip", "loihi2", "--explain", *seed)[0] for seed in ([], ["--seed", "3"])]
    assert explained[1]["explain"] == json.loads(json.dumps(explain("net.nir", "loihi2", data).to_json()))
    assert explained[0]["explain"] != explained[1]["explain"]


@pytest.mark.parametrize(
    "command", [("count", "net.nir", "--input", "in.npz"), ("simulate", "net.nir", "--input", "in.npz", "--out", "o.npz")]
)
def test_a_seed_beside_an_input_file_is_refused(command, folder):
    done = CliRunner().invoke(main, [*command, "--seed", "3"])
    assert done.exit_code == 2 and "--seed goes with --data" in done.stderr


def test_layers_of_a_nir_file_keep_the_names_of_its_neurons(folder):
    run_json("simulate", "net.nir", "--input", "in.npz", "--record", "spikes,v", "--out", "run.npz")
    assert {"lif.spikes", "lif.v"} <= set(np.load("run.npz").files)


def test_export_prints_a_line_for_each_fact(folder):
    network = chain([Layer(name="fc", synapse=Dense(weight=np.ones((3, 4))), neuron=LIF(tau_s=2e-3))], input_shape=(4,))
    export(network, "c/net.nir", to="nir")
    done = CliRunner().invoke(main, ["export", "c/net.nir", "--to", "nir", "--out", "d/net.nir"])
    lines = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert lines == ["written", "read back by", "proof", "certificate"] and "0 values differ" in done.stdout


@pytest.mark.parametrize("verb", ["adapt", "count", "demo", "deploy", "export", "prune", "simulate"])
def test_every_verb_refuses_a_seed_that_numpy_does_not_take(verb, folder):
    assert {verb for verb in main.commands if "seed" in {p.name for p in main.commands[verb].params}} == {
        "adapt", "count", "demo", "deploy", "export", "prune", "simulate",
    }  # fmt: skip
    own = {"demo": [], "count": ["digits"], "simulate": ["digits"]}
    arguments = own.get(verb, ["digits", "--out", "o", *(["--to", "nir"] if verb == "export" else ["--chip", "loihi2"])])
    data = ["--data", "digits"] if verb in ("prune", "deploy") else []
    done = CliRunner().invoke(main, [verb, *arguments, *data, "--seed", "4294967296"])
    assert done.exit_code == 2 and "'--seed': 4294967296 is not in the range 0<=x<=4294967295" in done.stderr
