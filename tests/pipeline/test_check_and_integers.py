"""What `check` lets pass becomes integers, runs, and is written for the chip's tool; what integers refuse does not fit."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.errors import GraphError, ProfileError, Refusal, SpearError
from spear_deploy.hardware.profile import list_profiles, load_profile, override_facts
from spear_deploy.network import IF, LI, LIF, AvgPool, BatchNorm, Conv2d, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import FORMATS
from spear_deploy.quantize.fold import fold_chained_weights
from spear_deploy.quantize.for_chip import ask_integers
from spear_deploy.simulator import simulate
from tests.support.drawn_networks import draw_network
from tests.support.seeds import few_first, seeds
from tests.support.varied_networks import KINDS, vary_network
from tests.support.wild_graphs import wild_graph

PROFILES = [profile for profile in map(load_profile, list_profiles()) if profile.meta.family in FORMATS]
FILES = {"speck": ("speck", "net.json"), "xylo": ("xylo", "net.npz"), "spinnaker": ("pynn", "net.py")}
"""By family the format of the chip's tool, and a name."""
VARIED = seeds(1, 60)
SEEDS = range(12, 600)
"""Those before are drawn in every run, and counted."""


def spikes_into(graph, seed):
    return (np.random.default_rng(seed).random((6, 2, *graph.input_shape)) < 0.4).astype(np.uint8)


def hold_to_integers(graph, seed, folder=None, *, profiles=PROFILES, **options):
    """Compare the check of chips, with its options, with their integers; return how often both say yes, and both no."""
    graph, both = fold_chained_weights(graph), [0, 0]
    for profile in profiles:
        report = check(graph, profile, **options)  # `api.check` adds what an adaptation would replace, half of the time
        x = spikes_into(graph, seed)
        try:
            integer = api.quantize_for_chip(graph, profile)
        except SpearError as error:
            assert report.verdict == "does_not_fit", f"{profile.name} fits, but {error}"
            both[1] += 1
            continue
        if report.verdict == "does_not_fit":
            continue
        both[0] += 1
        calibrated = api.quantize_for_chip(graph, profile, calibration=x)
        for each in (integer, calibrated):
            simulate(each, x)
            of_integers = check(each, profile, chips=options.get("chips", 1))
            assert not of_integers.unsupported, profile.name
            assert (report.verdict, of_integers.verdict) != ("fits", "does_not_fit"), profile.name
        if folder is not None and profile.meta.family in FILES:
            to, name = FILES[profile.meta.family]
            assert api.export(graph, folder / name, to=to, chip=profile, x=x)["mismatches"] == 0
    return np.array(both)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_check_and_the_integers_of_all_chips_agree(seed, tmp_path):
    hold_to_integers(draw_network(seed), seed, tmp_path)


@pytest.mark.parametrize("first", few_first(range(0, 12, 3), 1))
def test_networks_of_all_parts_agree_too(first):
    both = sum(hold_to_integers(wild_graph(seed), seed) for seed in range(first, first + 3))
    assert both[1] > 25, "of these most are refused"


@pytest.mark.parametrize("seed", VARIED)
@pytest.mark.parametrize("kind", KINDS)
def test_parts_at_the_edge_of_what_chips_hold_agree_too(kind, seed, tmp_path):
    """Numbers, delays, heads and geometry that chips just hold or do not; several chips, and with an activity."""
    try:
        graph = vary_network(1000 + seed, kind)
    except GraphError:  # no network has that part
        return
    hold_to_integers(graph, seed, tmp_path, chips=1 + seed % 3, activity=(None, 0.0, 0.3, 1.0)[seed % 4])


@pytest.mark.parametrize("seed", seeds(4, 200))
def test_chips_whose_facts_were_changed_agree_too(seed, tmp_path):
    """Chips with few neurons, inputs, spikes a step, steps of delay or bits of a weight."""
    rng = np.random.default_rng(seed)
    facts = {
        "core.neurons": int(rng.integers(1, 40)),
        "connectivity.input_channels": int(rng.integers(1, 20)),
        "neuron.max_spikes_per_step": int(rng.integers(1, 5)),
        "weights.delay_max_steps": int(rng.integers(0, 3)),
        "weights.bits": [int(rng.integers(1, 9))],
    }
    key = list(facts)[seed % len(facts)]
    changed = {key: facts[key]}
    if key == "weights.bits":
        changed["weights.default_bits"] = facts[key][0]  # is one of them
    profiles = []
    for profile in PROFILES:
        if key == "weights.delay_max_steps" and profile.meta.family == "xylo":
            continue  # its file has no place for a delay, whatever the fact says
        try:
            profiles.append(override_facts(profile, changed))
        except ProfileError:  # the fact contradicts another of this chip
            continue
    assert profiles
    hold_to_integers(draw_network(2000 + seed), seed, tmp_path, profiles=profiles)


