"""Parts of networks that chips do not have, by layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation.plan import make_plans
from spear_deploy.budget.check import check
from spear_deploy.budget.unsupported import Unsupported, find_unsupported
from spear_deploy.hardware.profile import HardwareProfile, list_profiles, load_profile, override_facts
from spear_deploy.network import IF, LI, LIF, BatchNorm, Conv1d, Conv2d, CubaLI, CubaLIF, Dense, Flatten, LoihiLIF, SumPool
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.pipeline.api import quantize_for_chip
from spear_deploy.placement.populations import find_populations
from spear_deploy.quantize import FORMATS, quantize
from spear_deploy.simulator import simulate
from tests.support.chips import conv, small_chip

RNG = np.random.default_rng(0)
LOIHI2 = load_profile("loihi2")


def findings(graph: SNNGraph, chip: HardwareProfile = LOIHI2) -> list[tuple[str, str, str]]:
    return [(f.layer, f.what, f.why) for f in find_unsupported(graph, chip, find_populations(graph))]


def test_batch_norm_pools_readouts_and_flattens_are_fine() -> None:
    ones = np.ones(4)
    net = chain(
        [
            Layer(name="c", synapse=conv(RNG, 4, 1)),
            Layer(name="n", norm=BatchNorm(weight=ones, bias=ones, mean=ones, var=ones)),
            Layer(name="l", neuron=CubaLIF(tau_mem_s=0.01, tau_syn_s=0.01)),
            Layer(name="p", synapse=SumPool(kernel_size=(2, 2))),
            Layer(name="f", synapse=Flatten()),
            Layer(name="out", synapse=Dense(weight=np.ones((3, 36))), neuron=LI(tau_s=0.01)),
        ],
        input_shape=(1, 8, 8),
    )
    for name in ("loihi1", "loihi2"):
        assert findings(net, load_profile(name)) == []


@pytest.mark.parametrize("chip", ["xylo_audio2", "xylo_audio3", "xylo_imu", "brainscales2"])
@pytest.mark.parametrize("make", [Conv1d, Conv2d])
@pytest.mark.parametrize("size", [1, 2])
def test_a_convolution_on_a_chip_without_maps_is_what_adapt_writes_out(chip: str, make: type, size: int) -> None:
    """Also on maps of one position, where it is a Dense already; the adapted network has the same spikes."""
    rng, axes = np.random.default_rng(size), 1 if make is Conv1d else 2
    neuron = CubaLIF(tau_mem_s=0.016, tau_syn_s=0.008, reset="value" if chip == "brainscales2" else "subtract")
    layers = [
        Layer(name=name, synapse=make(weight=rng.normal(1.0, 1.0, (2, 2, *(1,) * axes)) * 9), neuron=neuron)
        for name in ("c", "out")
    ]
    graph = chain(layers, input_shape=(2, *(size,) * axes), dt_s=1e-3)
    profile = load_profile(chip)
    has = f"{chip} maps Dense, Flatten; use a Dense of the same weights, written out, as `adapt` does"
    assert findings(graph, profile) == [(name, make.__name__, has) for name in ("c", "out")]
    (plan,) = make_plans(graph, profile, learns=False)
    assert [step.replacement.by for step in plan.steps] == ["a Dense of the same weights, written out"] and not plan.lacking
    x = (rng.random((20, 3, *graph.input_shape)) < 0.4).astype(np.uint8)
    wanted = simulate(graph, x).output
    assert wanted.any() and np.array_equal(simulate(plan.graph, x).output, wanted.reshape(20, 3, -1))


def test_all_findings_are_reported_at_once_by_layer() -> None:
    """`c` has no input of the same step, so it is a first layer: 72 steps after `b`, a second layer, are 70 on the chip."""
    weight = np.array([[253, -253]])
    subtracts = LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1, reset="subtract")
    rests = LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1, refractory_steps=3)
    reads_out = LoihiLIF(decay_u=4096, decay_v=0, v_threshold=None)
    net = SNNGraph(
        layers=(
            Layer(name="a", synapse=Dense(weight=weight), neuron=subtracts),
            Layer(name="b", synapse=Dense(weight=weight[:, :1]), neuron=rests),
            Layer(name="c", synapse=Dense(weight=weight[:, :1]), neuron=reads_out),
        ),
        edges=(
            Edge(source="input", target="a"),
            Edge(source="a", target="b"),
            Edge(source="b", target="c", delay=72),
        ),
        input_shape=(2,),
    )
    chip = small_chip(neuron__resets=["value"], neuron__refractory_max_steps=0)
    lacking = [(layer, what) for layer, what, _ in findings(net, chip)]
    assert lacking == [
        ("a", "weights of 9 bits"),
        ("a", "reset by subtraction"),
        ("b", "refractory time of 3 steps"),
        ("c", "a delay of 70 steps from 'b'"),
    ]
    why = {what: why.replace(chip.name, "loihi2") for _, what, why in findings(net, chip)}
    assert why["weights of 9 bits"] == "loihi2 stores up to 8 bits; quantise the network to 8 bits"
    assert why["reset by subtraction"] == "the stock neuron of loihi2 resets to a value; train with reset='value'"
    assert why["refractory time of 3 steps"] == "the stock neuron of loihi2 rests at most 0"
    assert why["a delay of 70 steps from 'b'"] == "loihi2 delays at most 62 steps"
    assert [(layer, what) for layer, what, _ in findings(net, load_profile("loihi1"))] == [lacking[0], lacking[1], lacking[3]]
    assert [(layer, what) for layer, what, _ in findings(net)] == [
        lacking[0],
        lacking[3],
    ]  # microcode resets at will


@pytest.mark.parametrize(
    ("synapse", "key", "value", "what"),
    [
        (Conv2d(weight=np.ones((2, 2, 3, 3)), dilation=(1, 2)), "layers__conv_dilation_max", 1, "Conv2d with dilation 2"),
        (Conv2d(weight=np.ones((2, 1, 3, 3)), groups=2), "layers__conv_groups_max", 1, "Conv2d with groups 2"),
        (Conv2d(weight=np.ones((2, 2, 3, 3)), stride=(2, 3)), "layers__conv_stride_max", 2, "Conv2d with stride 3"),
        (Conv2d(weight=np.ones((2, 2, 3, 5))), "layers__conv_kernel_max", 4, "Conv2d with kernel 5"),
        (Conv2d(weight=np.ones((2, 2, 3, 3))), "layers__kinds", ["Dense"], "Conv2d"),
    ],
)
def test_convolutions_the_chip_cannot_map(synapse: Conv2d, key: str, value: object, what: str) -> None:
    net = chain([Layer(name="c", synapse=synapse, neuron=IF())], input_shape=(2, 9, 9))
    (finding,) = findings(net, small_chip(**{key: value}))
    assert finding[:2] == ("c", what)
    assert findings(net, small_chip()) == []


def test_neuron_models_and_limits_that_are_not_published() -> None:
    net = chain([Layer(name="n", neuron=LIF(tau_s=0.01, reset="subtract"))], input_shape=(3,))
    chip = small_chip(neuron__models=["IF"], neuron__resets=["value"])
    assert [f[:2] for f in findings(net, chip)] == [("n", "LIF"), ("n", "reset by subtraction")]
    open_chip = small_chip(neuron__models=None, neuron__resets=None, layers__kinds=None, neuron__refractory_max_steps=None)
    assert findings(net, open_chip) == []


def test_values_do_not_travel_between_cores() -> None:
    net = chain(
        [
            Layer(name="w1", synapse=Dense(weight=np.ones((3, 2)))),
            Layer(name="w2", synapse=Dense(weight=np.ones((3, 3))), neuron=LI(tau_s=0.01)),
            Layer(name="w3", synapse=Dense(weight=np.ones((1, 3))), neuron=IF()),
        ],
        input_shape=(2,),
    )
    assert findings(net) == [
        ("w2", "weights behind the weights of 'w1'", "no neuron lies between; merge the two layers into one"),
        ("w3", "the readout 'w2' feeds it", "only spikes travel between cores; let a spiking neuron feed it"),
    ]


def test_a_readout_that_feeds_itself_sends_a_value_like_any_other() -> None:
    """Generic chips have no integers that would refuse it."""
    layer = Layer(name="li", synapse=Dense(weight=np.eye(2)), neuron=LI(tau_s=0.01))
    edges = (Edge(source=INPUT, target="li"), Edge(source="li", target="li", delay=1))
    net = SNNGraph(layers=(layer,), edges=edges, input_shape=(2,))
    why = "only spikes travel between cores; let a spiking neuron feed it"
    for name in ("loihi2", "generic45nm"):
        assert findings(net, load_profile(name)) == [("li", "the readout 'li' feeds it", why)]
        assert check(net, load_profile(name), remedies=False).verdict == "does_not_fit"


def test_values_do_not_reach_neurons_without_weights_either() -> None:
    """Through a pool, and not at an output that is a value itself."""
    readout = Layer(name="li", synapse=conv(RNG, 2, 1), neuron=LI(tau_s=0.01))
    pool = Layer(name="pool", synapse=SumPool(kernel_size=(2, 2)))
    assert findings(chain([readout, pool], input_shape=(1, 6, 6))) == []
    assert findings(chain([readout, pool, Layer(name="if", neuron=IF())], input_shape=(1, 6, 6))) == [
        ("if", "the readout 'li' feeds it", "only spikes travel between cores; let a spiking neuron feed it")
    ]


@pytest.mark.parametrize("chip", ["speck2f", "xylo_audio2", "akd1000", "loihi2"])
def test_spikes_without_weights_are_weights_of_1_on_a_chip(chip: str) -> None:
    """A pool into neurons, and a skip, as they end in integers that are checked too."""
    layers = [
        Layer(name="a", synapse=Dense(weight=np.eye(4)), neuron=IF(reset="subtract")),
        Layer(name="b", neuron=IF(reset="subtract")),
    ]
    net, profile = chain(layers, input_shape=(4,)), load_profile(chip)
    lacks = [] if chip == "loihi2" else ["b"]
    assert [layer for layer, what, _ in findings(net, profile) if what == "spikes without weights"] == lacks
    if chip in ("loihi2", "speck2f"):
        assert [row.layer for row in check(quantize_for_chip(net, profile), profile).unsupported] == lacks


def test_a_layer_that_is_listed_first_is_not_fed_back() -> None:
    """Layers are sorted by edges without delay alone."""
    layers = tuple(Layer(name=name, synapse=Dense(weight=np.eye(2)), neuron=IF()) for name in ("late", "first"))
    edges = (Edge(source="input", target="first"), Edge(source="first", target="late", delay=1))
    net = SNNGraph(layers=layers, edges=edges, input_shape=(2,), output="late")
    assert [layer.name for layer in net.layers] == ["late", "first"]
    assert findings(net, small_chip(connectivity__recurrent=False)) == []
    loop = SNNGraph(layers=layers, edges=(*edges, Edge(source="late", target="first", delay=1)), input_shape=(2,), output="late")
    assert [what for _, what, _ in findings(loop, small_chip(connectivity__recurrent=False))] == [
        "feedback from 'first'", "feedback from 'late'",
    ]  # fmt: skip


def test_feedback_is_open_on_a_chip_that_does_not_state_whether_spikes_may_return() -> None:
    edges = [Edge(source="input", target="fc"), Edge(source="fc", target="fc", delay=2), Edge(source="fc", target="out")]
    layers = [Layer(name="fc", synapse=Dense(weight=np.eye(2)), neuron=IF())]
    layers += [Layer(name="out", synapse=Dense(weight=np.eye(2)), neuron=IF())]
    net = SNNGraph(layers=layers, edges=edges, input_shape=(2,), output="out")
    report = check(net, small_chip(connectivity__recurrent=None))
    (row,) = (row for row in report.rows if row.status == "unchecked")
    assert (row.resource, row.where, row.used, row.detail) == ("recurrent", "fc", None, "feedback from 'fc'")
    assert report.verdict == "unchecked" and any("; not published: recurrent" in note for note in report.notes)
    chain_of_both = replace(net, edges=[edge for edge in edges if not edge.delay])
    assert check(chain_of_both, small_chip(connectivity__recurrent=None)).verdict == "fits"
    refused = check(replace(net, output="fc", layers=layers[:1], edges=edges[:2]),
                    small_chip(connectivity__recurrent=None, connectivity__recurrent_readout=False))  # fmt: skip
    assert [(row.status, row.used) for row in refused.rows if row.resource == "recurrent"] == [("over", 1)]


@pytest.mark.parametrize(
    ("changes", "open_sizes"),
    [
        ({}, None),
        ({"layers__input_map_max": None}, "layers.input_map_max"),
        ({"layers__conv_kernel_max": None, "layers__conv_stride_max": None, "layers__channels_max": None},
         "layers.conv_kernel_max, layers.conv_stride_max and layers.channels_max"),
        ({"layers__conv_kernel_max": None, "layers__conv_kernel_sizes": [3, 5]}, None),
        ({"layers__conv_stride_max": None, "layers__conv_stride_sizes": [1, 2]}, None),
    ],
)  # fmt: skip
def test_sizes_of_convolutions_without_a_limit_are_named(changes: dict[str, object], open_sizes: str | None) -> None:
    net = chain([Layer(name="c", synapse=conv(RNG, 4, 1, stride=(2, 2)), neuron=IF())], input_shape=(1, 8, 8))
    (note,) = [note for note in check(net, small_chip(**changes)).notes if note.startswith("sizes: ")] or [None]
    assert note == (open_sizes and f"sizes: loihi2 states no {open_sizes}, so any size is allowed there")
    dense = chain([Layer(name="fc", synapse=Dense(weight=np.eye(2)), neuron=IF())], input_shape=(2,))
    assert not any(note.startswith("sizes: ") for note in check(dense, small_chip(**changes)).notes)


@pytest.mark.parametrize("name", list_profiles())
def test_a_state_of_another_width_than_the_integers_is_named(name: str) -> None:
    """The included chips have the width of their family; one of a user may differ, and the simulator does not see it."""
    net = chain([Layer(name="fc", synapse=Dense(weight=np.eye(2)), neuron=IF())], input_shape=(2,))
    profile = load_profile(name)
    assert not any(note.startswith("state: ") for note in check(net, profile).notes)
    for bits, what in ((4, "a state beyond that overflows on the chip, not in the integers"),
                       (40, "the integers overflow before the chip does")):  # fmt: skip
        notes = check(net, override_facts(profile, {"neuron.state_bits": bits})).notes
        found = [note for note in notes if note.startswith("state: ")]
        held = profile.neuron.state_bits.value
        is_known = held is not None and profile.meta.family in FORMATS
        assert found == is_known * [
            f"state: integers of the family '{profile.meta.family}' hold {held} bits of u and v, {name} has {bits}; {what}"
        ]


@pytest.mark.parametrize(
    ("family", "meant"), [("Loihi", "loihi"), ("spinaker2", "spinnaker2"), ("mine", None), ("generic", None), ("loihi", None)]
)
def test_a_family_written_almost_like_one_with_integers_is_named(family: str, meant: str | None) -> None:
    """Any name may be a family; `Loihi` was one without integers, without a word."""
    net, chip = chain([Layer(name="fc", synapse=Dense(weight=np.eye(2)), neuron=IF())], input_shape=(2,)), small_chip()
    chip = chip.model_copy(update={"meta": chip.meta.model_copy(update={"family": family})})
    found = [note for note in check(net, chip).notes if note.startswith("family: ")]
    said = f"family: loihi2 is of the family '{family}', for which no rounding is known; did you mean '{meant}'?"
    assert found == [said] * (meant is not None)


@pytest.mark.parametrize("bits", [None, 4, 8, 9, 13])
def test_biases_that_rounding_makes_too_wide_do_not_fit_before_it_either(bits: int | None) -> None:
    """The integers of a network decide over both: a float network fits as its integers do."""
    rng = np.random.default_rng(1)
    layers = [
        Layer(name="a", synapse=Dense(weight=rng.normal(size=(5, 4)), bias=rng.normal(size=5)), neuron=IF()),
        Layer(name="b", synapse=Dense(weight=rng.normal(size=(3, 5))), neuron=IF()),
    ]
    net, profile = chain(layers, input_shape=(4,)), small_chip(neuron__bias_bits=bits)
    integer = quantize_for_chip(net, small_chip())
    before, after = check(net, profile), check(integer, profile)
    width = next(row.used for row in check(integer, small_chip()).rows if row.resource == "bias_bits")
    assert width == 9
    shown = [[(row.where, row.used, row.limit, row.status) for row in report.rows if row.status != "ok"]
             for report in (before, after)]  # fmt: skip
    verdict, status = ("unchecked", "unchecked") if bits is None else ("fits", "") if bits > 8 else ("does_not_fit", "over")
    assert shown[0] == shown[1] == ([("a", 9, bits, status)] if status else [])
    assert before.verdict == after.verdict == verdict
    (found,) = [row for row in before.rows if row.resource == "bias_bits"] or [None]
    remedy = "train with smaller biases, or none" if status == "over" else ""
    assert found is None or (found.remedy, found.detail) == (remedy, "of its integers, rounded without data")


def test_a_loop_over_two_layers_needs_two_steps() -> None:
    def net(delay: int) -> SNNGraph:
        return SNNGraph(
            layers=(
                Layer(name="in", synapse=Dense(weight=np.ones((3, 2)))),
                Layer(name="back", synapse=Dense(weight=np.ones((3, 3)))),
                Layer(name="a", neuron=IF()),
                Layer(name="b", synapse=Dense(weight=np.ones((3, 3))), neuron=IF()),
            ),
            edges=(
                Edge(source="input", target="in"),
                Edge(source="in", target="a"),
                Edge(source="a", target="b"),
                Edge(source="b", target="back", delay=delay),
                Edge(source="back", target="a"),
            ),
            input_shape=(2,),
            output="b",
        )

    assert findings(net(1)) == [
        (
            "a",
            "feedback from 'b' that arrives 1 step too early",
            "each layer on loihi2 takes a step; give the edge a delay of 1 more",
        )
    ]
    assert findings(net(2)) == []


def test_a_loop_without_neurons_is_refused() -> None:
    net = SNNGraph(
        layers=(
            Layer(name="w", synapse=Dense(weight=np.ones((2, 2)))),
            Layer(name="acc", synapse=None),
            Layer(name="n", neuron=IF()),
        ),
        edges=(
            Edge(source="input", target="w"),
            Edge(source="w", target="acc"),
            Edge(source="acc", target="acc", delay=1),
            Edge(source="acc", target="n"),
        ),
        input_shape=(2,),
    )
    assert findings(net) == [
        ("acc", "a loop without neurons", "a chip keeps state in neurons only; put a neuron (LI) into the loop")
    ]
    report = check(net, LOIHI2, activity=0.5)
    assert report.synops is None and "activity: not used, since SynOps of a loop" in report.notes[0]


def test_a_network_without_neurons_is_refused() -> None:
    net = chain([Layer(name="pool", synapse=SumPool(kernel_size=(2, 2)))], input_shape=(1, 4, 4))
    assert findings(net) == [("pool", "a network without neurons", "nothing would lie on a core; add a layer with neurons")]
    report = check(net, LOIHI2, activity=0.5)
    assert report.verdict == "does_not_fit" and report.cores_used == 0


def test_findings_are_plain_data() -> None:
    assert Unsupported(layer="a", what="b", reason="c").to_json() == {"layer": "a", "what": "b", "why": "c"}
    assert Unsupported(layer="a", what="b", reason="c", remedy="d").to_json()["why"] == "c; d"


@pytest.mark.parametrize("order", [("own", "head"), ("head", "own")])
def test_a_source_that_reaches_neurons_on_two_ways_has_the_delay_of_each(order: tuple[str, str]) -> None:
    """The step more on the way through `head` is no delay that Xylo has, whichever way is listed last."""
    layers = [*(Layer(name=name, synapse=Dense(weight=np.ones((3, 4)))) for name in order),
              Layer(name="fc", neuron=LIF(tau_s=0.02, reset="subtract")),
              Layer(name="out", synapse=Dense(weight=np.ones((2, 3))), neuron=LIF(tau_s=0.02, reset="subtract"))]  # fmt: skip
    edges = [*(Edge(source=INPUT, target=name, delay=int(name == "head")) for name in order),
             *(Edge(source=name, target="fc") for name in order), Edge(source="fc", target="out")]  # fmt: skip
    report = check(SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(4,)), load_profile("xylo_audio2"))
    assert [(finding.layer, finding.what) for finding in report.unsupported] == [("fc", "a delay of 1 step from 'input'")]


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        (None, "train with reset='value'"),
        ("rockpool", "train with reset='value'"),
        ("snntorch", "train with reset_mechanism='zero'"),
        ("spikingjelly", "train with v_reset=0.0"),
        ("sinabs", "train with reset_fn=MembraneReset()"),
        ("norse", "train with LIFBoxParameters(reset_method=norse.torch.reset_value)"),
    ],
)
def test_a_reset_that_the_chip_lacks_is_named_in_the_words_of_the_framework(source, advice):
    layer = Layer(name="fc", synapse=Dense(weight=np.ones((2, 2))), neuron=LIF(tau_s=0.01, reset="subtract"))
    graph = replace(chain([layer], input_shape=(2,)), metadata={} if source is None else {"source": source})
    chip = load_profile("catalyst_n1")
    (finding,) = [row for row in find_unsupported(graph, chip, find_populations(graph)) if row.resource == "reset"]
    assert finding.remedy == advice and finding.why.endswith(f"; {advice}")


@pytest.mark.parametrize("chip", ["xylo_audio2", "xylo_audio3", "xylo_imu"])
def test_a_current_that_lasts_one_step_is_none(chip: str) -> None:
    """The chip holds a LIF as a neuron with its shortest current, so that it holds the CubaLIF that computes the same."""
    profile, dt_s = load_profile(chip), 1e-3

    def build(hidden: dict[str, float] | None, readout: dict[str, float] | None) -> SNNGraph:
        leak = 8 * dt_s
        neuron = LIF(tau_s=leak, reset="subtract") if hidden is None else CubaLIF(tau_mem_s=leak, reset="subtract", **hidden)
        end = LI(tau_s=leak) if readout is None else CubaLI(tau_mem_s=leak, **readout)
        weights = (np.arange(12.0).reshape(4, 3) - 5) / 4, (np.arange(8.0).reshape(2, 4) - 3) / 4
        parts = zip("ab", weights, (neuron, end), strict=True)
        return chain([Layer(name=n, synapse=Dense(weight=w), neuron=m) for n, w, m in parts], input_shape=(3,), dt_s=dt_s)

    without, one = build(None, None), {"tau_syn_s": float(np.float32(dt_s))}
    for hidden, readout in ((one, one), (one, None), (None, one)):
        with_current = build(hidden, readout)
        reports = check(without, profile), check(with_current, profile)
        assert [(r.verdict, r.unsupported, r.cores_used) for r in reports] == [("fits", (), 2)] * 2
        a, b = quantize(without, format="xylo"), quantize(with_current, format="xylo")
        assert a.layers == b.layers
        assert make_plans(with_current, profile)[0].steps == ()
    for steps in (0.5, 0.999):
        (found,) = check(build({"tau_syn_s": steps * dt_s}, one), profile).unsupported
        assert (found.layer, found.resource) == ("a", "time_constant")
    short = replace(without["a"], neuron=LIF(tau_s=dt_s, reset="subtract"))
    membrane = check(without.with_layers({"a": short}), profile)
    assert [(found.layer, found.what) for found in membrane.unsupported] == [("a", "membrane time constant of 1 step")]
    with_currents_alone = override_facts(profile, {"neuron.models": "[CubaLIF, CubaLI]"})
    assert [found.layer for found in check(build(one, one), with_currents_alone).unsupported] == ["a", "b"]
