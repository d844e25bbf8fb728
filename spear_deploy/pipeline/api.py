"""The verbs of the command line as functions.

`spear_deploy.pipeline.inputs` describes `net`, `chip` and `data`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spear_deploy import simulator
from spear_deploy.errors import ChipError, DataError, UnsupportedError
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.labels import label_layers
from spear_deploy.pipeline.backends import BACKENDS, Backend, BackendChoice
from spear_deploy.pipeline.inputs import (
    DATA_OPTIONS,
    NETWORK_OPTIONS,
    Chip,
    Net,
    apply_defaults,
    check_options,
    data,
    load,
    load_both,
    load_for,
    profile,
    quantize_for_chip,
    refuse_coding,
    resolve_chip,
    split_options,
)  # fmt: skip
from spear_deploy.simulator import ChipRun, InputKind, Record, SpikeCounts, spike_comparison
from spear_deploy.util.progress import Progress, prefix_stage

if TYPE_CHECKING:
    from spear_deploy.budget.budget_file import BudgetFile
    from spear_deploy.budget.chip_ranking import Ranked, RankKey
    from spear_deploy.budget.report import BudgetReport
    from spear_deploy.data import Dataset
    from spear_deploy.interchange.certificate import ProofInput
    from spear_deploy.interchange.netx.lint import LintFinding
    from spear_deploy.quantize.explain.attribution import Explanation
    from spear_deploy.quantize.explain.findings import Finding
    from spear_deploy.util.workers import Workers

__all__ = [
    "BACKENDS", "Backend", "BackendChoice", "Chip", "Count", "LintReport", "Net", "Progress", "check", "compare", "count", "data",
    "explain", "export", "lint", "load", "load_both", "profile", "quantize_for_chip", "rank", "resolve_chip", "simulate",
    "suggest_command", "summarize_run",
]  # fmt: skip

CHIPS_OF_FORMATS = {"xylo": "xylo_audio2", "speck": "speck2f", "pynn": "spinnaker1"}
"""By format of a chip's own tool, the chip where none is named."""
INTEGERS_OF_FORMATS = {"xylo": "XyloLIF", "speck": "SpeckIF"}
"""By format of a file of integers, the neurons that it holds."""
FAMILIES_OF_FORMATS = {"xylo": "xylo", "speck": "speck", "pynn": "spinnaker"}
"""By format of a chip's own tool, the family of its chips."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """SynOps and rates of a network on data, per inference, mean over samples.

    Attributes:
        synops_total, synops_per_layer, macs_first_layer: see `synops.SynOps`.
        rates: spikes per neuron and step by layer.
        samples, steps: size of the input.
        rules: SynOps by the counting rules of other tools, or None.
        neuron_ops: neuron updates: every neuron in every step.
        chip_synops: SynOps that a chip works on, zero weights included where it skips none; None without a chip, or where
            that is not published.
        labels: of layers in the table of a notebook (`label_layers`).
    """

    synops_total: float
    synops_per_layer: dict[str, float]
    macs_first_layer: float
    rates: dict[str, float]
    samples: int
    steps: int
    rules: dict[str, float] | None = None
    neuron_ops: int = 0
    chip_synops: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        values = {name: value for name, value in vars(self).items() if name not in ("rules", "labels")}
        return values if self.rules is None else {**values, "rules": self.rules}

    def _repr_html_(self) -> str:
        """Return the table of a notebook."""
        from spear_deploy.util.html_table import html_table

        rates = {name: f"{rate:.4f}" for name, rate in self.rates.items()}
        names = list(dict.fromkeys([*self.synops_per_layer, *rates]))
        rows = [
            ("ok", (self.labels.get(name, name), f"{self.synops_per_layer.get(name, 0.0):,.0f}", rates.get(name, "–")))
            for name in names
        ]
        notes = [f"first layer, analogue input: {self.macs_first_layer:,.0f} MACs"] if self.macs_first_layer else []
        notes += [f"by the rule '{rule}': {operations:,.0f}" for rule, operations in (self.rules or {}).items()]
        title = f"{self.synops_total:,.0f} SynOps per inference ({self.samples} samples, {self.steps} steps)"
        return html_table(title, ("layer", "SynOps", "rate"), rows, numbers=(1, 2), notes=notes)


def check(
    net: Net,
    chip: Chip | None = None,
    *,
    chips: int | None = None,
    activity: SpikeCounts | float | str | os.PathLike[str] | None = None,
    budget: BudgetFile | str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    **options: Any,
) -> BudgetReport:
    """Check whether a network fits a chip, resource by resource, with a remedy for each overrun.

    Args:
        net, chip: see `pipeline.inputs`; the budget file may name the chip.
        chips: how many chips there are; by default those of the board, or 1.
        activity: spike counts, a rate (spikes per neuron and step), or a file that `recordings.read_activity` reads;
            without it, resources that depend on activity are not checked.
        budget: a file of limits (`budget_file`); arguments take precedence over the file.
        overrides: facts of the profile to replace, by dotted key.
        options: limits: `cores`; and per inference `synops`, `energy_j` (J) and `latency_s` (s). How the network is read: those
            of `load`.

    Raises:
        DataError: no chip is named.
        TypeError: there is no such option.
    """
    from spear_deploy.adaptation.reach import find_reach, name_replacements
    from spear_deploy.budget.budget_file import BudgetFile, UserLimits, read_budget
    from spear_deploy.budget.check import check as check_graph
    from spear_deploy.quantize.fold import fold_chained_weights

    check_options(options, [*(limit.name for limit in fields(UserLimits)), *NETWORK_OPTIONS], "check")
    reading, limits = split_options(options, NETWORK_OPTIONS)
    stated = budget if isinstance(budget, BudgetFile) else BudgetFile() if budget is None else read_budget(budget)
    if (chip := chip or stated.chip) is None:
        raise DataError("no chip is named; give one, e.g. loihi2, or name it in the budget file")
    graph = load(net, **apply_defaults([net], reading, stated.network))
    graph = fold_chained_weights(graph)  # weights that do not fold have a row of their own
    target, board_chips = resolve_chip(chip, {**stated.overrides, **(overrides or {})})
    report = check_graph(
        graph,
        target,
        chips=chips or stated.chips or board_chips,
        activity=_read_activity(stated.activity if activity is None else activity, graph),
        limits=stated.limits.override(UserLimits(**limits)),
    )
    if not report.unsupported or graph.is_integer:
        return report
    reach = find_reach(graph, target, chips=chips or stated.chips or board_chips, report=report)
    return name_replacements(report, reach, net=_name(net))


def _name(net: Net) -> str:
    """Return a network as in a command."""
    return shlex.quote(os.fspath(net)) if isinstance(net, (str, os.PathLike)) else "NET"


def suggest_command(net: str, chip: str, report: BudgetReport) -> str:
    """Return the command to try next, after a network that does not fit.

    `prune` where the chip is full, `adapt` where what it lacks can be replaced, `rank` where it cannot or where there is no
    integer format here.

    Args:
        net: the network and its options as on the command line.
        chip: the chip as on the command line.
        report: of `check`.
    """
    from spear_deploy.quantize import FORMATS

    adaptation = next((note for note in report.notes if note.startswith("adapt: ") and "` replaces what " in note), None)
    if adaptation is not None:
        learns = " --data DATA" if "--data DATA" in adaptation else ""
        return f"spear-deploy adapt {net} --chip {shlex.quote(chip)}{learns} --out adapted (replace what the chip lacks)"
    if report.unsupported or profile(chip).meta.family not in FORMATS:
        return f"spear-deploy rank {net} (which chip takes it)"
    return f"spear-deploy prune {net} --chip {shlex.quote(chip)} --data DATA --out pruned (make it smaller, until it fits)"


@dataclass(frozen=True, kw_only=True)
class LintReport:
    """Findings in a netx file.

    Attributes:
        file: as given.
        findings: in the order of the file.
    """

    file: str
    findings: tuple[LintFinding, ...]

    @property
    def loads(self) -> bool:
        """Whether lava-dl's loader can read the file."""
        return not any(finding.breaks for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"file": self.file, "loads": self.loads, "findings": [finding.to_json() for finding in self.findings]}


