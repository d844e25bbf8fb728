"""Rules in which the makers' own compilers refuse a network, by profile key."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.report import BudgetReport
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LI, LIF, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer, Neuron
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain

ONE_STEP = LIF(tau_s=1e-3)
"""A neuron that keeps nothing from one step to the next, as those of Akida."""
XYLOS = ("xylo_audio2", "xylo_audio3", "xylo_imu")


def cuba(mem: float = 20, syn: float = 10) -> CubaLIF:
    """Return a neuron of time constants in steps of 1 ms."""
    return CubaLIF(tau_mem_s=mem * 1e-3, tau_syn_s=syn * 1e-3, reset="subtract")


def mlp(*widths: int, neuron: Neuron | None = None, last: Neuron | None = None) -> SNNGraph:
    neuron = cuba() if neuron is None else neuron
    layers = [
        Layer(
            name=f"fc{n}",
            synapse=Dense(weight=np.ones((o, i), np.float32)),
            neuron=last if last is not None and n == len(widths) - 2 else neuron,
        )
        for n, (i, o) in enumerate(pairwise(widths))
    ]
    return chain(layers, input_shape=(widths[0],))


def recurrent(hidden: int, degree: int, *, outputs: int = 4, inputs: int = 4, at_output: bool = False) -> SNNGraph:
    """Return a hidden layer (or an output layer, with `at_output`) in which each neuron feeds the next `degree` ones."""
    size = outputs if at_output else hidden
    loop = sum(np.roll(np.eye(size, dtype=np.float32), k, axis=0) for k in range(degree))
    name = "out" if at_output else "hidden"
    layers = (
        Layer(name="into_hidden", synapse=Dense(weight=np.eye(hidden, inputs, dtype=np.float32))),
        Layer(name="hidden", neuron=cuba()),
        Layer(name="into_out", synapse=Dense(weight=np.eye(outputs, hidden, dtype=np.float32))),
        Layer(name="out", neuron=cuba()),
        Layer(name="back", synapse=Dense(weight=loop)),
    )
    ways = [(INPUT, "into_hidden", 0), ("into_hidden", "hidden", 0), ("hidden", "into_out", 0), ("into_out", "out", 0)]
    ways += [(name, "back", 1), ("back", name, 0)]
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in ways)
    return SNNGraph(layers=layers, edges=edges, input_shape=(inputs,), output="out")


def over(report: BudgetReport) -> set[str]:
    return {row.resource for row in report.rows if row.status == "over"}


def notes(report: BudgetReport, topic: str) -> list[str]:
    return [note for note in report.notes if note.startswith(f"{topic}: ")]


@pytest.mark.parametrize(
    ("chip", "neurons", "degree"), [("xylo_audio2", 800, 40), ("xylo_audio3", 992, 32), ("xylo_imu", 496, 64)]
)
def test_the_fan_out_list_of_xylo_holds_half_of_both_synaptic_states(chip: str, neurons: int, degree: int) -> None:
    """32,000 entries, or 31,744: exactly full fits, one synapse more does not."""
    profile, full = load_profile(chip), recurrent(neurons, degree)
    assert neurons * degree in (32000, 31744)
    assert check(full, profile).verdict == "fits"
    weight = full["back"].synapse.weight.copy()
    weight[0, np.flatnonzero(weight[0] == 0)[0]] = 1
    more = full.with_layers({"back": Layer(name="back", synapse=Dense(weight=weight))})
    assert "fan_out_mean" in over(check(more, profile))


def test_800_neurons_with_51200_connections_do_not_fit_xylo_audio2() -> None:
    row = next(row for row in check(recurrent(800, 64), load_profile("xylo_audio2")).rows if row.resource == "fan_out_mean")
    assert (row.used, row.limit, row.status) == (51200, 32000, "over")


@pytest.mark.parametrize("chip", XYLOS)
def test_xylo_needs_a_hidden_layer(chip: str) -> None:
    report = check(mlp(4, 4), load_profile(chip))
    assert over(report) == {"hidden_layer"} and report.verdict == "does_not_fit"
    (finding,) = report.unsupported
    assert finding.why == f"output neurons of {chip} read hidden neurons alone; put a hidden layer in between"
    assert check(mlp(4, 4, 4), load_profile(chip)).verdict == "fits"


@pytest.mark.parametrize("chip", XYLOS)
def test_xylo_refuses_input_that_reaches_the_output_layer_beside_a_hidden_one(chip: str) -> None:
    """The edge from the hidden layer waits a step, so no other rule sees the two arrive together."""
    layers = (
        Layer(name="hidden", synapse=Dense(weight=np.ones((4, 4))), neuron=cuba()),
        Layer(name="direct", synapse=Dense(weight=np.ones((4, 4)))),
        Layer(name="into", synapse=Dense(weight=np.ones((4, 4)))),
        Layer(name="out", neuron=cuba()),
    )
    ways = [(INPUT, "hidden", 0), (INPUT, "direct", 0), ("hidden", "into", 1), ("into", "out", 0), ("direct", "out", 0)]
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in ways)
    net = SNNGraph(layers=layers, edges=edges, input_shape=(4,), output="out")
    assert over(check(net, load_profile(chip))) == {"hidden_layer"}


@pytest.mark.parametrize("chip", XYLOS)
def test_the_output_layer_of_xylo_feeds_no_neurons(chip: str) -> None:
    report = check(recurrent(8, 1, at_output=True), load_profile(chip))
    assert over(report) == {"recurrent"}
    (finding,) = report.unsupported
    assert (finding.layer, finding.what) == ("out", "spikes of the output layer 'out' as input")
    assert finding.why == f"output neurons of {chip} feed no neurons; feed back from a hidden layer"
    assert check(recurrent(8, 1), load_profile(chip)).verdict == "fits"


@pytest.mark.parametrize("chip", XYLOS)
@pytest.mark.parametrize(
    ("neuron", "what"),
    [
        (cuba(1, 10), "membrane time constant of 1 step"),
        (cuba(20, 0.5), "synaptic time constant of 0.5 steps"),
        (LIF(tau_s=1e-3, reset="subtract"), "membrane time constant of 1 step"),
        (cuba(1.01, 1.01), None),
    ],
)
def test_time_constants_of_a_step_or_less_have_no_dash(chip: str, neuron: Neuron, what: str | None) -> None:
    report = check(mlp(4, 4, 4, neuron=cuba(), last=neuron), load_profile(chip))
    assert over(report) == (set() if what is None else {"time_constant"})
    assert [finding.what for finding in report.unsupported] == ([] if what is None else [what])


def test_neurons_that_xylo_approximates_are_in_the_notes() -> None:
    chip = load_profile("xylo_audio3")
    assert not notes(check(mlp(4, 4, 4), chip), "approximation")
    lif = check(mlp(4, 4, 4, neuron=LIF(tau_s=0.02, reset="subtract")), chip)
    (note,) = notes(lif, "approximation")
    assert note.startswith("approximation: 'fc0' and 'fc1' have no synaptic current") and "dash_syn = 1" in note
    assert lif.verdict == "fits"
    readout = check(mlp(4, 4, 4, last=LI(tau_s=0.02)), chip)
    current, potential = notes(readout, "approximation")
    assert current.startswith("approximation: 'fc1' has no synaptic current, every neuron of xylo_audio3 has one")
    assert potential == (
        "approximation: 'fc1' is read as a potential; xylo_audio3 takes a neuron whose threshold is out of reach"
    )
    assert len(notes(check(mlp(4, 4, 4, last=CubaLI(tau_mem_s=0.02, tau_syn_s=0.01)), chip), "approximation")) == 1


def test_dense_layers_of_akd1000_take_one_of_22_cores_each_and_those_of_akd1500_more_passes() -> None:
    for count, result in ((22, set()), (23, {"dense_layers"})):
        report = check(mlp(*[16] * (count + 1), neuron=ONE_STEP), load_profile("akd1000"))
        assert over(report) == result
    assert next(row for row in report.rows if row.resource == "dense_layers").limit == 22
    report = check(mlp(*[16] * 65, neuron=ONE_STEP), load_profile("akd1500"))
    assert not over(report) and "dense_layers" not in {row.resource for row in report.rows}


def test_filters_of_akida_end_at_2048() -> None:
    for filters, channels, result in ((2048, 1, set()), (2049, 1, {"channels"}), (1, 2049, {"channels"})):
        synapse = Conv2d(weight=np.ones((filters, channels, 1, 1), np.float32))
        net = chain([Layer(name="c", synapse=synapse, neuron=ONE_STEP)], input_shape=(channels, 2, 2))
        assert over(check(net, load_profile("akd1000"))) == result


def test_an_unchecked_verdict_names_what_is_decided_and_what_is_not_published() -> None:
    report = check(mlp(16, 16, neuron=ONE_STEP), load_profile("akd1000"))
    unchecked = [row.resource for row in report.rows if row.status == "unchecked"]
    assert report.verdict == "unchecked" and unchecked == ["reset"]
    decided = len(report.rows) - 1
    assert notes(report, "open") == [f"open: {decided} of {decided + 1} rows are decided and none is over; not published: reset"]
    assert not notes(check(mlp(16, 16, neuron=IF()), load_profile("generic45nm")), "open")
    assert not notes(check(mlp(57335, 2, neuron=ONE_STEP), load_profile("akd1000")), "open")


@pytest.mark.parametrize(("kernel", "stride", "fits"), [(3, 2, True), (1, 1, True), (1, 2, False), (5, 2, False), (7, 1, True)])
def test_akida_strides_over_kernels_of_3_alone(kernel: int, stride: int, fits: bool) -> None:
    synapse = Conv2d(weight=np.ones((2, 1, kernel, kernel), np.float32), stride=(stride,) * 2, padding=(kernel // 2,) * 2)
    report = check(chain([Layer(name="c", synapse=synapse, neuron=ONE_STEP)], input_shape=(1, 8, 8)), load_profile("akd1000"))
    what = f"Conv2d with stride {stride} x {stride} and kernel {kernel} x {kernel}"
    assert [finding.what for finding in report.unsupported] == ([] if fits else [what])
    assert report.verdict == ("unchecked" if fits else "does_not_fit")


@pytest.mark.parametrize(("side", "fits"), [(16, True), (17, False), (32, False)])
@pytest.mark.parametrize("flatten", [True, False])
def test_a_dense_layer_on_speck_is_a_kernel_of_its_map_with_or_without_a_flatten(side: int, fits: bool, flatten: bool) -> None:
    between = [Layer(name="flat", synapse=Flatten())] if flatten else []
    fc = Layer(name="fc", synapse=Dense(weight=np.ones((2, side * side), np.float32)), neuron=IF())
    report = check(chain([*between, fc], input_shape=(1, side, side)), load_profile("speck2f"))
    what = f"Dense behind a map of {side} x {side}, a convolution with kernel {side}"
    assert [finding.what for finding in report.unsupported] == ([] if fits else [what])


def test_a_network_at_which_the_makers_mapper_stops_is_noted() -> None:
    one, two = (check(mlp(*[4] * n), load_profile("xylo_imu")) for n in (3, 4))
    assert (one.verdict, two.verdict) == ("fits", "fits")
    assert notes(one, "mapper") == [
        "mapper: the maker's own mapper for xylo_imu stops at fewer than 2 hidden layers (the network has 1); the chip's limits "
        "hold, so `export` can write its arrays"
    ]
    assert not notes(two, "mapper") and not notes(check(mlp(4, 4, 4), load_profile("xylo_audio3")), "mapper")


def test_a_core_of_speck_holds_the_weights_of_one_layer() -> None:
    kernels = [Layer(name=name, synapse=Conv2d(weight=np.ones((2, 2, 1, 1), np.float32))) for name in "xy"]
    layers = (Layer(name="a", synapse=kernels[0].synapse, neuron=IF()), *kernels, Layer(name="s", neuron=IF()))
    ways = [(INPUT, "a"), ("a", "x"), (INPUT, "y"), ("x", "s"), ("y", "s")]
    net = SNNGraph(layers=layers, edges=tuple(Edge(source=s, target=t) for s, t in ways), input_shape=(2, 4, 4), output="s")
    report = check(net, load_profile("speck2f"))
    assert [(f.layer, f.what, f.why) for f in report.unsupported] == [
        ("s", "currents of 'x' and 'y' that add up", "a core of speck2f holds 1 layer of weights; merge them into one")
    ]
    assert report.verdict == "does_not_fit"
