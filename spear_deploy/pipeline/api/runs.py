"""Runs of a network: simulated, explained and compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy import simulator
from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.network import Array
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.classes import count_classes, read_decision
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.backends import Backend, BackendChoice
from spear_deploy.pipeline.inputs import Chip, Net, load_both, load_for, quantize_for_chip
from spear_deploy.simulator import ChipRun, InputKind, Record, spike_comparison
from spear_deploy.util.arguments import require_seconds
from spear_deploy.util.progress import Progress, prefix_stage

if TYPE_CHECKING:
    from spear_deploy.data import Dataset
    from spear_deploy.quantize.explain.attribution import Explanation
    from spear_deploy.quantize.explain.findings import Finding


def simulate(
    net: Net | BackendChoice,
    x: Array,
    *,
    kind: InputKind = "spikes",
    backend: Backend = "fast",
    chip: Chip | None = None,
    record: Record | Iterable[Record] = ("spikes",),
    timeout_s: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ChipRun:
    """Run a network, as it is stored or as integers of a chip, on our simulator, as Lava processes, or by Norse.

    Args:
        net: a file, a name, a torch model, `package.module:function` or an `SNNGraph` (`pipeline.inputs`);
            a `BackendChoice` holds backend and chip already.
        x: (T, B, *input).
        kind: "spikes" or "current".
        backend, chip: see `BackendChoice`.
        record: which of "spikes", "v", "u" to keep; Norse keeps spikes alone.
        timeout_s: time limit of a Lava run in s.
        progress: is called with the steps of our simulator, or with the name of another backend.
        options: of `load`.

    Returns:
        `output` (T, B, *output), recordings `spikes`, `v` and `u` by layer (T, B, *shape), `counts` of spikes, and `overflows`.

    Raises:
        DataError: the input does not fit the network, a `BackendChoice` beside what it states, or a time limit that is none.
        BackendError: Lava or Norse fails, or takes longer than `timeout_s`.
        TypeError: there is no such option.
    """
    require_seconds("timeout_s", timeout_s)
    if isinstance(net, BackendChoice):
        for name in (*options, *(["chip"] if chip is not None else []), *(["backend"] if backend != "fast" else [])):
            raise DataError(f"{name}: a BackendChoice states its own; leave it out, or give simulate the network")
        choice = net
    else:
        choice = BackendChoice(net=net, graph=load_for(net, x, **options), backend=backend, chip=chip)
    record = (record,) if isinstance(record, str) else tuple(record)
    simulator.check_record(record)
    graph, x = choice.lower(x, kind)
    return choice.run(graph, x, kind, record, timeout_s, progress)


def explain(
    net: Net,
    chip: Chip,
    x: Array | Dataset,
    *,
    kind: InputKind = "spikes",
    labels: Array | None = None,
    samples: int | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Explain the loss of each step from a floating-point network to the integers of a chip: decisions, spikes, causes.

    Args:
        net, chip: see `pipeline.inputs`.
        x: (T, B, *input), or data, whose test split is run and whose training split sets the scales as in `deploy`.
        kind: of `x`.
        labels: (B,) of `x`, or (B, T), if known; data have their own.
        samples: maximum of samples of the test split.
        progress: is called when a step begins.

    Raises:
        UnsupportedError: the network is quantised already, or the chip's integers cannot hold it.
    """
    from spear_deploy.data import Dataset
    from spear_deploy.lava.schedule import schedule_on_chip
    from spear_deploy.quantize.explain.attribution import explain as explain_graphs

    graph, calibration = load_for(net, x), x
    if find_chip_format(graph):
        raise UnsupportedError("the network is quantised already; give the floating-point network that it was made of")
    if isinstance(x, Dataset):
        x.check(graph.input_shape, count_classes(graph), read_decision(graph))
        part = x.test if samples is None else x.test.head(samples)
        kind, labels, calibration = x.kind, part.y, np.moveaxis(x.train.x[:256], 0, 1)
        x = np.moveaxis(part.x, 0, 1)
    x = simulator.check_input(graph, x, kind)
    integer = quantize_for_chip(graph, chip, calibration=np.asarray(calibration), kind=kind)
    return explain_graphs(graph, integer, x, kind=kind, labels=labels, alignment=schedule_on_chip(integer), progress=progress)


