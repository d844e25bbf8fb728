"""Pools in a row, ahead of the first weights and at the output, on chips that pool between cores."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy.adaptation.plan import make_plans
from spear_deploy.budget.check import check
from spear_deploy.budget.pools import find_pool_rows
from spear_deploy.budget.report import BudgetReport
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, AvgPool, Conv2d, Dense, Flatten, Layer, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from tests.adaptation.random_networks import count_differing_spikes

SPECK, LOIHI2 = load_profile("speck2f"), load_profile("loihi2")


def pool(name: str, *window: int, **options: object) -> Layer:
    kernel = window if len(window) == 2 else (window[0], window[0])
    return Layer(name=name, synapse=SumPool(kernel_size=kernel, **options))  # type: ignore[arg-type]


def conv(name: str, inputs: int = 2) -> Layer:
    return Layer(name=name, synapse=Conv2d(weight=np.ones((2, inputs, 3, 3)), padding=(1, 1)), neuron=IF())


def between(*pools: Layer, size: int = 32) -> BudgetReport:
    """Check pools between two convolutions on Speck."""
    return check(chain([conv("a"), *pools, conv("b")], input_shape=(2, size, size)), SPECK)


def notes(report: BudgetReport, topic: str) -> list[str]:
    return [note for note in report.notes if note.startswith(f"{topic}: ")]


@pytest.mark.parametrize("windows", [(1,), (2,), (4,), (2, 2), (1, 4), (2, 1, 2), (4, 1, 1)])
def test_pools_in_a_row_whose_product_is_1_2_or_4_fit(windows: tuple[int, ...]) -> None:
    report = between(*[pool(f"p{n}", window) for n, window in enumerate(windows)])
    assert report.verdict == "fits" and not notes(report, "pool")


@pytest.mark.parametrize("windows", [(4, 2), (2, 2, 2), (4, 4), (2, 4)])
def test_pools_in_a_row_whose_product_is_larger_do_not_fit(windows: tuple[int, ...]) -> None:
    report = between(*[pool(f"p{n}", window) for n, window in enumerate(windows)])
    (finding,) = report.unsupported
    total = int(np.prod(windows))
    assert finding.layer == f"p{len(windows) - 1}" and finding.what.endswith(f"in a row, {total} x {total} together")
    assert finding.why == "speck2f takes pools in a row as one and pools over 1, 2, 4; use one of them, or a stride"
    assert report.verdict == "does_not_fit"


def test_windows_that_are_square_together_fit() -> None:
    assert between(pool("p", 2, 1), pool("q", 1, 2)).verdict == "fits"
    assert [f.what for f in between(pool("p", 2, 1)).unsupported] == ["SumPool of 2 x 1 at stride 2 x 1"]


def test_a_flatten_between_pools_and_a_chip_that_does_not_merge_change_nothing() -> None:
    net = chain([conv("a"), pool("p", 4), pool("q", 4), conv("b")], input_shape=(2, 32, 32))
    assert [row.names for row in find_pool_rows(net, SPECK)] == [("p", "q")]
    assert [row.names for row in find_pool_rows(net, LOIHI2)] == [("p",), ("q",)]
    assert not check(net, LOIHI2).unsupported


def test_pools_that_overlap_or_pad_do_not_fit() -> None:
    assert [f.what for f in between(pool("p", 2, stride=(1, 1))).unsupported] == ["SumPool of 2 x 2 at stride 1 x 1"]
    (finding,) = between(pool("p", 2, padding=1)).unsupported
    assert (finding.what, finding.why) == (
        "SumPool of 2 x 2 with padding 1",
        "speck2f pads no pool by more than 0; pad in the convolution",
    )


@pytest.mark.parametrize(
    ("channels", "size", "window", "what"),
    [
        (2, 128, 2, None),
        (1, 64, 4, None),
        (3, 64, 2, "SumPool of the input with 3 channels"),
        (2, 130, 2, "SumPool of the input of 130 x 130"),
        (2, 64, 8, "SumPool of 8 x 8"),
    ],
)
def test_a_pool_ahead_of_the_first_weights_is_the_input_blocks(channels: int, size: int, window: int, what: str | None) -> None:
    net = chain([pool("p", window), conv("c", channels), pool("r", 2), conv("d")], input_shape=(channels, size, size))
    report = check(net, SPECK)
    assert [f.what for f in report.unsupported] == ([] if what is None else [what])
    assert notes(report, "pool") == [
        "pool: 'p' ahead of the first weights is done by speck2f's input block (DVS layer), not by a core"
    ]


def test_two_pools_ahead_of_the_first_weights_are_one_too_many() -> None:
    """sinabs assigns one pool to its DVS layer; the second has no layer."""
    report = check(chain([pool("p", 2), pool("q", 2), conv("c")], input_shape=(2, 32, 32)), SPECK)
    assert [(f.layer, f.what, f.why) for f in report.unsupported] == [
        ("q", "2 pools of the input in a row", "speck2f's own tool takes one pool ahead of the first weights; use one of 4 x 4")
    ]


@pytest.mark.parametrize("window", [2, 3, 8])
def test_a_pool_at_the_output_is_the_hosts_whatever_its_window(window: int) -> None:
    layers = [
        conv("a"),
        conv("b"),
        Layer(name="p", synapse=AvgPool(kernel_size=(window, window))),
        Layer(name="f", synapse=Flatten()),
    ]
    report = check(chain(layers, input_shape=(2, 24, 24)), SPECK)
    assert report.verdict == "fits"
    assert notes(report, "pool") == [
        "pool: 'p' at the output is not in speck2f's configuration; its spikes come unpooled, the host pools them"
    ]


def test_a_pool_that_feeds_the_output_and_weights_is_on_the_chip() -> None:
    """One way on is enough: the next core's destination holds the window."""
    layers = (conv("a"), pool("p", 8), Layer(name="fc", synapse=Dense(weight=np.ones((4, 32))), neuron=IF()))
    net = SNNGraph(
        layers=layers,
        edges=(Edge(source=INPUT, target="a"), Edge(source="a", target="p"), Edge(source="p", target="fc", delay=0)),
        input_shape=(2, 32, 32),
        output="p",
    )
    assert [f.what for f in check(net, SPECK).unsupported] == ["SumPool of 8 x 8"]


