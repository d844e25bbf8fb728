"""Adaptation of a trained network: replacement, learning and measurement by step."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from spear_deploy.adaptation.differences import find_first_difference
from spear_deploy.adaptation.few_values import FewValues, find_few_values
from spear_deploy.adaptation.host import find_host
from spear_deploy.adaptation.learn import (
    LearnSettings,
    calibrate_plan,
    choose_plan,
    find_loss,
    learn,
    list_one_sign,
    list_stages,
    make_hints,
)
from spear_deploy.adaptation.learn_anew import is_anew, learn_anew
from spear_deploy.adaptation.needs import list_needs
from spear_deploy.adaptation.plan import Plan, Step, follow, make_plans
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.adaptation.signs import list_unmixed
from spear_deploy.budget.check import check
from spear_deploy.budget.report import BudgetReport
from spear_deploy.data import Dataset, Split
from spear_deploy.data.input_sums import sum_inputs, sum_split
from spear_deploy.errors import GraphError, QuantizationError, UnsupportedError
from spear_deploy.hardware.profile import HardwareProfile
from spear_deploy.interchange.host_readout_file import READOUT_FILE, write_host_readout
from spear_deploy.interchange.snn_file import hash_network, read_snn, write_snn
from spear_deploy.network import WEIGHTED
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.classes import count_classes
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import has_host_readout
from spear_deploy.network.labels import label_layers
from spear_deploy.network.one_sign import ONE_SIGN
from spear_deploy.pipeline import api
from spear_deploy.pipeline.inputs import load_for, load_named, merge_options
from spear_deploy.pipeline.learn_integers import learn_integers, note_distance
from spear_deploy.pipeline.preflight import CheckedInputs
from spear_deploy.pipeline.readout_fit import advise_host, describe_host_readout, describe_traffic, fit_readout
from spear_deploy.pipeline.result import add_header
from spear_deploy.placement.splitting import find_largest
from spear_deploy.pruning.importance import plan_by_importance
from spear_deploy.pruning.notes import preflight_warnings
from spear_deploy.pruning.plan import prune
from spear_deploy.quantize import FORMATS
from spear_deploy.quantize.fold import fold_chained_weights
from spear_deploy.quantize.rounding import INTEGERS_COUNT, ROUNDED, Rounding, read_rounding
from spear_deploy.report import write_report
from spear_deploy.report.adaptation_page import PAGE
from spear_deploy.training.evaluation import Evaluation, evaluate
from spear_deploy.util.extras import require_packages
from spear_deploy.util.files import write_json
from spear_deploy.util.folder_lock import own_folder, require_kept
from spear_deploy.util.number_format import join_names
from spear_deploy.util.progress import Progress

TRAINED, ADAPTED, INTEGERS, FACTS = "trained.snn", "adapted.snn", "integers.snn", "adapt.json"
RESULTS = (ADAPTED, INTEGERS, FACTS, PAGE, READOUT_FILE)
"""Files that `adapt` writes."""
CHIP, HOST = PLACES = ("chip", "host")
"""Where a readout may be."""
WIDTH_STEPS = 20
"""Widths are tried in twentieths."""
STEP_SAMPLES = 1000
"""Test samples that accuracy is measured on after each step."""
MAX_CANDIDATES = 3
"""Plans that learn for a short time, the best by rank."""


@dataclass(frozen=True, kw_only=True)
class AdaptSettings:
    """How a network is adapted.

    Attributes:
        epochs: of fine-tuning.
        narrows: whether layers become narrower where the chip is too small for the adapted network.
        readout: where it is computed, on the "chip", or by the "host", which integrates the spikes that leave the chip.
        seed: of the splits and of the order of samples.

    Raises:
        UnsupportedError: there is no such place for a readout.
    """

    epochs: int = LearnSettings.epochs
    narrows: bool = True
    readout: str = CHIP
    seed: int = 0

    def __post_init__(self) -> None:
        if self.readout not in PLACES:
            raise UnsupportedError(f"readout '{self.readout}': expected one of {', '.join(PLACES)}")

    @property
    def learning(self) -> LearnSettings:
        """How it learns."""
        return LearnSettings(epochs=self.epochs, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class AdaptTask:
    """A network to adapt.

    Attributes:
        network: a floating-point network.
        profile: the chip.
        chips: how many there are.
        dataset: learns from `train`, chooses by `val`, is measured on `test`; None: nothing is learnt.
        settings: of the adaptation.
        progress: is called while it learns.
    """

    network: SNNGraph
    profile: HardwareProfile
    chips: int = 1
    dataset: Dataset | None = None
    settings: AdaptSettings = AdaptSettings()
    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A network adapted to a chip.

    Attributes:
        graph: the network; the given one where nothing was to replace.
        rows: replacements, a row a layer: layer, what, by, kind, bound, neurons.
        waterfall: accuracy after each step, on the test split: {after, kind, accuracy, layers}; of a replacement also where
            spikes differ first from those before it, {differs: {layer, step, share} or None}; empty without data.
        missing: what is left that the chip lacks, a sentence each.
        report: check of the network.
        widths: channels before and after, by group, where layers became narrower.
        notes: sentences.
    """

    graph: SNNGraph
    rows: tuple[Mapping[str, Any], ...] = ()
    waterfall: tuple[Mapping[str, Any], ...] = ()
    missing: tuple[str, ...] = ()
    report: BudgetReport
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def adapt(
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset | None = None,
    *,
    out: str | os.PathLike[str],
    settings: AdaptSettings | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Replace what a chip lacks, learn it, and write `adapted.snn`, `integers.snn`, `adapt.json` and the page `adapt.html`.

    Args:
        net, chip: see `pipeline.inputs`.
        data: a built-in name, a file, or a `Dataset`; without it only what needs no learning is replaced.
        out: folder for the files.
        settings: epochs, seed, the place of the readout, and whether layers may become narrower.
        overrides: facts of the profile to replace, by dotted key.
        progress: is called while it learns.
        options: fields of `AdaptSettings` by name. How network and data are read: those of `load`, and `steps` and `encoding` of
            `load_data`.

    Returns:
        {chip, adapted_digest, labels (of layers in tables), replaced, accuracy {trained, adapted, integers}, waterfall, missing,
        verdict, cores_used, cores_limit, widths, notes, files, seconds}; integers are None where the family's are not built here.
        With a readout on the host also `host_readout` {what, outputs, weights, spikes_per_step}, and its numbers as an `.npz`.

    Raises:
        UnsupportedError: an integer network, or a readout that a host cannot integrate.
        TypeError: there is no such option.
    """
    begin = perf_counter()
    require_kept(out, RESULTS, net, data)
    net, coding, options = load_named(net, "digits" if data is None else data, options)
    settings = merge_options(settings or AdaptSettings(), options, "adapt")
    profile, chips = api.resolve_chip(chip, overrides)
    network = fold_chained_weights(api.load(net) if data is None else load_for(net, data))
    dataset = None
    if data is not None:
        require_packages("torch", "norse", user="adaptation")
        dataset = api.data(data, network, seed=settings.seed, **coding)
        dataset.check(network.input_shape, count_classes(network))
    task = AdaptTask(network=network, profile=profile, chips=chips, dataset=dataset, settings=settings, progress=progress)
    with own_folder(out) as folder:
        facts = describe_adapted(adapt_network(task), task, folder)
        files = {**facts["files"], "report": PAGE}
        for name in set(RESULTS) - set(files.values()):  # of a run before, of another network or another readout
            (folder / name).unlink(missing_ok=True)
        facts = add_header({**facts, "files": files, "seconds": perf_counter() - begin}, network)
        write_json(folder / FACTS, facts)
        write_report(folder)
    return facts


def adapt_network(task: AdaptTask) -> Adapted:
    """Return a network that uses only what the chip has, as far as that can be made.

    Raises:
        UnsupportedError: an integer network, or a readout that a host cannot integrate.
        GraphError: learning has to write out sparse weights that do not fit the memory.
    """
    if task.settings.readout == HOST:
        return _adapt_for_host(task)
    network, profile, chips, dataset = task.network, task.profile, task.chips, task.dataset
    if dataset is None:
        return _adapt_exactly(task)
    plans = make_plans(network, profile, chips=chips)
    notes = preflight_warnings(network, evaluate(network, dataset.val), dataset.classes)
    if not plans[0].steps:
        missing = tuple(list_needs(plans[0].report, network, profile))
        return Adapted(graph=network, report=plans[0].report, missing=missing, notes=tuple(notes))
    if plans[0].lacking:  # learning would not help
        return _adapt_exactly(task)
    candidates = _list_candidates(task, plans)
    for candidate in candidates:
        if candidate.plan.learnt or candidate.widths or find_few_values(profile):
            candidate.plan.graph.require_learning_room()
    number = choose_plan([each.plan for each in candidates], network, dataset, task.settings.learning, task.progress)
    return _learn_plan(task, candidates[number], notes)


def _adapt_for_host(task: AdaptTask) -> Adapted:
    """Move the readout to the host, and adapt what is left for the chip."""
    moved = find_host(task.network)
    network = moved.rewrite(task.network)
    adapted = adapt_network(replace(task, network=network, settings=replace(task.settings, readout=CHIP)))
    rows = moved.to_rows(network.neurons - task.network.neurons)
    waterfall = list(adapted.waterfall)
    if task.dataset is not None:
        test = task.dataset.test.head(STEP_SAMPLES)
        waterfall = waterfall or [_measure("as trained", "", (), task.network, test)]
        row = _measure(f"{moved.what} → {moved.by}", moved.kind, moved.layers, network, test)
        waterfall.insert(1, {**row, "differs": find_first_difference(task.network, network, test)})
    return replace(adapted, rows=(*rows, *adapted.rows), waterfall=tuple(waterfall))


def _learn_plan(task: AdaptTask, candidate: TrialPlan, notes: Sequence[str]) -> Adapted:
    """Learn a plan by stages, finish it with what comes after learning, and measure each step."""
    if is_anew(candidate.plan):
        return _learn_anew(task, candidate.plan, notes)
    plan, narrowed, widths = candidate.plan, candidate.network, candidate.widths
    dataset = task.dataset
    assert dataset is not None
    test = dataset.test.head(STEP_SAMPLES)
    waterfall = [_measure("as trained", "", (), task.network, test)]
    if widths:
        waterfall.append(_measure("narrower layers", "learnt", tuple(widths), narrowed, test))

    def add_step(made: Replacement, before: SNNGraph, after: SNNGraph) -> None:
        row = _measure(f"{made.what} → {made.by}", made.kind, made.layers, after, test)
        waterfall.append({**row, "differs": find_first_difference(before, after, test)})

    few, learning = find_few_values(task.profile), task.settings.learning.for_plan(plan.graph)
    aim, hints = evaluate(task.network, dataset.val).accuracy, make_hints(task.network, dataset)
    learnt, steps = narrowed, list[Step]()
    stages = list_stages(plan)
    for number, topics in enumerate(stages):
        before = learnt
        part, _ = follow(before, task.profile, plan.options, chips=task.chips, defers=True, topics=topics, watch=add_step)
        steps += part.steps
        learnt = calibrate_plan(part, before, dataset)
        if learnt is not part.graph:
            waterfall.append(_measure("thresholds set on data", "learnt", (), learnt, test))
        if plan.learnt or widths or few:
            learnt, batches = learn(
                learnt, dataset, learning, aim=aim, hints=hints, is_last=number == len(stages) - 1, few=few,
                one_sign=list_one_sign(steps), progress=task.progress,
            )  # fmt: skip
            if batches:
                waterfall.append(_measure(f"learning, {batches} batches", "learnt", (), learnt, test))
    final, _ = follow(learnt, task.profile, plan.options, chips=task.chips, watch=add_step)
    graph = _state_facts(final.graph, task.profile, adapted_to=task.profile.name)
    missing = tuple(list_needs(final.report, graph, task.profile))
    unlearnt, allowed = _note_lack_of_room(task, graph), find_loss(few)
    if not missing and not unlearnt:
        inputs = CheckedInputs(network=graph, profile=task.profile, chips=task.chips, dataset=sum_inputs(dataset, graph))
        result = learn_integers(inputs, task.settings.learning, aim=aim - allowed, hints=hints, progress=task.progress)
        graph = result.graph
        if result.batches:
            name = f"learning with the rounding of {task.profile.name}, {result.batches} batches"
            waterfall.append(_measure(name, "learnt", (), graph, test))
        graph, fitted = _fit_host(replace(inputs, network=graph), waterfall, test)
        notes = [*notes, *note_distance(result.accuracy if fitted is None else fitted, aim, allowed)]
    return Adapted(
        graph=graph,
        rows=tuple(_list_rows(candidate, (*steps, *final.steps), few)),
        waterfall=tuple(waterfall),
        missing=missing,
        report=final.report,
        widths=widths,
        notes=(*notes, *unlearnt, *plan.failed, *final.failed),
    )


def _list_rows(candidate: TrialPlan, steps: Sequence[Step], few: FewValues | None) -> list[dict[str, Any]]:
    """Return the table's rows of narrower layers, of what was replaced, and of weights of few values."""
    learnt = {"kind": "learnt", "bound": "", "neurons": 0}
    rows = [
        {"layer": name, "what": f"{before} channels", "by": f"{after} channels", **learnt}
        for name, (before, after) in candidate.widths.items()
    ]
    rows += [row for step in steps for row in step.to_rows()]
    if few is not None:
        weighted = [layer.name for layer in candidate.plan.graph.layers if isinstance(layer.synapse, WEIGHTED)]
        rows += [{"layer": name, "what": "weights", "by": few.describe(), **learnt} for name in weighted]
    return rows


def _fit_host(inputs: CheckedInputs, waterfall: list[dict[str, Any]], test: Split) -> tuple[SNNGraph, float | None]:
    """Fit the host's readout to the chip's spikes, and add the step to the waterfall.

    Returns:
        The network, and its accuracy on validation; None where it stays as it was.
    """
    fitted = fit_readout(inputs)
    if fitted is None:
        return inputs.network, None
    waterfall.append(_measure(fitted.describe(inputs.profile), "learnt", (), fitted.graph, test))
    return fitted.graph, fitted.accuracy


def _learn_anew(task: AdaptTask, plan: Plan, notes: Sequence[str]) -> Adapted:
    """Learn a network that replaces the trained one whole, with the chip's values from the first batch on."""
    assert task.dataset is not None
    test = task.dataset.test.head(STEP_SAMPLES)
    waterfall = [_measure("as trained", "", (), task.network, test)]
    waterfall += [
        _measure(f"{made.what} → {made.by}", made.kind, made.layers, plan.graph, test)
        for made in (step.replacement for step in plan.steps)
    ]
    few = find_few_values(task.profile)
    assert few is not None, "a network is learnt anew on few values alone"
    has_integers = task.profile.meta.family in ROUNDED

    def round_network(network: SNNGraph) -> Rounding:
        if not has_integers:
            return few.round_network(network)
        return read_rounding(network, api.quantize_for_chip(network, task.profile))

    graph, batches = learn_anew(
        plan.graph, task.network, task.dataset, task.settings.learning, round_network, progress=task.progress
    )
    waterfall.append(_measure(f"learning, {batches} batches", "learnt", (), graph, test))
    graph = _state_facts(graph, task.profile, adapted_to=task.profile.name)
    inputs = CheckedInputs(network=graph, profile=task.profile, chips=task.chips, dataset=sum_inputs(task.dataset, graph))
    graph, _ = _fit_host(inputs, waterfall, test)
    rows = tuple(row for step in plan.steps for row in step.to_rows())
    report = check(graph, task.profile, chips=task.chips, remedies=False)
    missing = tuple(list_needs(report, graph, task.profile))
    # the network learnt with spike after spike of the integers, which floating point does not have
    said = (*notes, *([INTEGERS_COUNT] if has_integers else []), *plan.failed)
    return Adapted(graph=graph, rows=rows, waterfall=tuple(waterfall), missing=missing, report=report, notes=said)


def _note_lack_of_room(task: AdaptTask, graph: SNNGraph) -> list[str]:
    """Return a note where weights are too large to be learnt with the chip's rounding, which is known."""
    if task.profile.meta.family not in ROUNDED:
        return []
    try:
        graph.require_learning_room()
    except GraphError as error:
        return [f"not learnt with the rounding of {task.profile.name}: {error}"]
    return []


def _adapt_exactly(task: AdaptTask) -> Adapted:
    """Make the replacements that need no learning, and list what is missing: without data also what has to be learnt."""
    network, profile, chips = task.network, task.profile, task.chips
    plan = make_plans(network, profile, chips=chips, learns=False)[0]
    best = make_plans(network, profile, chips=chips)[0]
    left = [step.replacement for step in best.learnt] if task.dataset is None else []
    missing = [
        f"{_name_layers(made.layers)}: {made.what}, to be replaced after learning by {made.by}; give data to learn from"
        for made in left
    ]
    missing += list_needs(best.report, best.graph, profile)
    return Adapted(
        graph=_state_facts(plan.graph, profile) if plan.steps else network,
        rows=tuple(row for step in plan.steps for row in step.to_rows()),
        missing=tuple(missing),
        report=plan.report,
        notes=plan.failed,
    )


def _name_layers(names: Sequence[str]) -> str:
    """Return layers by name.

    >>> _name_layers(["a"]), _name_layers(["a", "b"])
    ("layer 'a'", "layers 'a' and 'b'")
    """
    return f"layer{'s' if len(names) > 1 else ''} {join_names([repr(name) for name in names])}"


def _state_facts(graph: SNNGraph, profile: HardwareProfile, **facts: str) -> SNNGraph:
    """Return an adapted network with its facts: channels are numbered from 0, and sources keep one sign where the chip's do."""
    metadata: dict[str, Any] = {key: value for key, value in graph.metadata.items() if key not in ("kept_channels", ONE_SIGN)}
    if profile.weights.sign.value == "presynaptic":
        metadata[ONE_SIGN] = list(list_unmixed(graph))
    return replace(graph, metadata={**metadata, **facts})


# --------------------------------------------------------------------------------------------------------- narrower


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """A plan that may be learnt.

    Attributes:
        network: that it starts from, narrower where the chip is too small for it otherwise.
        plan: without what comes after learning.
        widths: channels before and after, by group that became narrower.
    """

    network: SNNGraph
    plan: Plan
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def _list_candidates(task: AdaptTask, plans: Sequence[Plan]) -> list[TrialPlan]:
    """Return the plans among which a short training decides: the first, if it has nothing to learn; else the first that fit.

    A plan that lacks nothing but is too large is narrowed until it fits; where none fits, the first stays as it is.
    """
    best = plans[0]
    fits = best.report.verdict != "does_not_fit"
    if best.lacking or (fits and not best.learnt):
        return [_make_candidate(task, task.network, best)]
    candidates = []
    for plan in [plan for plan in plans if not plan.lacking][:MAX_CANDIDATES]:
        if plan.report.verdict != "does_not_fit":
            candidates.append(_make_candidate(task, task.network, plan))
        elif task.settings.narrows and (narrowed := _narrow_to_fit(task, plan)) is not None:
            candidates.append(_make_candidate(task, narrowed, plan))
    return candidates or [_make_candidate(task, task.network, best)]


def _make_candidate(task: AdaptTask, network: SNNGraph, plan: Plan) -> TrialPlan:
    deferred, _ = follow(network, task.profile, plan.options, chips=task.chips, defers=True)
    before, after = ({group.name: group.channels for group in list_prunable_groups(graph)} for graph in (task.network, network))
    widths = {name: (channels, after[name]) for name, channels in before.items() if after[name] < channels}
    return TrialPlan(network=network, plan=deferred, widths=widths)


def _narrow_to_fit(task: AdaptTask, plan: Plan) -> SNNGraph | None:
    """Return the network with the largest share of all widths at which a plan fits; None where it fits at none."""
    groups = {group.name: group.channels for group in list_prunable_groups(task.network)}

    def narrow(step: int) -> SNNGraph:
        widths = {name: max(1, channels * step // WIDTH_STEPS) for name, channels in groups.items()}
        return prune(task.network, plan_by_importance(task.network, widths))

    def fits(step: int) -> bool:
        report = follow(narrow(step), task.profile, plan.options, chips=task.chips)[0].report
        return report.verdict != "does_not_fit"

    step = find_largest(WIDTH_STEPS - 1, fits) if groups else None
    return None if step is None else narrow(step)


# --------------------------------------------------------------------------------------------------------- measured


def _measure(after: str, kind: str, layers: Sequence[str], graph: SNNGraph, split: Split) -> dict[str, Any]:
    return {"after": after, "kind": kind, "layers": list(layers), "accuracy": evaluate(graph, sum_split(split, graph)).accuracy}


def describe_adapted(adapted: Adapted, task: AdaptTask, folder: Path, *, quantises: bool = True) -> dict[str, Any]:
    """Write an adapted network and, if it `quantises`, its integers and host's readout, and return all results as plain data."""
    write_snn(adapted.graph, folder / ADAPTED)
    files, notes, waterfall = {"adapted": ADAPTED}, list(adapted.notes), list(adapted.waterfall)
    missing = list(adapted.missing)
    accuracy: dict[str, float | None] = dict.fromkeys(("trained", "adapted", "integers"))
    report, profile, chips, counts = adapted.report, task.profile, task.chips, None
    if task.dataset is None:
        missing += _find_refusal(adapted, profile) if quantises else []
    else:
        test = task.dataset.test
        accuracy["trained"] = evaluate(task.network, test).accuracy
        after = evaluate(adapted.graph, sum_split(test, adapted.graph))
        accuracy["adapted"], counts = after.accuracy, after.counts
        report = check(adapted.graph, profile, chips=chips, activity=counts)
        if not quantises:
            pass
        elif profile.meta.family not in FORMATS:
            notes.append(f"integers of the {profile.meta.family} family are not built here; accuracy is that of floating point")
        elif not adapted.missing:
            try:
                run, report = _measure_integers(adapted.graph, task, folder)
                files["integers"], accuracy["integers"], counts = INTEGERS, run.accuracy, run.counts
                last = {"after": f"integers of {profile.name}", "kind": "", "layers": [], "accuracy": run.accuracy}
                differs = find_first_difference(adapted.graph, read_snn(folder / INTEGERS), test)
                waterfall.append({**last, "differs": differs})
            except (UnsupportedError, QuantizationError) as error:  # the network is adapted all the same
                missing.append(f"integers: {error}")
    reached = accuracy["adapted"] if accuracy["integers"] is None else accuracy["integers"]
    lost = (accuracy["trained"] or 0.0) - (reached or 0.0)
    if task.dataset is not None and task.settings.readout == CHIP and lost > find_loss(find_few_values(profile)):
        notes += advise_host(task.network)
    host: dict[str, Any] = {}
    if has_host_readout(adapted.graph):
        host["host_readout"] = read_out = describe_host_readout(adapted.graph, counts)
        notes.append(describe_traffic(read_out))
        if quantises:
            files["host_readout"] = write_host_readout(adapted.graph, folder)
    return {
        **host,
        "chip": profile.name,
        "adapted_digest": hash_network(adapted.graph),
        "labels": label_layers(task.network),
        "replaced": [dict(row) for row in adapted.rows],
        "accuracy": accuracy,
        "waterfall": waterfall,
        "missing": missing,
        "verdict": report.verdict,
        "headline": report.headline,
        "cores_used": report.cores_used,
        "cores_limit": report.cores_limit,
        "energy": report.energy.to_json(),
        "widths": {name: list(pair) for name, pair in adapted.widths.items()},
        "notes": notes,
        "files": {**files, "facts": FACTS},
    }


def _find_refusal(adapted: Adapted, profile: HardwareProfile) -> list[str]:
    """Return in a sentence why an adapted network has no integers; nothing where it has, or where parts are missing anyway."""
    if adapted.missing or profile.meta.family not in FORMATS:
        return []
    try:
        api.quantize_for_chip(adapted.graph, profile)
    except (UnsupportedError, QuantizationError) as error:
        return [f"integers: {error}"]
    return []


def _measure_integers(graph: SNNGraph, task: AdaptTask, folder: Path) -> tuple[Evaluation, BudgetReport]:
    """Write the chip's integers of an adapted network, run them on the test split and check them."""
    assert task.dataset is not None
    dataset = sum_inputs(task.dataset, graph)
    inputs = CheckedInputs(network=graph, profile=task.profile, chips=task.chips, dataset=dataset)
    integer, split = inputs.deploy_integers(graph, dataset.test)
    run = evaluate(integer, split)
    write_snn(integer, folder / INTEGERS)
    return run, check(integer, task.profile, chips=task.chips, activity=run.counts)
