"""Verdict of a network on a chip, and order of many chips."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from spear_deploy.errors import DataError
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.inputs import (
    NETWORK_OPTIONS,
    Chip,
    Net,
    apply_defaults,
    check_options,
    load,
    profile,
    resolve_chip,
    split_options,
)
from spear_deploy.simulator import SpikeCounts

if TYPE_CHECKING:
    from spear_deploy.budget.budget_file import BudgetFile
    from spear_deploy.budget.chip_ranking import Ranked, RankKey
    from spear_deploy.budget.report import BudgetReport
    from spear_deploy.util.workers import Workers


def check(
    net: Net,
    chip: Chip | None = None,
    *,
    chips: int | None = None,
    activity: SpikeCounts | float | str | os.PathLike[str] | None = None,
    budget: BudgetFile | str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    name: str | None = None,
    **options: Any,
) -> BudgetReport:
    """Check whether a network fits a chip, resource by resource, with a remedy for each overrun.

    Args:
        net: a file, a name, a torch model, `package.module:function` or an `SNNGraph` (`pipeline.inputs`).
        chip: name or file of a profile, or a `HardwareProfile`; the budget file may name it.
        chips: how many chips there are; by default those of the board, or 1.
        activity: spike counts, a rate (spikes per neuron and step), or a file that `recordings.read_activity` reads: a recording,
            an input, or `activity.npz` of a deployment; without it, resources that depend on activity are not checked.
        budget: a file of limits (`budget_file`); arguments take precedence over the file.
        overrides: facts of the profile to replace, by dotted key.
        name: the network and its options as on a command line, for the commands that remedies name.
        options: limits: `cores`; and per inference `synops`, `energy_j` (J) and `latency_s` (s). How the network is read: those
            of `load`.

    Returns:
        The report: `verdict` ("fits", "does_not_fit" or "unchecked"), `rows` with used, limit and unit of each resource,
        `unsupported`, `cores_used`, `energy` and `latency` of an inference; `to_json()` is plain data, a notebook shows a table.

    Raises:
        DataError: no chip is named.
        TypeError: there is no such option.
    """
    from spear_deploy.adaptation.reach import exceeds_fixed, find_reach, name_replacements
    from spear_deploy.budget.budget_file import BudgetFile, UserLimits, read_budget
    from spear_deploy.budget.check import check as check_graph
    from spear_deploy.quantize.fold import fold_chained_weights

    check_options(options, [*(limit.name for limit in fields(UserLimits)), *NETWORK_OPTIONS], "check")
    reading, limits = split_options(options, NETWORK_OPTIONS)
    stated = budget if isinstance(budget, BudgetFile) else BudgetFile() if budget is None else read_budget(budget)
    if (chip := chip or stated.chip) is None:
        raise DataError("no chip is named; give one, e.g. loihi2, or name it in the budget file")
    graph = load(net, **apply_defaults(net, reading, stated.network))
    graph = fold_chained_weights(graph)  # weights that do not fold have a row of their own
    chips, overrides = stated.chips if chips is None else chips, {**stated.overrides, **(overrides or {})}
    target, board_chips = resolve_chip(chip, overrides)
    chips_there = board_chips if chips is None else chips
    report = check_graph(
        graph,
        target,
        chips=chips_there,
        activity=_read_activity(stated.activity if activity is None else activity, graph),
        limits=stated.limits.override(UserLimits(**limits)),
    )
    if not (report.unsupported or exceeds_fixed(report)) or find_chip_format(graph):
        return report
    reach = find_reach(graph, target, chips=chips_there, report=report)
    named = os.fspath(chip) if isinstance(chip, (str, os.PathLike)) else report.profile
    words = repeat_chip(named, chips=chips, overrides=overrides)
    return name_replacements(report, reach, net=name or _name(net), chip=words)


def _name(net: Net) -> str:
    """Return a network as in a command."""
    return shlex.quote(os.fspath(net)) if isinstance(net, (str, os.PathLike)) else "NET"


def repeat_chip(chip: str, *, chips: int | None = None, overrides: Mapping[str, Any] | None = None) -> str:
    """Return what follows `--chip` in a command on the same chip: a number of chips as the board that carries it, and `--set`.

    >>> repeat_chip("loihi2", overrides={"core.neurons": 100}), repeat_chip("spinnaker1", chips=48)
    ('loihi2 --set core.neurons=100', 'spinnaker1:spin5')
    """
    if chips is not None and chips > 1 and ":" not in chip:
        boards = profile(chip).chip.boards
        chip = next((f"{chip}:{board}" for board, fact in boards.items() if fact.max_value == chips), chip)
    return shlex.join([chip, *(word for key, value in (overrides or {}).items() for word in ("--set", f"{key}={value}"))])


def suggest_command(
    net: str,
    chip: str,
    report: BudgetReport,
    *,
    bits: str | None = None,
    chips: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    activity: float | str | None = None,
    quantized_for: str | None = None,
) -> tuple[str, str]:
    """Return the command to try next, after a network that does not fit, and what it is for; both empty where there is none.

    `prune` where the chip is full, `adapt` where what it lacks can be replaced, `rank` where it cannot, where there is no
    integer format here, or where a limit is exceeded that no width changes: inputs, outputs, layers that a layer goes to. A
    quantised network is not pruned, and where it is quantised for another chip, no chip of this family takes it.

    Args:
        net: the network and its options as on the command line.
        chip: the chip as on the command line.
        report: of `check`.
        bits: of weights as on the command line; only `prune` takes them.
        chips, overrides: number of chips and facts of the profile as on the command line.
        activity: a rate or a file as on the command line; only `rank` takes it.
        quantized_for: chip format of a quantised network (`find_chip_format`).
    """
    from spear_deploy.adaptation.reach import exceeds_fixed
    from spear_deploy.budget.remedies import LAYER_COUNTS
    from spear_deploy.quantize import FORMATS

    words, family = repeat_chip(chip, chips=chips, overrides=overrides), profile(chip).meta.family
    if family in FORMATS and quantized_for not in (None, family):
        return "", ""
    adaptation = next((note for note in report.notes if note.startswith("adapt: ") and "` replaces what " in note), None)
    if adaptation is not None:
        learns = " --data DATA" if "--data DATA" in adaptation else ""
        return f"spear-deploy adapt {net} --chip {words}{learns} --out adapted", "replace what the chip lacks"
    is_wiring = bool(report.over) and all(row.resource in LAYER_COUNTS for row in report.over)
    if report.unsupported or exceeds_fixed(report) or is_wiring or family not in FORMATS:
        spikes = "" if activity is None else f" --activity {shlex.quote(str(activity))}"
        return f"spear-deploy rank {net}{spikes}", "which chip takes it"  # facts of one chip are none of the others
    if quantized_for is not None:
        return "", ""
    stated = ("" if bits is None else f" --bits {shlex.quote(bits)}") + _state_limits(report)
    one = "" if (chips or 1) == 1 or ":" in words.split()[0] else f" one chip: no board of {report.profile} carries {chips}"
    return f"spear-deploy prune {net} --chip {words}{stated} --data DATA --out pruned", f"make it smaller, until it fits{one}"


def _state_limits(report: BudgetReport) -> str:
    """Return the limits of the user that a network exceeds, as options of `prune`, which knows those of the chip."""
    from spear_deploy.budget.core_rows import CHIP

    options = {"synops": "--synops", "energy": "--energy-uj", "latency": "--latency-ms", "cores": "--cores"}
    units = {"energy": 1e-6, "latency": 1e-3}
    return "".join(
        f" {options[row.resource]} {row.limit / units.get(row.resource, 1):.12g}"
        for row in report.over
        if row.where == CHIP and row.resource in options and row.limit is not None
        if (row.resource, row.limit) != ("cores", report.cores_limit)
    )


def rank(
    net: Net,
    chips: Chip | Iterable[Chip] | None = None,
    *,
    activity: SpikeCounts | float | str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    sort: RankKey = "fit",
    workers: Workers | int | str | None = None,
    **options: Any,
) -> list[Ranked]:
    """Check a network against many chips, and return the reports, the best first.

    Args:
        net: a file, a name, a torch model, `package.module:function` or an `SNNGraph` (`pipeline.inputs`).
        chips: one or several profiles, by name, file, or chip:board; "all", the default, are those that come with the toolkit.
        activity: as in `check`.
        overrides: facts to replace in every profile, by dotted key.
        sort: "fit", or "energy"; chips whose intervals of energy overlap are tied.
        workers: where chips are checked at the same time; None: one after the other in this process.
        options: of `load`.

    Returns:
        For each `chip` (as named in `chips`) its `verdict`, the `report` of `check`, and what is `missing`, in words.

    Raises:
        TypeError: there is no such option.
    """
    from spear_deploy.adaptation.reach import add_reach
    from spear_deploy.budget.chip_ranking import rank as rank_graph
    from spear_deploy.hardware.profile import HardwareProfile, list_profiles
    from spear_deploy.quantize.fold import fold_chained_weights
    from spear_deploy.util.workers import read_workers

    check_options(options, NETWORK_OPTIONS, "rank")
    graph = fold_chained_weights(load(net, **options))
    if isinstance(chips, (str, os.PathLike, HardwareProfile)):  # one: a text and a profile are iterable, too
        chips = [chips]
    named = [n for chip in (["all"] if chips is None else chips) for n in (list_profiles() if chip == "all" else [chip])]
    named = [chip for number, chip in enumerate(named) if chip not in named[:number]]
    targets = [resolve_chip(chip, overrides) for chip in named]
    ranking = rank_graph(graph, targets, activity=_read_activity(activity, graph), sort=sort, workers=read_workers(workers))
    names = [
        profile.name if isinstance(chip, HardwareProfile) else os.fspath(chip)
        for chip, (profile, _) in zip(named, targets, strict=True)
    ]
    return add_reach([replace(entry, chip=names[entry.target]) for entry in ranking], graph, targets)


def _read_activity(activity: SpikeCounts | float | str | os.PathLike[str] | None, graph: SNNGraph) -> SpikeCounts | float | None:
    from spear_deploy.simulator.recordings import read_activity

    return read_activity(activity, graph) if isinstance(activity, (str, os.PathLike)) else activity