def test_pools_in_a_loop_without_neurons_end() -> None:
    layers = (pool("p", 1), pool("q", 1), conv("c"))
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in ((INPUT, "p", 0), ("p", "q", 0), ("q", "p", 1), ("q", "c", 0)))
    report = check(SNNGraph(layers=layers, edges=edges, input_shape=(2, 8, 8), output="c"), SPECK)
    assert "a loop without neurons" in [f.what for f in report.unsupported]


def test_a_pool_of_currents_is_none_of_a_chip_that_pools_spikes() -> None:
    currents = Layer(name="w", synapse=Conv2d(weight=np.ones((2, 2, 1, 1), np.float32)))
    net = chain([conv("a"), currents, pool("p", 2), Layer(name="n", neuron=IF()), conv("b")], input_shape=(2, 32, 32))
    report = check(net, SPECK)
    assert [(f.layer, f.what) for f in report.unsupported] == [("p", "SumPool of currents")]
    assert report.unsupported[0].why.startswith("speck2f pools spikes that leave a core; put neurons in front of the pool")
    assert check(net, LOIHI2).verdict == "fits"
    (plan, *_) = make_plans(net, SPECK)
    assert not plan.lacking and [step.replacement.kind for step in plan.steps] == ["exact"]
    assert count_differing_spikes(net, plan.graph, 0) == 0
    assert isinstance(plan.graph["n"].synapse, Conv2d) and plan.graph["n"].synapse.stride == (2, 2)
