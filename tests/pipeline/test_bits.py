"""Bits by layer as their user names them: `--bits` of the commands, what results and pages show of them, refusals."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

import spear_deploy as sd
from spear_deploy.budget.check import check
from spear_deploy.cli import main
from spear_deploy.errors import ChipError, DataError, GraphError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange import load
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF
from spear_deploy.network.layer_bits import read_layer_bits, state_layer_bits
from spear_deploy.pipeline.bits import parse_bits, state_bits
from spear_deploy.pipeline.inputs import quantize_for_chip
from spear_deploy.placement.weight_bits import describe_stated_bits, list_bits
from tests.support.deployments import arrays, network


def run(*command, code=0):
    done = CliRunner().invoke(main, [*map(str, command)])
    assert done.exit_code == code, done.stderr
    return done


def memory(report):
    return [row["used"] for row in report["rows"] if row["resource"] == "synapse_memory"]


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        ("fc=4", {"fc": 4}), ("fc=4,out=2", {"fc": 4, "out": 2}), ("4", {"fc": 4, "out": 4}), (3, {"fc": 3, "out": 3}),
        ({"out": 6}, {"out": 6}), ("8", {}), ("fc=8, out=5", {"out": 5}),
    ],
)  # fmt: skip
def test_a_network_states_the_bits_that_differ_from_the_default(bits, expected):
    graph = state_bits(network(IF()), "loihi2", bits)
    assert read_layer_bits(graph) == expected == describe_stated_bits(graph, load_profile("loihi2"))["layers"]
    integer = quantize_for_chip(graph, "loihi2")
    assert all(list_bits(layer.synapse.weight) <= expected.get(layer.name, 8) for layer in integer.layers)


def test_layers_that_are_not_named_keep_what_the_network_states():
    graph = state_layer_bits(network(IF()), {"fc": 3, "out": 4})
    assert read_layer_bits(state_bits(graph, "loihi1", "out=8")) == {"fc": 3}
    assert read_layer_bits(state_bits(graph, "loihi1", "out=2")) == {"fc": 3, "out": 2}


@pytest.mark.parametrize(
    ("bits", "error", "match"),
    [
        ("fc3=4", GraphError, "bits: there is no layer 'fc3' with weights; expected some of fc, out; did you mean 'fc'"),
        ("fc=7", ChipError, "bits: layer 'fc': 7 given, weights of loihi2 have 2, 3, 4, 5, 6 and 8 bits; take one of them"),
        ("32", ChipError, "bits: layer 'fc': 32 given, weights of loihi2 have 2"),
        ("1", DataError, "bits: layer 'fc': 1 given, expected a number of bits from 2 to 32"),
        ("out=77", DataError, "bits: layer 'out': 77 given, expected a number of bits from 2 to 32"),
        ("fc=4,fc=3", DataError, "bits 'fc=4,fc=3': layer 'fc' is named twice; name it once"),
        *((text, DataError, "expected LAYER=BITS, e.g. fc1=4,conv2=8, or one number for all layers, e.g. 4")
          for text in ("", "fc", "fc=", "=4", "4,5", "fc=4,3", "fc=4.5", "fc=-4", "fc=4,", "²")),
    ],
)  # fmt: skip
def test_wrong_bits_are_refused_in_one_sentence(bits, error, match):
    with pytest.raises(error, match=match):
        state_bits(network(IF()), "loihi2", bits)


def test_chips_whose_layers_are_alike_and_integers_are_refused():
    alike = (
        "bits: on chip 'speck2f' the weights of all layers have 8 bits; leave the bits out, or take .*: akd1000, akd1500, loihi1"
    )
    for bits in ("fc=4", "4"):
        with pytest.raises(ChipError, match=alike):
            state_bits(network(IF()), "speck2f", bits)
    assert read_layer_bits(state_bits(network(IF()), "speck2f", "8")) == {}
    with pytest.raises(ChipError, match="layer 'fc': 8 given, weights of loihi1 have 2 and 4 bits"):
        state_bits(network(IF()), "loihi1", "fc=8", overrides={"weights.bits": "[2, 4]", "weights.default_bits": "4"})
    with pytest.raises(UnsupportedError, match="bits: the network is quantised already; give the floating-point network"):
        state_bits(quantize_for_chip(network(IF()), "loihi2"), "loihi2", "4")
    assert parse_bits("a=b=4") == {"a=b": 4}


def test_check_counts_the_memory_of_the_bits_and_its_advice_keeps_them(tmp_path):
    path = tmp_path / "net.snn"
    write_snn(network(IF(), hidden=64), path)
    command = ("check", path, "--chip", "loihi1", "--no-budget", "--json")
    whole, fewer = (json.loads(run(*command, *bits).stdout) for bits in ((), ("--bits", "fc=2")))
    assert memory(fewer) == memory(check(state_layer_bits(read_snn(path), {"fc": 2}), load_profile("loihi1")).to_json())
    assert sum(memory(fewer)) < sum(memory(whole))
    done = run(*command[:-1], "--bits", "fc=2", "--set", "core.synapse_memory=5", code=3)
    small = "--chip loihi1 --set core.synapse_memory=5"
    assert re.search(rf"next, .* until it fits: spear-deploy prune \S+ {small} --bits fc=2 --data DATA", done.stderr)
    stated = json.loads(run("check", path, "--bits", "fc=2", "--budget", _budget(tmp_path), "--json").stdout)
    assert memory(stated) == memory(fewer)  # of the chip that the file names
    (tmp_path / "none.toml").write_text("[budget]\nmax_cores = 1\n")
    done = run("check", path, "--bits", "fc=2", "--budget", tmp_path / "none.toml", code=2)
    assert "--bits needs --chip, whose weights have these bits" in done.stderr
    assert "error: bits: there is no layer 'fx' with weights" in run(*command[:-1], "--bits", "fx=2", code=1).stderr


def _budget(folder):
    path = folder / "spear.toml"
    path.write_text('chip = "loihi1"\n')
    return path


def test_simulate_and_export_take_bits(tmp_path):
    graph, path = network(IF()), tmp_path / "net.snn"
    write_snn(graph, path)
    stating = state_layer_bits(graph, {"fc": 3})
    np.savez(tmp_path / "in.npz", spikes=np.moveaxis(arrays()["x"][:3], 0, 1))
    run("simulate", path, "--input", tmp_path / "in.npz", "--chip", "loihi2", "--bits", "fc=3", "--out", tmp_path / "run.npz")
    x = np.load(tmp_path / "in.npz")["spikes"]
    expected = sd.simulate(quantize_for_chip(stating, "loihi2", calibration=x), x).spikes["fc"]
    whole = sd.simulate(quantize_for_chip(graph, "loihi2", calibration=x), x).spikes["fc"]
    with np.load(tmp_path / "run.npz") as recorded:
        assert np.array_equal(recorded["fc.spikes"], expected) and not np.array_equal(whole, expected)
    run("export", path, "--to", "netx", "--bits", "fc=3", "--out", tmp_path / "x" / "net.net")
    kept = load(tmp_path / "x" / "net.net")
    assert list_bits(kept.layers[0].synapse.weight) <= 3  # type: ignore[union-attr]
    done = run("export", path, "--to", "nir", "--bits", "fc=3", "--out", tmp_path / "net.nir", code=2)
    assert "--bits goes with --to netx, whose file has bits by layer; nir has none" in done.stderr


@pytest.mark.slow
@pytest.mark.lava
def test_a_deployment_states_shows_and_proves_its_bits(tmp_path):
    write_snn(network(IF()), tmp_path / "net.snn")
    np.savez(tmp_path / "task.npz", **arrays())
    done = run(
        "deploy", tmp_path / "net.snn", "--chip", "loihi2", "--data", tmp_path / "task.npz", "--synops", "80%", "--method",
        "uniform", "--bits", "fc=4,out=8", "--lava-samples", 2, "--out", tmp_path / "out",
    )  # fmt: skip
    facts = json.loads((tmp_path / "out" / "deployment.json").read_text())
    assert facts["weight_bits"] == {"default": 8, "layers": {"fc": 4}}
    assert re.search(r"bits of a weight\W+fc 8→4\W+default and here", done.stdout)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Weights of fc have 4 bits; the chip&#39;s default is 8." in page
    for name in ("dense", "pruned"):
        assert read_layer_bits(read_snn(tmp_path / "out" / f"{name}.snn")) == {"fc": 4}
    assert list_bits(read_snn(tmp_path / "out" / "quantised.snn").layers[0].synapse.weight) <= 4  # type: ignore[union-attr]
    assert not sd.verify(tmp_path / "out").failures
