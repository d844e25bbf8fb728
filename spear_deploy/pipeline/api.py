"""What can a person ask for? The verbs of the command line, as functions.

What `net`, `chip` and `data` may be: `spear_deploy.pipeline.inputs`. Everything else is data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spear_deploy import simulator
from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.backends import BACKENDS, Backend, Side
from spear_deploy.pipeline.inputs import Chip, Net, data, for_chip, load, load_both, profile, target
from spear_deploy.simulator import ChipRun, InputKind, Record, SpikeCounts, spike_comparison
from spear_deploy.util.progress import Progress, part_of

if TYPE_CHECKING:
    from spear_deploy.budget.budget_file import BudgetFile
    from spear_deploy.budget.chip_ranking import Ranked
    from spear_deploy.budget.report import BudgetReport
    from spear_deploy.data import Dataset
    from spear_deploy.quantize.explain.attribution import Explanation
    from spear_deploy.quantize.explain.findings import Finding

__all__ = [
    "BACKENDS", "Backend", "Chip", "Count", "Net", "Progress", "Side", "check", "compare", "count", "data", "explain", "export",
    "facts_of", "for_chip", "load", "load_both", "profile", "rank", "simulate", "target",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Count:
    """SynOps and rates of a network on data, per inference, mean over samples.

    Attributes:
        synops_total, synops_per_layer, macs_first_layer: see `synops.SynOps`.
        rates: spikes per neuron and step by layer.
        samples, steps: what was counted over.
        rules: what other tools' rules would say, or None.
    """

    synops_total: float
    synops_per_layer: dict[str, float]
    macs_first_layer: float
    rates: dict[str, float]
    samples: int
    steps: int
    rules: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        shown = {name: value for name, value in vars(self).items() if name != "rules"}
        return shown if self.rules is None else {**shown, "rules": self.rules}

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from spear_deploy.util.html_table import html_table

        rates = {name: f"{rate:.4f}" for name, rate in self.rates.items()}
        names = list(dict.fromkeys([*self.synops_per_layer, *rates]))
        rows = [("ok", (name, f"{self.synops_per_layer.get(name, 0.0):,.0f}", rates.get(name, "–"))) for name in names]
        notes = [f"first layer, analogue input: {self.macs_first_layer:,.0f} MACs"] if self.macs_first_layer else []
        notes += [f"by the rule '{rule}': {operations:,.0f}" for rule, operations in (self.rules or {}).items()]
        title = f"{self.synops_total:,.0f} SynOps per inference ({self.samples} samples, {self.steps} steps)"
        return html_table(title, ("layer", "SynOps", "rate"), rows, numbers=(1, 2), notes=notes)


def check(
    net: Net,
    chip: Chip | None = None,
    *,
    chips: int | None = None,
    synops: float | None = None,
    cores: int | None = None,
    energy_j: float | None = None,
    latency_s: float | None = None,
    activity: SpikeCounts | float | str | os.PathLike[str] | None = None,
    budget: BudgetFile | str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> BudgetReport:
    """Say whether a network fits a chip, resource by resource, and what to change where it does not.

    Args:
        net, chip: see the module; the budget file may name the chip.
        chips: how many chips there are; by default those of the board, or 1.
        synops, cores, energy_j, latency_s: limits of one's own, the first, third and fourth per inference.
        activity: spike counts, a rate (spikes per neuron and step), or a file that `recordings.read_activity` reads;
            without it, what depends on activity stays open.
        budget: a file of limits of one's own (`budget_file`); what is given here as well, wins.
        overrides: facts of the profile that the user knows better, by dotted key.
    """
    from spear_deploy.budget.budget_file import BudgetFile, read_budget
    from spear_deploy.budget.check import check as check_graph
    from spear_deploy.quantize import fold_batchnorm
    from spear_deploy.quantize.fuse_weights import chained_weights

    own = budget if isinstance(budget, BudgetFile) else BudgetFile() if budget is None else read_budget(budget)
    if (chip := chip or own.chip) is None:
        raise DataError("no chip is named; give one, e.g. loihi2, or name it in the budget file")
    graph = load(net)
    if chained_weights(graph):
        with suppress(UnsupportedError):  # what does not fold has a row of its own
            graph = fold_batchnorm(graph)  # a chip holds the one map that they are
    found, of_board = target(chip, {**own.overrides, **(overrides or {})})
    return check_graph(
        graph,
        found,
        chips=chips or own.chips or of_board,
        synops=own.synops if synops is None else synops,
        activity=_activity(own.activity if activity is None else activity, graph),
        cores=own.cores if cores is None else cores,
        energy_j=own.energy_j if energy_j is None else energy_j,
        latency_s=own.latency_s if latency_s is None else latency_s,
    )


def rank(
    net: Net,
    chips: Iterable[Chip] | None = None,
    *,
    activity: SpikeCounts | float | str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[Ranked]:
    """Check a network against many chips, the best first.

    Args:
        net: see the module.
        chips: profiles by name, file, or chip:board; all that come with the toolkit unless given.
        activity: as in `check`.
        overrides: facts that replace those of every profile.
    """
    from spear_deploy.budget.chip_ranking import rank as rank_graph
    from spear_deploy.hardware.profile import list_profiles

    graph = load(net)
    found = [target(chip, overrides) for chip in (list_profiles() if chips is None else chips)]
    return rank_graph(graph, found, activity=_activity(activity, graph))


def _activity(given: SpikeCounts | float | str | os.PathLike[str] | None, graph: SNNGraph) -> SpikeCounts | float | None:
    from spear_deploy.simulator.recordings import read_activity

    return read_activity(given, graph) if isinstance(given, (str, os.PathLike)) else given


def count(
    net: Net,
    x: Array | Dataset,
    *,
    kind: InputKind = "spikes",
    rules: bool = False,
    batch: int = 64,
    progress: Progress | None = None,
) -> Count:
    """Count the SynOps of a network on an input (T, B, *input), or on all samples of a dataset.

    Args:
        net: see the module.
        x, kind: the input, and whether it is "spikes" or a "current"; data say that themselves.
        rules: also say what other tools would count.
        batch: so many samples at a time.
        progress: is told after each batch.
    """
    from spear_deploy.data import Dataset
    from spear_deploy.simulator.synops import count_by_rules, synops

    graph = load(net)
    counts: SpikeCounts | None = None
    samples = len(x.train) + len(x.val) + len(x.test) if isinstance(x, Dataset) else np.shape(x)[1]
    for part, part_kind in _batches(graph, x, kind, batch):
        found = simulator.simulate(graph, part, kind=part_kind).counts
        counts = found if counts is None else counts + found
        if progress is not None:
            progress({"stage": "count", "done": counts.samples, "of": samples})
    assert counts is not None
    result = synops(graph, counts)
    return Count(
        synops_total=result.total,
        synops_per_layer=result.per_layer,
        macs_first_layer=result.macs_first_layer,
        rates=counts.rates(),
        samples=counts.samples,
        steps=counts.steps,
        rules=count_by_rules(graph, counts) if rules else None,
    )


def _batches(graph: SNNGraph, x: Array | Dataset, kind: InputKind, size: int) -> Iterable[tuple[Array, InputKind]]:
    from spear_deploy.data import Dataset

    if not isinstance(x, Dataset):
        x = simulator.check_input(graph, x, kind)
        for start in range(0, x.shape[1], size):
            yield x[:, start : start + size], kind
        return
    x.check(graph.input_shape)
    for split in (x.train, x.val, x.test):
        for part, _ in split.batches(size):
            yield part, split.kind


def simulate(
    net: Net | Side,
    x: Array,
    *,
    kind: InputKind = "spikes",
    backend: Backend = "fast",
    chip: Chip | None = None,
    record: Iterable[Record] = ("spikes",),
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> ChipRun:
    """Run a network: as it is stored, or as integers of a chip; on our simulator, as Lava processes, or by Norse.

    Args:
        net: see the module; a `Side` says backend and chip itself.
        x: (T, B, *input).
        kind: "spikes" or "current".
        backend, chip: see `Side`.
        record: which of "spikes", "v", "u" to keep; Norse keeps spikes alone.
        timeout_s: longest time a Lava run may take.
        progress: is told how far our simulator is, or that another runs.
    """
    side = net if isinstance(net, Side) else Side(net=net, backend=backend, chip=chip)
    simulator.check_record(record := tuple(record))
    graph, x = side.lowered(x, kind)
    return side.run(graph, x, kind, record, timeout_s, progress)


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
    """Say what each step from a floating-point network to the integers of a chip costs: decisions, spikes, and why.

    Args:
        net, chip: see the module.
        x: (T, B, *input), or data, whose test split is run and whose training split sets the scales as in `deploy`.
        kind: of `x`.
        labels: (B,), those of `x` if known; data bring their own.
        samples: at most so many of the test split.
        progress: is told which step runs.

    Raises:
        UnsupportedError: the network holds integers already, or the chip's integers cannot hold it.
    """
    from spear_deploy.data import Dataset
    from spear_deploy.lava.schedule import alignment
    from spear_deploy.quantize.explain.attribution import explain as explain_graphs

    graph, calibration = load(net), x
    if graph.is_integer:
        raise UnsupportedError("the network holds integers already; give the floating-point network that it was made of")
    if isinstance(x, Dataset):
        x.check(graph.input_shape, int(np.prod(graph.shape_of(graph.output))))
        part = x.test if samples is None else x.test.head(samples)
        kind, labels, calibration = x.kind, part.y, np.moveaxis(x.train.x[:256], 0, 1)
        x = np.moveaxis(part.x, 0, 1)
    x = simulator.check_input(graph, x, kind)
    integer = for_chip(graph, chip, calibration=np.asarray(calibration), kind=kind)
    return explain_graphs(graph, integer, x, kind=kind, labels=labels, alignment=alignment(integer), progress=progress)


def facts_of(graph: SNNGraph, run: ChipRun) -> tuple[dict[str, Any], list[Finding]]:
    """Return the plain numbers of a run, and what a person should know about it."""
    from spear_deploy.quantize.explain.findings import of_run

    facts = {
        "steps": int(run.output.shape[0]),
        "samples": int(run.output.shape[1]),
        "spikes": {name: int(sent.sum()) for name, sent in run.counts.sent.items()},
        "rates": run.counts.rates(),
        "overflows": run.overflows,
    }
    return facts, list(of_run(graph, run))


def compare(
    a: Net | Side,
    b: Net | Side,
    x: Array,
    *,
    kind: InputKind = "spikes",
    states: Iterable[Record] = (),
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> list[spike_comparison.LayerDifference]:
    """Run two networks on the same input and name, layer by layer, how many spikes differ and which is the first.

    Args:
        a, b: see the module, or a `Side`, which says what runs it.
        x: (T, B, *input), as the networks take it; a current that meets an integer network is rounded to its graded spikes.
        kind: of `x`.
        states: "v", "u": also compare these, by value.
        timeout_s: longest time each Lava run may take.
        progress: is told how far each run is.

    Potentials of an integer network against a floating-point one are compared in the units of the latter.

    Raises:
        DataError: the networks do not have the same spiking layers, or no such states that can be compared.
    """
    simulator.check_record(states := tuple(states))
    sides = [side if isinstance(side, Side) else Side(net=side) for side in (a, b)]
    graphs = [side.loaded() for side in sides]
    pairs = spike_comparison.paired_layers(*graphs)
    graphs = [
        graph if side.chip is None else for_chip(graph, side.chip, calibration=x, kind=kind)
        for side, graph in zip(sides, graphs, strict=True)
    ]
    mixed = graphs[0].is_integer != graphs[1].is_integer
    if mixed and "u" in states:
        raise DataError("record 'u': a floating-point network keeps u after its decay, an integer one before it; compare 'v'")
    runs = []
    for which, side, graph in zip(("first", "second"), sides, graphs, strict=True):
        told = part_of(progress, which)
        run = side.run(graph, _as_taken(graph, x, kind, mixed), kind, ("spikes", *states), timeout_s, told)
        runs.append(spike_comparison.in_floating_units(graph, run) if mixed and graph.is_integer else run)
    return spike_comparison.compare_runs(runs[0], runs[1], pairs, states)


def _as_taken(graph: SNNGraph, x: Array, kind: InputKind, mixed: bool) -> Array:
    """Return a current as graded spikes where an integer network needs them: it is not whole, or meant for another network."""
    from spear_deploy.quantize import graded

    x = simulator.check_input(graph, x, kind)
    whole = x.dtype.kind != "f" or bool((x == np.rint(x)).all())
    return graded(graph, x, kind) if graph.is_integer and (mixed or not whole) else x


def export(
    net: Net,
    path: str | os.PathLike[str],
    *,
    to: Literal["nir", "netx", "onnx"],
    x: Array | None = None,
    kind: InputKind = "spikes",
    chip: Chip | None = None,
    seed: int = 0,
    scan: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a network for other tools, read it back with an independent reader, run both, and return the certificate.

    Args:
        net: see the module. netx holds integers only: a floating-point network is quantised for `chip` first.
        path: the file; `certificate.json` is written beside it.
        to: "nir", "netx" or "onnx".
        x: the input of the proof, (T, B, *input); random input drawn by `seed` unless given.
        kind: of `x`.
        chip: netx: whose integers, loihi2 unless given. NIR: whose cores the metadata tells, none unless given.
        seed: draws the input.
        scan: ONNX: one node over a whole sequence in place of a step with states in and out.
        progress: is told what is done of writing and proving.

    Raises:
        UnsupportedError: what the format cannot say, by layer; `scan` for another format than ONNX.
    """
    from spear_deploy import interchange

    if scan and to != "onnx":
        raise UnsupportedError(f"export to {to}: scan is a form of ONNX alone; leave it out")
    graph = load(net)
    options: dict[str, Any] = {"scan": True} if scan else {}
    if to == "netx" and not graph.is_integer:
        graph, x, kind, options["approximations"] = _for_netx(graph, x, kind, chip or "loihi2", seed)
    if to == "nir" and chip is not None:
        from spear_deploy.placement.place import place

        options["placement"] = place(graph, profile(chip))
    return interchange.export(graph, path, to=to, x=x, kind=kind, seed=seed, progress=progress, **options)


def _for_netx(
    graph: SNNGraph, x: Array | None, kind: InputKind, chip: Chip, seed: int
) -> tuple[SNNGraph, Array, InputKind, list[str]]:
    """Return the integers of a network, the input of the proof, its kind, and how far the integers are from the network."""
    from spear_deploy.interchange.certificate import default_input

    if x is None:
        x, kind = default_input(graph, seed)
    integer = for_chip(graph, chip, calibration=x, kind=kind)
    if kind == "current":
        from spear_deploy.quantize import graded

        how_far = "the integers are written, not the floating-point network; 'compare' says how far they differ"
        return integer, graded(integer, x, kind), kind, [how_far]
    different = sum(row.mismatches for row in compare(graph, integer, x, kind=kind) if row.what == "spikes")
    how_far = f"the integers are written: {different} spikes differ from those of the floating-point network on this input"
    return integer, x, kind, [how_far]