def lint(path: str | os.PathLike[str]) -> LintReport:
    """Find everything in a netx file that breaks lava-dl's loader.

    Raises:
        FileError: the file cannot be read, or is of another format.
    """
    from spear_deploy import interchange

    return LintReport(file=os.fspath(path), findings=tuple(interchange.lint(path)))


def rank(
    net: Net,
    chips: Iterable[Chip] | None = None,
    *,
    activity: SpikeCounts | float | str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    sort: RankKey = "fit",
    workers: Workers | None = None,
    **options: Any,
) -> list[Ranked]:
    """Check a network against many chips, and return the reports, the best first.

    Args:
        net: see `pipeline.inputs`.
        chips: profiles by name, file, or chip:board; all that come with the toolkit unless given.
        activity: as in `check`.
        overrides: facts to replace in every profile, by dotted key.
        sort: "fit", or "energy"; chips whose intervals of energy overlap are tied.
        workers: where chips are checked at the same time; None: one after the other in this process.
        options: of `load`.

    Raises:
        TypeError: there is no such option.
    """
    from spear_deploy.adaptation.reach import add_reach
    from spear_deploy.budget.chip_ranking import rank as rank_graph
    from spear_deploy.hardware.profile import list_profiles
    from spear_deploy.quantize.fold import fold_chained_weights

    check_options(options, NETWORK_OPTIONS, "rank")
    graph = fold_chained_weights(load(net, **options))
    targets = [resolve_chip(chip, overrides) for chip in (list_profiles() if chips is None else chips)]
    ranking = rank_graph(graph, targets, activity=_read_activity(activity, graph), sort=sort, workers=workers)
    return add_reach(ranking, graph, targets)


