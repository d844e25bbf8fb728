"""A network that uses only what a chip has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from spear_deploy.adaptation.few_values import find_few_values
from spear_deploy.adaptation.host import find_host
from spear_deploy.adaptation.learn import choose_plan
from spear_deploy.adaptation.needs import list_needs
from spear_deploy.adaptation.plan import Plan, follow, make_plans
from spear_deploy.pipeline.adaptation.learn_plan import learn_plan, state_facts
from spear_deploy.pipeline.adaptation.task import CHIP, HOST, Adapted, AdaptTask
from spear_deploy.pipeline.adaptation.trial_plans import list_trial_plans
from spear_deploy.pipeline.adaptation.waterfall import Waterfall
from spear_deploy.pruning.notes import preflight_warnings
from spear_deploy.training.evaluation import evaluate
from spear_deploy.util.number_format import join_names


def adapt_network(task: AdaptTask) -> Adapted:
    """Return a network that uses only what the chip has, as far as that can be made.

    Raises:
        UnsupportedError: a quantised network, or a readout that a host cannot integrate.
        GraphError: learning has to write out sparse weights that do not fit the memory.
    """
    if task.settings.readout == HOST:
        return _adapt_for_host(task)
    network, profile, dataset = task.network, task.profile, task.dataset
    if dataset is None:
        return _adapt_exactly(task)
    plans = make_plans(network, profile, chips=task.chips)
    notes = preflight_warnings(network, evaluate(network, dataset.val), dataset.classes)
    if not plans[0].steps:
        missing = tuple(list_needs(plans[0].report, network, profile))
        return Adapted(graph=network, report=plans[0].report, missing=missing, notes=tuple(notes))
    if plans[0].lacking:  # learning would not help
        return _adapt_exactly(task)
    trials = list_trial_plans(task, plans)
    for trial in trials:
        if trial.plan.learnt or trial.widths or find_few_values(profile):
            trial.plan.graph.require_learning_room()
    number = choose_plan(
        [trial.plan for trial in trials], network, dataset, task.settings.learning,
        workers=task.settings.workers, progress=task.progress,
    )  # fmt: skip
    return learn_plan(task, dataset, trials[number], notes)


def _adapt_for_host(task: AdaptTask) -> Adapted:
    """Move the readout to the host, and adapt what is left for the chip."""
    moved = find_host(task.network)
    network = moved.rewrite(task.network)
    adapted = adapt_network(replace(task, network=network, settings=replace(task.settings, readout=CHIP)))
    waterfall = adapted.waterfall
    if task.dataset is not None:
        first = Waterfall(task.network, task.dataset)
        first.add_replacement(moved, task.network, network)
        waterfall = (*first.rows, *waterfall[1:])
    rows = moved.to_rows(network.neurons - task.network.neurons)
    return replace(adapted, rows=(*rows, *adapted.rows), waterfall=waterfall)


def _adapt_exactly(task: AdaptTask) -> Adapted:
    """Make the replacements that need no learning, and list what is missing: without data also what has to be learnt."""
    network, profile, chips = task.network, task.profile, task.chips
    plan = make_plans(network, profile, chips=chips, learns=False)[0]
    best = make_plans(network, profile, chips=chips)[0]
    learnt, _ = follow(network, profile, plan.options, chips=chips)  # the same alternatives: what is exact there is not missing
    learnt = learnt if len(learnt.lacking) <= len(best.lacking) else best
    left = [step.replacement for step in learnt.learnt] if task.dataset is None else []
    missing = [
        f"{_name_layers(made.layers)}: {made.what}, to be replaced after learning by {made.by}; give data to learn from"
        for made in left
    ]
    missing += list_needs(learnt.report, learnt.graph, profile)
    return Adapted(
        graph=state_facts(plan.graph, profile) if plan.steps else network,
        rows=tuple(row for step in plan.steps for row in step.to_rows()),
        missing=tuple(missing),
        report=plan.report,
        notes=(*plan.failed, *(_advise_learning(learnt, best) if task.dataset is None else ())),
    )


def _advise_learning(plan: Plan, best: Plan) -> Iterator[str]:
    """Yield a sentence for each learnt replacement of the best plan that stands in place of an exact one, and saves room."""
    if best.rank >= plan.rank:
        return
    then = "the network would fit" if best.report.verdict != "does_not_fit" else "the network would need less of the chip"
    own = {(step.replacement.layers, step.replacement.topic) for step in plan.learnt}
    for made in (step.replacement for step in best.learnt if (step.replacement.layers, step.replacement.topic) not in own):
        yield f"{_name_layers(made.layers)}: with {made.by} in place of {made.what}, {then}; give data to learn from"


def _name_layers(names: Sequence[str]) -> str:
    """Return layers by name.

    >>> _name_layers(["a"]), _name_layers(["a", "b"])
    ("layer 'a'", "layers 'a' and 'b'")
    """
    return f"layer{'s' if len(names) > 1 else ''} {join_names([repr(name) for name in names])}"
