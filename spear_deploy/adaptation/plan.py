"""Plans of adaptation: exact replacements first, alternatives by their cost.

    network ─► exact and bounded replacements ─► learnt ones ─► what is still lacking
    alternatives (a pool folded, a mean of currents, a stride before or behind it; a source twice, or one sign) make one plan each

Plans are ranked under all limits of the chip: those that lack nothing first, then those that fit, then by how far they exceed the
limits, then by how much has to be learnt. Plans that are equal in all that are told apart by a short training (`learn`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, TypeAlias, get_args

import numpy as np

from spear_deploy.adaptation.outputs import ONE, SEVERAL
from spear_deploy.adaptation.pools import FOLD, find_pools
from spear_deploy.adaptation.replacement import Kind, Replacement
from spear_deploy.adaptation.table import find_replacements
from spear_deploy.budget.check import check
from spear_deploy.budget.remedies import FIXED
from spear_deploy.budget.report import BudgetReport
from spear_deploy.errors import SpearError, UnsupportedError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.classes import state_spikes
from spear_deploy.network.equal_values import collapse_equal_values
from spear_deploy.network.fixed_weights import FIXED_WEIGHTS
from spear_deploy.network.graph import SNNGraph, merge_parts

MAX_REWRITES = 200
"""Replacements of one network; each removes what it was for, so that no network comes near."""
MAX_PLANS = 8
"""Plans that are compared."""

KINDS = get_args(Kind)
LAST = ("skip", "sign")
"""Topics that come behind all others: relays are of the neurons that the chip has, and all change weights."""
READOUT = "readout"
"""Topic whose alternatives differ in size alone: they make no plans of their own."""
Options: TypeAlias = Mapping[str, str]
Watch: TypeAlias = Callable[[Replacement, SNNGraph, SNNGraph], None]
"""Takes a replacement that was made, the network before it, and the network after it."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A replacement that was made.

    Attributes:
        replacement: see there.
        neurons: that it added; below 0 where it removed some.
    """

    replacement: Replacement
    neurons: int

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a row a layer as plain data."""
        return self.replacement.to_rows(self.neurons)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A network adapted to a chip, before anything is learnt.

    Attributes:
        steps: replacements in order.
        graph: the network after all of them.
        report: its check against the chip.
        options: alternatives that were chosen, by topic.
        failed: replacements that could not be made, each with the reason in a sentence.
    """

    steps: tuple[Step, ...]
    graph: SNNGraph
    report: BudgetReport
    options: Options = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    @property
    def learnt(self) -> tuple[Step, ...]:
        """The steps whose replacement has to be learnt."""
        return tuple(step for step in self.steps if step.replacement.kind == "learnt")

    @property
    def lacking(self) -> list[str]:
        """What the chip has no counterpart for, a sentence each."""
        return [f"layer '{row.layer}': {row.what}; {row.why}" for row in self.report.unsupported] + list(list_fixed(self.report))

    @property
    def excess(self) -> float:
        """Used part of the resource that is furthest over its limit; 1 where all fit."""
        shares = [(row.used or 0) / row.limit for row in self.report.rows if row.status == "over" and row.limit]
        return max([1.0, *shares])

    @property
    def rank(self) -> tuple[float, ...]:
        """The better plan first: nothing lacking, within all limits, little learnt, little excess."""
        learnt = {step.replacement.topic for step in self.learnt}
        return (len(self.lacking), self.report.verdict == "does_not_fit", round(self.excess, 6), len(learnt))


def list_fixed(report: BudgetReport) -> Iterator[str]:
    """Yield a sentence for each limit that is exceeded and that no replacement that is left and no narrower layer changes."""
    for row in report.rows:
        if row.resource in FIXED and row.status == "over":
            name = row.resource.split("_")[0]
            yield f"{name}: {row.used:,.0f} channels; {report.profile} has {row.limit:,.0f}, so that the {name} has to be smaller"


def make_plans(graph: SNNGraph, profile: HardwareProfile, *, chips: int = 1, learns: bool = True) -> list[Plan]:
    """Return the plans for a network and a chip, the best first; one without steps where nothing is to replace.

    Args:
        graph: a floating-point network.
        profile: the chip.
        chips: how many there are.
        learns: whether replacements may be learnt; else those that need it are left out, and the chip lacks what they were for.

    Raises:
        UnsupportedError: a quantised network.
    """
    if find_chip_format(graph):
        raise UnsupportedError("a quantised network is of one chip already; give the floating-point network that it was made of")
    plans: dict[tuple[Any, ...], Plan] = {}
    tried: set[tuple[tuple[str, str], ...]] = set()
    waiting: list[dict[str, str]] = [{}]
    while waiting and len(plans) < MAX_PLANS:
        options = waiting.pop(0)
        if (key := tuple(sorted(options.items()))) in tried:
            continue
        tried.add(key)
        walk = _walk(graph, profile, options, learns=learns)
        seen, shapes = walk.seen, _list_shapes(walk.graph)
        if shapes not in plans:  # the network of another plan is not checked again
            plans[shapes], seen = _judge(walk, graph, profile, chips=chips, learns=learns)
        names = sorted(name for name in seen if name != READOUT)
        waiting += [dict(zip(names, choice, strict=True)) for choice in product(*(sorted(seen[name]) for name in names))]
    chosen = [_take_one_output(plan, graph, profile, chips) for plan in plans.values()]
    return sorted(chosen, key=lambda plan: plan.rank)


def _take_one_output(plan: Plan, graph: SNNGraph, profile: HardwareProfile, chips: int) -> Plan:
    """Return the plan with one output neuron a class in place of several where that fits better; else as it is."""
    if plan.report.verdict != "does_not_fit" or all(step.replacement.option != SEVERAL for step in plan.steps):
        return plan
    other, _ = follow(graph, profile, {**plan.options, READOUT: ONE}, chips=chips)
    return min(plan, other, key=lambda each: each.rank)


def _list_shapes(graph: SNNGraph) -> tuple[Any, ...]:
    """Return what tells the networks of plans apart: the layers, their weights' shapes and their strides."""
    synapses: list[Any] = [layer.synapse for layer in graph.layers]
    shapes = [(np.shape(getattr(synapse, "weight", ())), getattr(synapse, "stride", ())) for synapse in synapses]
    return str(graph), *shapes


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """A network rewritten step by step, before its check; the attributes are those of a `Plan`, `seen` the options met."""

    steps: tuple[Step, ...]
    graph: SNNGraph
    options: Options
    failed: tuple[str, ...]
    seen: dict[str, set[str]]