def _read_activity(activity: SpikeCounts | float | str | os.PathLike[str] | None, graph: SNNGraph) -> SpikeCounts | float | None:
    from spear_deploy.simulator.recordings import read_activity

    return read_activity(activity, graph) if isinstance(activity, (str, os.PathLike)) else activity


def count(
    net: Net,
    x: Array | Dataset | str | os.PathLike[str],
    *,
    kind: InputKind = "spikes",
    rules: bool = False,
    chip: Chip | None = None,
    batch: int = 64,
    device: str = "cpu",
    progress: Progress | None = None,
    **options: Any,
) -> Count:
    """Count the SynOps of a network on an input (T, B, *input), or on all samples of a dataset.

    Args:
        net: see `pipeline.inputs`.
        x: (T, B, *input), or data by name, file, folder or function.
        kind: "spikes" or "current"; data have their own.
        rules: also count by the rules of other tools.
        chip: profile by name, file, or chip:board; also count the operations that it works on.
        batch: samples at a time.
        device: "cpu" runs our simulator; another one, of torch (`training.device`), runs the network as Norse's cells in float32,
            where a sum that rounds otherwise can move a spike.
        progress: is called after each batch.
        options: of `load`; and `steps` and `encoding` of data that are named (`load_data`).

    Raises:
        TypeError: there is no such option.
    """
    from spear_deploy.data import Dataset
    from spear_deploy.placement.populations import find_populations
    from spear_deploy.simulator.synops import count_by_rules, count_synops

    check_options(options, (*NETWORK_OPTIONS, *DATA_OPTIONS), "count")
    coding, reading = split_options(options, DATA_OPTIONS)
    graph = load_for(net, x, **reading)
    if isinstance(x, (str, os.PathLike, Dataset)):
        x = data(x, graph, **coding)
    else:
        refuse_coding("an array (T, B, *input)", coding)
    if device != "cpu":
        from spear_deploy.training.device import choose_device

        device = choose_device(device)
    counts: SpikeCounts | None = None
    samples = len(x.train) + len(x.val) + len(x.test) if isinstance(x, Dataset) else np.shape(x)[1]
    for part, part_kind in _batches(graph, x, kind, batch):
        batch_counts = _count_spikes(graph, part, part_kind, device)
        counts = batch_counts if counts is None else counts + batch_counts
        if progress is not None:
            progress({"stage": "count", "done": counts.samples, "of": samples})
    assert counts is not None
    result = count_synops(graph, counts)
    return Count(
        synops_total=result.total,
        synops_per_layer=result.per_layer,
        macs_first_layer=result.macs_first_layer,
        rates=counts.rates(),
        samples=counts.samples,
        steps=counts.steps,
        rules=count_by_rules(graph, counts) if rules else None,
        neuron_ops=counts.steps * sum(population.neurons for population in find_populations(graph)),
        chip_synops=None if chip is None else _count_on_chip(graph, counts, chip),
        labels=label_layers(graph),
    )