def behind_a_convolution(bias, delay, **parts):
    """Return a network with a pool behind a convolution, and parts and neurons behind the pool."""
    rng = np.random.default_rng(0)
    spiking = IF(reset="subtract")
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(4, 2, 3, 3)), padding=(1, 1), bias=np.full(4, bias))),
        Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="a", neuron=spiking, **parts),
        Layer(name="b", synapse=Dense(weight=rng.normal(size=(3, 16))), neuron=spiking),
    ]
    graph = chain(layers, input_shape=(2, 4, 4))
    return replace(graph, edges=tuple(replace(e, delay=delay * (e.target == "a")) for e in graph.edges))


@pytest.mark.parametrize(
    ("bias", "delay", "verdicts"),
    [(0.0, 0, {"speck2f": "fits", "generic45nm": "fits"}),
     pytest.param(0.5, 2, {"generic45nm": "does_not_fit"}, marks=pytest.mark.slow),
     pytest.param(0.0, 2, {"generic45nm": "fits"}, marks=pytest.mark.slow),
     pytest.param(0.5, 0, {"speck2f": "fits"}, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_batch_norm_behind_a_pool_of_currents_or_a_delay_is_judged_as_the_scale_that_it_is(bias, delay, verdicts):
    """Folded into the convolution, also over a delay, but not where a bias arrives after the delay."""
    one = np.ones(4, np.float32)
    norm = BatchNorm(weight=2 * one, bias=0.5 * one, mean=0 * one, var=one, eps=0.0)
    normed = behind_a_convolution(bias, delay, norm=norm)
    scaled = behind_a_convolution(bias, delay, synapse=Scale(weight=np.full((4, 1, 1), 2.0), bias=np.full((4, 1, 1), 0.5)))
    for name in list_profiles():
        of_norm, of_scale = (api.check(graph, name) for graph in (normed, scaled))
        assert of_norm.verdict == of_scale.verdict == verdicts.get(name, of_scale.verdict), name
        assert of_norm.cores_used == of_scale.cores_used, name
    assert (hold_to_integers(normed, 0) == hold_to_integers(scaled, 0)).all()


def test_a_batch_norm_that_ends_a_network_is_a_weighted_sum_as_output():
    one = np.ones(4, np.float32)
    norm = BatchNorm(weight=2 * one, bias=0 * one, mean=0 * one, var=one, eps=0.0)
    hidden = Layer(name="a", synapse=Dense(weight=np.ones((4, 4))), neuron=IF())
    report = api.check(chain([hidden, Layer(name="b", norm=norm)], input_shape=(4,)), "akd1000")
    assert ("b", "a weighted sum as output") in [(row.layer, row.what) for row in report.unsupported]
    pooled = Layer(name="p", synapse=AvgPool(kernel_size=(2, 2)), norm=norm, neuron=LIF(tau_s=0.01, reset="subtract"))
    report = api.check(chain([pooled], input_shape=(4, 2, 2)), "xylo_audio2")
    assert {row.layer for row in report.unsupported} == {"p"}, "a pool of spikes stays with its norm and neurons"


@pytest.mark.slow
def test_of_the_drawn_networks_many_fit_a_chip_and_many_are_refused(tmp_path):
    both = np.zeros(2, int)
    for seed in range(12):
        (folder := tmp_path / str(seed)).mkdir()
        both += hold_to_integers(draw_network(seed), seed, folder)
    assert (both > 15).all()


def test_what_integers_refuse_is_a_row_with_what_to_do():
    """A convolution whose readout leaks by its own time constants, and a bias on ReckOn's hidden neurons."""
    tau = np.linspace(8e-3, 20e-3, 48).reshape(3, 4, 4)
    conv = Conv2d(weight=np.ones((3, 1, 3, 3)), padding=(1, 1))
    readout = chain([Layer(name="c", synapse=conv, neuron=LI(tau_s=tau))], input_shape=(1, 4, 4))
    (row,) = (row for row in api.check(readout, "loihi2").rows if row.status == "over")
    assert (row.resource, row.where, row.used, row.limit) == ("neuron_constants", "c", 1, 0)
    assert row.detail.startswith("time constants that differ inside a channel: weights of loihi2 hold one gain for each channel")
    assert row.remedy.startswith("train with one value for each channel; `adapt` puts in its place: their mean over a channel")
    hidden = LIF(tau_s=0.02)
    biased = Conv2d(weight=np.ones((2, 1, 3, 3)), padding=(1, 1), bias=np.ones(2))
    layers = [
        Layer(name="a", synapse=biased, neuron=hidden),
        Layer(name="b", synapse=Conv2d(weight=np.ones((2, 2, 4, 4))), neuron=hidden),
    ]
    report = api.check(chain(layers, input_shape=(1, 4, 4)), "reckon")
    (row,) = (row for row in report.rows if row.status == "over")
    assert (row.resource, row.where) == ("integers", "a")
    assert row.detail == "a bias: ReckOn's neurons have none; give it an input that spikes in every step"
    assert "give it an input that spikes in every step; `adapt` puts in its place: " in row.remedy


def test_a_refusal_names_a_layer_of_the_network_even_where_its_sentence_names_none():
    layers = [Layer(name=name, synapse=Conv2d(weight=np.ones((1, 1, 1, 1))), neuron=LIF(tau_s=1e-3)) for name in "ab"]
    graph = chain(layers, input_shape=(1, 2, 2))
    refusal = ask_integers(graph, load_profile("speck2f"))
    assert isinstance(refusal, Refusal)
    assert (refusal.layer, refusal.what) == ("a", "LIF leaks")
    assert (refusal.why, refusal.remedy) == ("Speck's neurons integrate and fire", "use IF (a constant leak is a bias)")
    assert not isinstance(ask_integers(graph, load_profile("akd1000")), Refusal)
    assert ask_integers(graph, load_profile("generic45nm")) is None


def test_all_layers_whose_potential_akida_loses_are_named():
    """Only the first was: the network seemed to lack one replacement."""
    layers = [Layer(name="a", synapse=Dense(weight=np.ones((3, 4))), neuron=IF())]
    layers += [Layer(name="b", synapse=Dense(weight=np.ones((3, 3))), neuron=LIF(tau_s=1e-3))]
    layers += [Layer(name="c", synapse=Dense(weight=np.ones((2, 3))), neuron=IF())]
    found = api.check(chain(layers, input_shape=(4,)), "akd1000").unsupported
    what = "IF keeps a potential from one step to the next"
    assert [(part.layer, part.what, part.resource) for part in found] == [("a", what, "integers"), ("c", what, "integers")]


def test_a_refusal_of_a_layer_that_integers_add_stands_where_it_leads_to_and_of_no_layer_at_the_output(monkeypatch):
    layers = [
        Layer(name="p", synapse=SumPool(kernel_size=(2, 2)), neuron=LIF(tau_s=0.02, reset="subtract")),
        Layer(name="f", synapse=Flatten()),
    ]
    refusal = ask_integers(chain(layers, input_shape=(1, 4, 4)), load_profile("xylo_audio2"))
    assert (refusal.layer, refusal.what) == ("p", "SumPool")

    def fail(*_, **__):
        raise GraphError("sparse weights of 9x9: written out they take 1 GB, 0 GB of memory are free; keep them sparse")

    monkeypatch.setattr("spear_deploy.quantize.for_chip.quantize_for_profile", fail)
    refusal = ask_integers(chain(layers, input_shape=(1, 4, 4)), load_profile("loihi2"))
    assert (refusal.layer, refusal.what, refusal.remedy) == ("f", "no integers", "")
    row = next(row for row in api.check(chain(layers, input_shape=(1, 4, 4)), "loihi2").rows if row.resource == "integers")
    assert row.detail.endswith("written out they take 1 GB, 0 GB of memory are free; keep them sparse")
    assert row.remedy.startswith("keep them sparse")