def follow(
    graph: SNNGraph,
    profile: HardwareProfile,
    options: Options,
    *,
    chips: int = 1,
    learns: bool = True,
    defers: bool = False,
    topics: Collection[str] | None = None,
    watch: Watch | None = None,
) -> tuple[Plan, dict[str, set[str]]]:
    """Return the plan that takes these options, and all options that were met on the way, by topic.

    Args:
        graph, profile, chips, learns: those of `make_plans`.
        options: by topic, the alternative that is taken where it is offered.
        defers: leave out the exact replacements that come after learning: a convolution learns better than the dense weights
            that it is written out as, and a neuron better than its two copies.
        topics: of the replacements that are made; None: all.
        watch: is called after each step, whose networks are not kept: of a large one they would fill the memory.
    """
    walk = _walk(graph, profile, options, learns=learns, defers=defers, topics=topics, watch=watch)
    return _judge(walk, graph, profile, chips=chips, learns=learns)


def _walk(
    graph: SNNGraph,
    profile: HardwareProfile,
    options: Options,
    *,
    learns: bool,
    defers: bool = False,
    topics: Collection[str] | None = None,
    watch: Watch | None = None,
) -> _Walk:
    """Make the replacements, one after another, until there is none left."""
    graph = merge_parts(collapse_equal_values(graph))
    steps: list[Step] = []
    failed: dict[str, None] = {}
    seen: dict[str, set[str]] = {}
    for _ in range(MAX_REWRITES):
        offers = [offer for offer in _list_offers(graph, profile, options) if learns or offer.kind != "learnt"]
        offers = [offer for offer in offers if topics is None or offer.topic in topics]
        for offer in offers:
            if offer.option:
                seen.setdefault(offer.topic, set()).add(offer.option)
        made = _take_first([offer for offer in _order(offers, options) if not (defers and is_deferred(offer))], graph, failed)
        if made is None:
            break
        before, (offer, graph) = graph, made
        steps.append(Step(replacement=offer, neurons=graph.neurons - before.neurons))
        if watch is not None:
            watch(offer, before, graph)
    if any(step.replacement.kind == "learnt" for step in steps):  # all weights learn then
        graph = replace(graph, metadata={key: value for key, value in graph.metadata.items() if key != FIXED_WEIGHTS})
    if graph[graph.output].spikes and any(_is_learnt_readout(step.replacement) for step in steps):  # its spikes are counted
        graph = state_spikes(graph)
    return _Walk(steps=tuple(steps), graph=graph, options=options, failed=tuple(failed), seen=seen)