def summarize_run(graph: SNNGraph, run: ChipRun) -> tuple[dict[str, Any], list[Finding]]:
    """Return the numbers of a run as plain data, and findings such as moved resets, silent layers and overflows."""
    from spear_deploy.quantize.explain.findings import find_changed_rules, find_in_run

    facts = {
        "steps": int(run.output.shape[0]),
        "samples": int(run.output.shape[1]),
        "spikes": {name: int(sent.sum()) for name, sent in run.counts.sent.items()},
        "rates": run.counts.rates(),
        "overflows": run.overflows,
    }
    return facts, [*find_changed_rules(graph), *find_in_run(graph, run)]


def compare(
    a: Net | BackendChoice,
    b: Net | BackendChoice,
    x: Array,
    *,
    kind: InputKind = "spikes",
    states: Iterable[Record] = (),
    timeout_s: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[spike_comparison.LayerDifference]:
    """Run two networks on the same input, and return the number of spikes that differ and the first of them, layer by layer.

    Potentials of an integer network and a floating-point one are compared in the units of the latter.

    Args:
        a, b: files, names, torch models or `SNNGraph`s (`pipeline.inputs`), or a `BackendChoice` with the backend.
        x: (T, B, *input), as the networks take it; for an integer network a current is rounded to graded spikes.
        kind: of `x`.
        states: "v", "u": also compare these, by value.
        timeout_s: time limit of each Lava run in s.
        progress: is called with the progress of each run.
        options: of `load`; each goes to the network that takes it.

    Returns:
        For each layer `mismatches`, `compared` and `first` {step, sample, neuron}, None where none differs.

    Raises:
        DataError: the networks do not have the same spiking layers, no such states that can be compared, or a time limit that
            is none.
        TypeError: there is no such option.
    """
    simulator.check_record(states := tuple(states))
    require_seconds("timeout_s", timeout_s)  # before the first run, which may take long
    choices = [choice if isinstance(choice, BackendChoice) else BackendChoice(net=choice) for choice in (a, b)]
    for choice in choices:
        choice.require_packages()
    graphs = list(load_both(*(choice.net if choice.graph is None else choice.graph for choice in choices), like=x, **options))
    pairs = spike_comparison.pair_layers(*graphs)
    graphs = [
        graph if choice.chip is None else quantize_for_chip(graph, choice.chip, calibration=x, kind=kind)
        for choice, graph in zip(choices, graphs, strict=True)
    ]
    mixed = graphs[0].is_integer != graphs[1].is_integer
    if mixed and "u" in states:
        raise DataError("record 'u': a floating-point network keeps u after its decay, an integer one before it; compare 'v'")
    runs = []
    for name, choice, graph in zip(("first", "second"), choices, graphs, strict=True):
        taken = _quantize_current(graph, x, kind, mixed)
        run = choice.run(graph, taken, kind, ("spikes", *states), timeout_s, prefix_stage(progress, name))
        runs.append(spike_comparison.to_floating_units(graph, run) if mixed and graph.is_integer else run)
    return spike_comparison.compare_runs(runs[0], runs[1], pairs, states)


def _quantize_current(graph: SNNGraph, x: Array, kind: InputKind, mixed: bool) -> Array:
    """Return the input as graded spikes where an integer network needs them: a current with fractions, or of another network."""
    from spear_deploy.quantize import quantize_input

    x = simulator.check_input(graph, x, kind)
    whole = x.dtype.kind != "f" or bool((x == np.rint(x)).all())
    return quantize_input(graph, x, kind) if graph.is_integer and (mixed or not whole) else x
