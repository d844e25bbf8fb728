"""Readout on the host: the same spikes and values as in one network, to the bit in files, and refused in a sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest

import spear_deploy as sd
from spear_deploy.data import Dataset, Split
from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.snn_file import hash_network, write_snn
from spear_deploy.network import IF, LI, LIF, AvgPool, BatchNorm, Conv2d, CubaLI, Dense, Flatten, Layer, SumPool, make_sparse
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.classes import OUTPUTS_PER_CLASS, count_classes, count_per_class, describe_classes, state_decision
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain, merge_parts
from spear_deploy.network.host_readout import (
    HOST_READOUT,
    join_readout,
    merge_weights,
    move_to_host,
    read_host_readout,
    replace_weights,
    split_readout,
)
from spear_deploy.pipeline.api import quantize_for_chip
from spear_deploy.pruning.plan import PruningPlan, prune, restore_channels
from spear_deploy.simulator import simulate
from spear_deploy.simulator.run import decide, read_on_host
from spear_deploy.simulator.synops import count_synops, synops_per_spike
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fit
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.recipe import Recipe
from tests.adaptation.random_networks import SAMPLES, STEPS, random_map_network
from tests.support.seeds import seeds

SEEDS = seeds(8, 300)
RNG = np.random.default_rng(0)


def network(readout=None, before=None, neuron=None):
    """Return four inputs, six neurons that spike, what is given before the readout, and a readout of three classes."""
    rng = np.random.default_rng(3)
    layers = [Layer(name="hidden", synapse=Dense(weight=rng.normal(size=(6, 4)).astype(np.float32)), neuron=neuron or IF())]
    layers += [before] if before else []
    weight = rng.normal(size=(3, 6)).astype(np.float32)
    layers.append(readout or Layer(name="out", synapse=Dense(weight=weight), neuron=LI(tau_s=0.003)))
    return chain(layers, input_shape=(4,))


def movable(seed):
    """Return a random network whose readout takes spikes as they come."""
    graph = random_map_network(seed)
    behind = {"flat", "readout", *(layer.name for layer in graph.layers if layer.name.startswith("pool"))}
    return replace(graph, edges=tuple(replace(e, delay=0) if e.target in behind else e for e in graph.edges))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_host_gets_the_same_spikes_and_has_the_same_values(seed):
    graph = movable(seed)
    moved = move_to_host(graph)
    x = (np.random.default_rng(seed).random((STEPS, SAMPLES, *graph.input_shape)) < 0.4).astype(np.float32)
    before, after = (simulate(each, x, record=("spikes",)) for each in (graph, moved))
    assert after.spikes and all((before.spikes[name] != spikes).sum() == 0 for name, spikes in after.spikes.items())
    np.testing.assert_array_equal(read_on_host(moved, after.output), before.output)
    np.testing.assert_array_equal(decide(after.output, moved), decide(before.output, graph))
    assert "readout" not in {layer.name for layer in moved.layers} and moved[moved.output].spikes
    joined = join_readout(moved)
    assert joined == merge_parts(graph) and split_readout(joined) == moved
    assert split_readout(joined).metadata == moved.metadata


@pytest.mark.parametrize("neuron", [LI(tau_s=0.003, v_leak=0.2), CubaLI(tau_mem_s=0.004, tau_syn_s=0.002), None], ids=str)
def test_readouts_of_each_kind_have_the_values_of_one_network(neuron):
    norm = BatchNorm(weight=np.full(3, 2.0), bias=np.arange(3.0), mean=np.full(3, 0.1), var=np.full(3, 0.5))
    graph = network(Layer(name="out", synapse=Dense(weight=RNG.normal(size=(3, 6)), bias=np.ones(3)), norm=norm, neuron=neuron))
    moved, x = move_to_host(graph), RNG.integers(0, 2, (9, 5, 4))
    np.testing.assert_array_equal(read_on_host(moved, simulate(moved, x).output), simulate(graph, x).output)
    assert count_classes(moved) == 3 and count_per_class(moved) == 1
    assert "the 6 neurons of 'hidden' by weights, 3 classes" in describe_classes(moved)[0]


def test_metadata_hold_the_numbers_to_the_bit():
    weight = RNG.normal(size=(3, 6)).astype(np.float32)
    weight[0, 0] = np.nextafter(np.float32(1), np.float32(2))
    moved = move_to_host(network(Layer(name="out", synapse=Dense(weight=weight), neuron=LI(tau_s=1 / 3))))
    again = replace(moved, metadata=json.loads(json.dumps(dict(moved.metadata))))
    host = read_host_readout(again)
    assert host == read_host_readout(moved)
    assert host.layers[0].synapse.weight.tobytes() == weight.tobytes() and float(host.layers[0].neuron.tau_s) == 1 / 3
    assert hash_network(again) == hash_network(moved) != hash_network(replace_weights(moved, weight + 1, np.zeros(3)))


def test_sparse_weights_of_a_readout_are_written_out():
    weight = np.where(RNG.random((3, 6)) < 0.5, RNG.normal(size=(3, 6)), 0.0)
    graph = network(Layer(name="out", synapse=Dense(weight=make_sparse(weight)), neuron=LI(tau_s=0.002)))
    moved, x = move_to_host(graph), RNG.integers(0, 2, (9, 5, 4))
    np.testing.assert_allclose(read_on_host(moved, simulate(moved, x).output), simulate(graph, x).output, rtol=1e-6)


READOUT = Layer(name="out", synapse=Dense(weight=np.ones((3, 6))), neuron=LI(tau_s=0.002))


def with_edges(layers, *edges):
    return SNNGraph(layers=tuple(layers), edges=tuple(Edge(source=a, target=b, delay=d) for a, b, d in edges), input_shape=(4,))


HIDDEN, SECOND = (Layer(name=name, synapse=Dense(weight=np.ones((6, n))), neuron=IF()) for name, n in (("hidden", 4), ("b", 6)))
FIRST, INTO = (INPUT, "hidden", 0), ("hidden", "out", 0)
REFUSED = {
    "spikes": (
        network(replace(READOUT, neuron=IF())),
        "output 'out' sends spikes, which the host counts in any case; leave out `--readout host`",
    ),
    "no weights": (network(Layer(name="out", neuron=LI(tau_s=0.002))), "output 'out' is no dense readout in floating point"),
    "loop": (
        with_edges(
            [HIDDEN, READOUT, Layer(name="back", synapse=Dense(weight=np.ones((6, 3)))), replace(SECOND, synapse=None)],
            FIRST, ("hidden", "b", 0), ("b", "out", 0), ("out", "back", 1), ("back", "b", 0),
        ),
        "what 'out' integrates returns to 'back'",
    ),
    "skip": (
        with_edges([HIDDEN, SECOND, READOUT], FIRST, ("hidden", "b", 0), ("b", "out", 0), INTO),
        "'out' reads several layers, 'b' and 'hidden'",
    ),
    "delay": (with_edges([HIDDEN, READOUT], FIRST, ("hidden", "out", 2)), "'out' reads 'hidden' with a delay"),
    "input": (
        chain([replace(READOUT, synapse=Dense(weight=np.ones((3, 4))))], input_shape=(4,)),
        "'out' reads the input, so that no neuron is left for the chip",
    ),
    "values": (
        network(READOUT, before=Layer(name="mean", synapse=Dense(weight=np.ones((6, 6))), neuron=LI(tau_s=0.002))),
        "'out' reads 'mean', whose real numbers do not leave a chip",
    ),
    "twice": (move_to_host(network()), "the host integrates the outputs of this network already; leave out `--readout host`"),
}  # fmt: skip
REFUSED["loop"] = (replace(REFUSED["loop"][0], output="out"), REFUSED["loop"][1])
REFUSED["skip"] = (replace(REFUSED["skip"][0], output="out"), REFUSED["skip"][1])


@pytest.mark.parametrize(("graph", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_host_does_not_integrate_is_refused_in_a_sentence(graph, message):
    with pytest.raises(UnsupportedError, match=f"readout by the host: .*{message}"):
        move_to_host(graph)


def test_integers_keep_their_readout():
    integers = quantize_for_chip(network(), load_profile("loihi2"))
    with pytest.raises(UnsupportedError, match="is no dense readout in floating point"):
        move_to_host(integers)


DAMAGED = {
    "no layers": ({"input_shape": [6]}, "'layers'"),
    "text": ("weights", "string indices"),
    "another size": ({"input_shape": [5], "layers": []}, "the network has no layer"),
    "a part that no host computes": (
        {"input_shape": [6], "layers": [{"name": "out", "synapse": {"kind": "Conv2d"}}]}, "'Conv2d'",
    ),
    "bytes": ({"base64": "%"}, "no base64"),
    "too few bytes": ({"base64": "AAAA"}, "buffer size"),
    "objects": ({"type": "object"}, "numbers of type 'object', expected float32 or float64"),
    "of another network": ({"shape": [6, 3]}, "Dense takes 3 inputs"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "why"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_readout_is_named(damage, why):
    moved = move_to_host(network())
    facts = json.loads(json.dumps(moved.metadata[HOST_READOUT]))
    if isinstance(damage, dict) and "input_shape" not in damage:
        facts["layers"][0]["synapse"]["weight"] |= damage
        damage = facts
    with pytest.raises(GraphError, match=rf"metadata 'host_readout': is damaged \(.*{why}.*\); adapt the network again"):
        read_host_readout(replace(moved, metadata={HOST_READOUT: damage}))


def test_a_readout_of_other_outputs_is_named():
    narrow = replace(network().layers[0], synapse=Dense(weight=np.ones((5, 4))))
    with pytest.raises(GraphError, match=r"is damaged \(takes 6 outputs, the network has 5\)"):
        read_host_readout(chain([narrow], input_shape=(4,), metadata=move_to_host(network()).metadata))


@pytest.mark.parametrize(
    "pool",
    [
        AvgPool(kernel_size=(2, 2)), SumPool(kernel_size=(2, 2)), AvgPool(kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
        SumPool(kernel_size=(2, 3), stride=(1, 2), padding=(0, 1)),
    ],
)  # fmt: skip
def test_pools_in_front_of_the_weights_as_one_matrix(pool):
    conv = Layer(name="conv", synapse=Conv2d(weight=RNG.normal(size=(2, 1, 3, 3)), padding=(1, 1)), neuron=IF())
    inputs = int(np.prod(pool.output_shape((2, 5, 6))))
    readout = Layer(name="out", synapse=Dense(weight=RNG.normal(size=(3, inputs))), neuron=LI(tau_s=0.002))
    layers = [conv, Layer(name="pool", synapse=pool), Layer(name="flat", synapse=Flatten()), readout]
    graph = chain(layers, input_shape=(1, 5, 6))
    moved, x = move_to_host(graph), RNG.integers(0, 2, (7, 4, 1, 5, 6))
    weight, bias = merge_weights(read_host_readout(moved))
    merged = replace_weights(moved, weight, bias)
    expected, sent = simulate(graph, x).output, simulate(moved, x).output
    np.testing.assert_array_equal(read_on_host(moved, sent), expected)
    np.testing.assert_allclose(read_on_host(merged, sent), expected, atol=1e-5)
    flat = replace(moved, **{"layers": (*moved.layers, Layer(name="list", synapse=Flatten())), "output": "list"},
                   edges=(*moved.edges, Edge(source="conv", target="list")))  # fmt: skip
    assert flat.shape_of("list") == (60,)  # the positions are gone: pools become part of the weights
    np.testing.assert_allclose(simulate(join_readout(flat), x).output, expected, atol=1e-5)


def test_the_hosts_products_are_no_synops():
    graph, moved = network(), move_to_host(network())
    x = RNG.integers(0, 2, (9, 5, 4))
    joined = join_readout(moved)
    run = simulate(graph, x, record=("spikes",))
    on_chip = count_synops(moved, simulate(moved, x).counts)
    assert count_synops(joined, run.counts) == on_chip and on_chip.total < count_synops(graph, run.counts).total
    assert synops_per_spike(joined)["hidden"].sum() == 0 < synops_per_spike(graph)["hidden"].sum()
    np.testing.assert_array_equal(synops_per_spike(joined)[INPUT], synops_per_spike(moved)[INPUT])


def sums():
    """Return samples whose class is the input with most spikes."""
    x = np.random.default_rng(2).integers(0, 2, (90, 6, 4)).astype(np.uint8)
    split = Split(x=x, y=np.argmax(x[..., :3].sum(axis=1), axis=1), kind="spikes")
    return Dataset(name="sums", classes=3, train=split, val=split, test=split)


def test_the_readout_on_the_host_learns_with_the_chips_layers():
    data, start = sums(), move_to_host(network(neuron=LIF(tau_s=0.002)))
    hints = score_outputs(start, data.train)
    assert hints.shape == (90, 3)
    result = fit(start, data, Recipe(epochs=25, learning_rate=0.08))
    assert result.graph.output == "hidden" and set(result.graph.metadata) == {HOST_READOUT}
    assert evaluate(result.graph, data.test).accuracy > evaluate(start, data.test).accuracy + 0.2
    assert result.last is not None and result.last.synops == pytest.approx(evaluate(result.graph, data.val).synops.total)
    assert merge_weights(read_host_readout(result.graph))[0].tolist() != merge_weights(read_host_readout(start))[0].tolist()
    assert not (result.graph["hidden"] == start["hidden"])


def test_channels_that_the_host_reads_are_pruned_with_its_weights():
    conv = Layer(name="conv", synapse=Conv2d(weight=RNG.normal(size=(3, 1, 3, 3)), padding=(1, 1)), neuron=IF())
    readout = Layer(name="out", synapse=Dense(weight=RNG.normal(size=(3, 12))), neuron=LI(tau_s=0.002))
    graph = chain([conv, Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))), readout], input_shape=(1, 4, 4))
    moved, plan = move_to_host(graph), PruningPlan(kept={"conv": (0, 2)})
    (group,) = list_prunable_groups(moved)
    assert (group.name, group.channels, group.producers) == ("conv", 3, ("conv",))
    small = prune(moved, plan)
    assert small == move_to_host(prune(graph, plan)) and read_host_readout(small) == read_host_readout(
        move_to_host(prune(graph, plan))
    )
    assert small.metadata["kept_channels"] == {"conv": [0, 2]} and count_classes(small) == 3
    restored = restore_channels(moved, plan, small)
    assert restored == moved and read_host_readout(restored) == read_host_readout(moved)


@pytest.mark.parametrize("name", ["net.snn", "net.nir"])
def test_files_keep_the_readout_and_the_certificate_names_it(tmp_path, name):
    graph = move_to_host(network())
    if name.endswith(".snn"):
        write_snn(graph, tmp_path / name)
    else:
        facts = sd.export(graph, tmp_path / name, to="nir")
        assert facts["host_readout"] == "host_readout.npz" and (tmp_path / "host_readout.npz").is_file()
        assert [line for line in facts["assumptions"] if line.startswith("the readout is not on the chip: in each step the host")]
    read = sd.load(tmp_path / name)
    assert read_host_readout(read) == read_host_readout(graph) and count_classes(read) == 3


def test_outputs_per_class_are_those_of_spikes_alone():
    moved = move_to_host(network())
    assert count_per_class(replace(moved, metadata={**moved.metadata, OUTPUTS_PER_CLASS: 2})) == 1
    stated = replace(moved, metadata={**moved.metadata, OUTPUTS_PER_CLASS: 3})
    assert count_classes(join_readout(stated)) == count_classes(stated) == 3  # as it learns


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        ("mean", "3 classes; it adds these up over the steps, and the class with the largest mean over the steps is the answer"),
        ("maximum", "3 classes; the class with the largest value of any one step is the answer"),
        ("last", "3 classes; the class with the largest value of the last step is the answer"),
        ("each", "3 classes; in each step the class with the largest value is the answer"),
    ],
)
def test_sums_of_a_host_are_those_over_the_steps_for_their_mean_alone(decision, words):
    moved = state_decision(move_to_host(network(Layer(name="out", synapse=Dense(weight=RNG.normal(size=(3, 6)))))), decision)
    assert describe_classes(moved)[0].endswith(words)