def _judge(
    walk: _Walk, given: SNNGraph, profile: HardwareProfile, *, chips: int, learns: bool
) -> tuple[Plan, dict[str, set[str]]]:
    """Return the plan with its check, and the options met; where a limit is exceeded those of pools that the chip has too."""
    report = check(walk.graph, profile, chips=chips, remedies=False)
    plan = Plan(steps=walk.steps, graph=walk.graph, report=report, options=walk.options, failed=walk.failed)
    seen = {topic: set(names) for topic, names in walk.seen.items()}
    if not walk.options and learns and any(row.status == "over" and row.limit for row in report.rows):
        for offer in find_pools(merge_parts(collapse_equal_values(given)), profile, all_pools=True):
            seen.setdefault(offer.topic, set()).add(offer.option)
    return plan, seen


def _is_learnt_readout(offer: Replacement) -> bool:
    return offer.topic == "readout" and offer.kind == "learnt"


def is_deferred(offer: Replacement) -> bool:
    """Return whether a replacement comes after learning."""
    return offer.topic == "skip" or (offer.kind == "exact" and offer.topic in ("map", "sign"))


def _take_first(offers: Iterable[Replacement], graph: SNNGraph, failed: dict[str, None]) -> tuple[Replacement, SNNGraph] | None:
    """Make the first replacement that can be made, and return it with the network; those before it are added to `failed`."""
    for offer in offers:
        try:
            return offer, offer.rewrite(graph)
        except SpearError as error:  # a rewrite beyond a limit of its own: the next alternative is taken
            failed[f"{offer.what} by {offer.by}: {error}"] = None
    return None


def _list_offers(graph: SNNGraph, profile: HardwareProfile, options: Options) -> list[Replacement]:
    offers = list(find_replacements(graph, profile))
    if options.get("pool", FOLD) != FOLD:
        offers += find_pools(graph, profile, all_pools=True)
    return offers


def _order(offers: Iterable[Replacement], options: Options) -> list[Replacement]:
    """Return offers in the order in which they are tried: exact and bounded ones, then learnt ones; signs after all others.

    An alternative that was not chosen comes behind the others of its topic: it is taken where the chosen one is not offered.
    """

    def place(offer: Replacement) -> tuple[int, int]:
        is_chosen = bool(offer.option) and options.get(offer.topic) == offer.option
        is_other = bool(offer.option) and options.get(offer.topic, offer.option) != offer.option
        # a stride has to be taken before a convolution is written out
        first = offer.topic == "input" or (offer.topic == "pool" and is_chosen)
        return (0 if first else LAST.index(offer.topic) + 2 if offer.topic in LAST else 1, 3 * is_other + KINDS.index(offer.kind))

    return sorted(offers, key=place)