def _count_spikes(graph: SNNGraph, x: Array, kind: InputKind, device: str) -> SpikeCounts:
    """Return the spikes of a batch, on our simulator or on a device of torch."""
    if device == "cpu":
        return simulator.simulate(graph, x, kind=kind).counts
    from spear_deploy.norse.run import run_on_norse

    return run_on_norse(graph, x, kind=kind, device=device).counts


def _count_on_chip(graph: SNNGraph, counts: SpikeCounts, chip: Chip) -> float | None:
    """Return the SynOps that a chip works on, or None where it is not published whether it skips zero weights."""
    from spear_deploy.budget.zero_weights import fill_zero_weights
    from spear_deploy.simulator.synops import count_synops

    profile, _ = resolve_chip(chip, None)
    if profile.weights.zero_synops.value is None:
        return None
    return count_synops(fill_zero_weights(graph, profile), counts).total


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
    net: Net | BackendChoice,
    x: Array,
    *,
    kind: InputKind = "spikes",
    backend: Backend = "fast",
    chip: Chip | None = None,
    record: Iterable[Record] = ("spikes",),
    timeout_s: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ChipRun:
    """Run a network, as it is stored or as integers of a chip, on our simulator, as Lava processes, or by Norse.

    Args:
        net: see `pipeline.inputs`; a `BackendChoice` holds backend and chip already.
        x: (T, B, *input).
        kind: "spikes" or "current".
        backend, chip: see `BackendChoice`.
        record: which of "spikes", "v", "u" to keep; Norse keeps spikes alone.
        timeout_s: time limit of a Lava run in s.
        progress: is called with the steps of our simulator, or with the name of another backend.
        options: of `load`.

    Raises:
        TypeError: there is no such option.
    """
    if isinstance(net, BackendChoice):
        for name in (*options, *(["chip"] if chip is not None else []), *(["backend"] if backend != "fast" else [])):
            raise DataError(f"{name}: a BackendChoice states its own; leave it out, or give simulate the network")
        choice = net
    else:
        choice = BackendChoice(net=net, graph=load_for(net, x, **options), backend=backend, chip=chip)
    simulator.check_record(record := tuple(record))
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
        labels: (B,) of `x`, if known; data have their own.
        samples: maximum of samples of the test split.
        progress: is called when a step begins.

    Raises:
        UnsupportedError: the network holds integers already, or the chip's integers cannot hold it.
    """
    from spear_deploy.data import Dataset
    from spear_deploy.lava.schedule import schedule_on_chip
    from spear_deploy.quantize.explain.attribution import explain as explain_graphs

    graph, calibration = load_for(net, x), x
    if graph.is_integer:
        raise UnsupportedError("the network holds integers already; give the floating-point network that it was made of")
    if isinstance(x, Dataset):
        x.check(graph.input_shape, int(np.prod(graph.shape_of(graph.output))))
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
        a, b: see `pipeline.inputs`, or a `BackendChoice` with the backend.
        x: (T, B, *input), as the networks take it; for an integer network a current is rounded to graded spikes.
        kind: of `x`.
        states: "v", "u": also compare these, by value.
        timeout_s: time limit of each Lava run in s.
        progress: is called with the progress of each run.
        options: of `load`; each goes to the network that takes it.

    Raises:
        DataError: the networks do not have the same spiking layers, or no such states that can be compared.
        TypeError: there is no such option.
    """
    simulator.check_record(states := tuple(states))
    choices = [choice if isinstance(choice, BackendChoice) else BackendChoice(net=choice) for choice in (a, b)]
    for choice in choices:
        choice.require_packages()  # before the first run, which may take long
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


def export(
    net: Net,
    path: str | os.PathLike[str],
    *,
    to: Literal["nir", "netx", "onnx", "xylo", "speck", "pynn"],
    x: Array | None = None,
    kind: InputKind = "spikes",
    chip: Chip | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write a network for other tools, read it back with an independent reader, run both, and return the certificate.

    Args:
        net: see `pipeline.inputs`. netx, Xylo and Speck hold integers only: a floating-point network is quantised for `chip`
            first. PyNN takes floating-point networks alone.
        path: the file; `certificate.json` is written beside it, and for PyNN the `.npz` that the script reads.
        to: "nir", "netx", "onnx", "xylo", "speck" or "pynn".
        x: the input of the proof, (T, B, *input); random input unless given.
        kind: of `x`.
        chip: netx: whose integers, loihi2 unless given. Xylo, Speck, PyNN: the chip, xylo_audio2, speck2f or
            spinnaker1 unless given. NIR: whose
            cores go into the metadata, none unless given.
        progress: is called with the progress of writing and proving.
        options: `seed` of the random input (0); for ONNX `scan`: one node over a whole sequence in place of a step with states in
            and out; for NIR `framework`, for whose own importer the file is written ("snntorch", "spikingjelly", "sinabs",
            "rockpool", "norse"; the certificate's `after_import` is what to run there); for Xylo, Speck and PyNN `force`: write a
            network that does not fit, with what breaks in the certificate; and those of `load`.

    Raises:
        UnsupportedError: the format or the framework has no form for a part of the network, by layer; `scan` for another format
            than ONNX, `framework` for another than NIR; a
            network that does not fit the chip of a Xylo, Speck or PyNN file, or integers of another chip.
        TypeError: there is no such option.
    """
    from spear_deploy import interchange
    from spear_deploy.interchange.certificate import REFUSED_FORMATS, ProofInput

    check_options(options, ("seed", "scan", "force", "framework", *NETWORK_OPTIONS), "export")
    if to in REFUSED_FORMATS:
        raise UnsupportedError(f"export to {to}: {REFUSED_FORMATS[to]}")
    if options.get("scan") and to != "onnx":
        raise UnsupportedError(f"export to {to}: scan is a form of ONNX alone; leave it out")
    if options.get("framework") and (to != "nir" or chip is not None):
        what = f"format {to}" if to != "nir" else "a chip's cores"
        raise UnsupportedError(f"export for {options['framework']}: {what} is none of its importer's; write NIR without a chip")
    reading, options = split_options(options, NETWORK_OPTIONS)
    graph, proof = load(net, **reading), ProofInput(x=x, kind=kind, seed=options.get("seed", 0))
    details: dict[str, Any] = {name: options[name] for name in ("scan", "framework") if options.get(name)}
    if to == "xylo" or to == "speck" or to == "pynn":
        return _export_to_chip(graph, path, to, chip or CHIPS_OF_FORMATS[to], proof, progress, force=bool(options.get("force")))
    if to == "netx" and not graph.is_integer:
        graph, proof, details["approximations"] = _quantize_for_file(graph, proof, chip or "loihi2")
    if to == "nir" and chip is not None:
        from spear_deploy.placement.place import place

        details["placement"] = place(graph, profile(chip))
    return interchange.export(graph, path, to=to, proof=proof, progress=progress, **details)


def _export_to_chip(
    graph: SNNGraph,
    path: str | os.PathLike[str],
    to: Literal["xylo", "speck", "pynn"],
    chip: Chip,
    proof: ProofInput,
    progress: Progress | None,
    *,
    force: bool,
) -> dict[str, Any]:
    """Check a network against a chip, and write and prove what the chip's own tool loads: integers, for PyNN real numbers.

    Raises:
        UnsupportedError: the network does not fit, it holds integers of another chip, or the chip is of another family.
    """
    from spear_deploy import interchange

    target = profile(chip)
    if target.meta.family != FAMILIES_OF_FORMATS[to]:
        raise UnsupportedError(
            f"export to {to}: profile '{target.name}' is of the {target.meta.family} family; name a "
            f"{FAMILIES_OF_FORMATS[to]} chip"
        )
    if to == "pynn" and (graph.is_integer or proof.kind == "current"):
        what = "the network holds integers" if graph.is_integer else "the input is a current"
        raise UnsupportedError(
            f"export to pynn: {what}, sPyNNaker takes real numbers, which it rounds itself, and spikes; give the floating-point "
            "network and its spikes"
        )
    neurons = {type(layer.neuron).__name__ for layer in graph.layers if layer.neuron is not None}
    if graph.is_integer and neurons != {INTEGERS_OF_FORMATS.get(to)}:
        raise UnsupportedError(
            f"export to {to}: the network holds integers of another chip ({', '.join(sorted(neurons))}); give the floating-point "
            "network that it was made of"
        )
    report = check(graph, target)
    over = [row for row in report.rows if row.status == "over" and not (row.limit == 0 and report.unsupported)]
    breaks = [f"{row.where}: {row.resource} {row.used or 0:,.0f} of {row.limit or 0:,.0f} {row.unit}" for row in over]
    breaks += [f"{finding.layer}: {finding.what}: {finding.why}" for finding in report.unsupported]
    if breaks and not force:
        remedy = "adapt the network, which replaces what the chip lacks" if report.unsupported else "make it fit, as check says"
        raise ChipError(
            f"export to {to}: the network does not fit {target.name} ({'; '.join(breaks)}); {remedy}, or force the export"
        )
    approximations: list[str] = []
    if to == "pynn":
        approximations = [_note_rounding(graph, proof, target)]
    elif not graph.is_integer:
        graph, proof, approximations = _quantize_for_file(graph, proof, target)
    details: dict[str, Any] = {"chip": target.name}
    if to == "speck":
        details["cores"] = {part.layer: part.slot for part in report.placement.slices}
    notes = [note.partition(": ")[2] for note in report.notes if note.startswith(("approximation: ", "pool: "))]
    approximations = [*approximations, *notes, *(f"does not fit {target.name}: {problem}" for problem in breaks)]
    facts = {"chip": target.name, "does_not_fit": breaks}
    return interchange.export(
        graph, path, to=to, proof=proof, progress=progress, approximations=approximations, facts=facts, **details
    )


def _note_rounding(graph: SNNGraph, proof: ProofInput, chip: Chip) -> str:
    """Return a sentence on how far a chip's integers are from a network that its tool rounds."""
    _, _, (note,) = _quantize_for_file(graph, proof, chip)
    return note.replace("the integers are written", "real numbers are written, which the chip rounds; rounded as `simulate` does")


def _quantize_for_file(graph: SNNGraph, proof: ProofInput, chip: Chip) -> tuple[SNNGraph, ProofInput, list[str]]:
    """Return the integers of a network, the input of their proof, and a sentence on their distance from the network."""
    from spear_deploy.interchange.certificate import default_input

    x, kind = (proof.x, proof.kind) if proof.x is not None else default_input(graph, proof.seed)
    integer = quantize_for_chip(graph, chip, calibration=x, kind=kind)
    if kind == "current":
        from spear_deploy.quantize import quantize_input

        note = "the integers are written, not the floating-point network; 'compare' says how far they differ"
        return integer, replace(proof, x=quantize_input(integer, x, kind), kind=kind), [note]
    different = sum(row.mismatches for row in compare(graph, integer, x, kind=kind) if row.what == "spikes")
    note = f"the integers are written: {different} spikes differ from those of the floating-point network on this input"
    return integer, replace(proof, x=x, kind=kind), [note]
