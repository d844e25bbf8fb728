"""Files and facts of an adapted network, measured on the test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spear_deploy.adaptation.differences import find_first_difference
from spear_deploy.adaptation.few_values import find_few_values
from spear_deploy.adaptation.host import can_move_readout, move_readout
from spear_deploy.adaptation.learn import find_loss
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.budget.check import check
from spear_deploy.budget.report import BudgetReport
from spear_deploy.budget.report_tables import write_resource
from spear_deploy.data import Dataset
from spear_deploy.data.input_sums import sum_inputs, sum_split
from spear_deploy.errors import QuantizationError, UnsupportedError
from spear_deploy.interchange.host_readout_file import READOUT_FILE, write_host_readout
from spear_deploy.interchange.snn_file import hash_network, read_snn, write_snn
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import has_host_readout
from spear_deploy.network.labels import label_layers
from spear_deploy.pipeline.adaptation.task import CHIP, Adapted, AdaptTask
from spear_deploy.pipeline.preflight import CheckedInputs
from spear_deploy.pipeline.readout_fit import advise_host, describe_host_readout, describe_traffic
from spear_deploy.quantize import FORMATS
from spear_deploy.report.adaptation_page import PAGE
from spear_deploy.simulator import SpikeCounts
from spear_deploy.training.evaluation import evaluate
from spear_deploy.util.number_format import plural, quantity

TRAINED, ADAPTED, INTEGERS, FACTS = "trained.snn", "adapted.snn", "integers.snn", "adapt.json"
RESULTS = (ADAPTED, INTEGERS, FACTS, PAGE, READOUT_FILE)
"""Files that `adapt` writes."""
MAX_EXCEEDED = 3
"""Limits that are named where a network exceeds them."""


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """An adapted network on the test split.

    Attributes:
        report: check of the network that the chip holds, its integers where there are any.
        counts: spikes of the same; None without data.
        trained, adapted, integers: accuracy of the three networks, where measured.
        waterfall: the row of the integers, where there are any.
        missing: why there are no integers, where they are refused.
        notes: sentences.
    """

    report: BudgetReport
    counts: SpikeCounts | None = None
    trained: float | None = None
    adapted: float | None = None
    integers: float | None = None
    waterfall: tuple[Mapping[str, Any], ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, str]:
        """Networks that were written, by kind."""
        return {"adapted": ADAPTED, **({} if self.integers is None else {"integers": INTEGERS})}

    @property
    def lost(self) -> float:
        """Accuracy that the network on the chip has less than the trained one."""
        reached = self.adapted if self.integers is None else self.integers
        return (self.trained or 0.0) - (reached or 0.0)


def describe_adapted(adapted: Adapted, task: AdaptTask, folder: Path, *, quantises: bool = True) -> dict[str, Any]:
    """Write an adapted network and, if it `quantises`, its integers and host's readout, and return all results as plain data."""
    write_snn(adapted.graph, folder / ADAPTED)
    measured = _measure(adapted, task, folder, quantises=quantises)
    report, profile, files = measured.report, task.profile, measured.files
    notes = [*_list_exceeded(report), *adapted.notes, *measured.notes]
    if task.dataset is not None and task.settings.readout == CHIP:
        loses = measured.lost > find_loss(find_few_values(profile))
        notes += advise_host(task.network) if loses or (adapted.missing and _lacks_nothing_with_host(task)) else []
    host: dict[str, Any] = {}
    if has_host_readout(adapted.graph):
        host["host_readout"] = read_out = describe_host_readout(adapted.graph, measured.counts)
        notes.append(describe_traffic(read_out))
        if quantises:
            files["host_readout"] = write_host_readout(adapted.graph, folder)
    return {
        **host,
        "chip": profile.name,
        "adapted_digest": hash_network(adapted.graph),
        "labels": label_layers(task.network),
        "replaced": [dict(row) for row in adapted.rows],
        "accuracy": {name: getattr(measured, name) for name in ("trained", "adapted", "integers")},
        "waterfall": [*adapted.waterfall, *measured.waterfall],
        "missing": [*adapted.missing, *measured.missing],
        "verdict": report.verdict,
        "headline": report.headline,
        "cores_used": report.cores_used,
        "cores_limit": report.cores_limit,
        "energy": report.energy.to_json(),
        "widths": {name: list(pair) for name, pair in adapted.widths.items()},
        "notes": notes,
        "files": {**files, "facts": FACTS},
    }


def _lacks_nothing_with_host(task: AdaptTask) -> bool:
    """Return whether a chip has all that a network needs once the host has its readout."""
    if not can_move_readout(task.network):
        return False
    return not make_plans(move_readout(task.network), task.profile, chips=task.chips)[0].lacking


def _list_exceeded(report: BudgetReport) -> list[str]:
    """Return a sentence for each of the limits that are exceeded most, with the first remedy."""
    rows = sorted(report.over, key=lambda row: -(row.share or 0))
    sentences = [
        f"{write_resource(row)} of {row.place}: {quantity(row.used, row.unit)} of {quantity(row.limit, row.unit)}"
        + (f" ({row.detail})" if row.detail else "")
        + (f"; {row.remedy.split('; ')[0]}" if row.remedy else "")
        for row in rows[:MAX_EXCEEDED]
    ]
    more = f"{plural(len(rows) - MAX_EXCEEDED, 'limit')} more exceeded; `check` on the adapted network names all"
    return sentences + [more] * (len(rows) > MAX_EXCEEDED)


def _measure(adapted: Adapted, task: AdaptTask, folder: Path, *, quantises: bool) -> _Measured:
    """Measure an adapted network, and if it `quantises` write and measure its integers, where the chip's are built here."""
    family = task.profile.meta.family
    if task.dataset is None:
        return _Measured(report=adapted.report)
    floating = _measure_floating(adapted, task, task.dataset)
    if not quantises or (family in FORMATS and adapted.missing):
        return floating
    if family not in FORMATS:
        note = (
            f"integers of the {family} family are not built here, accuracy is that of floating point; to run integers, name a "
            f"family that has them ({', '.join(FORMATS)}) in the profile's meta.family"
        )
        return replace(floating, notes=(note,))
    try:
        return _measure_integers(floating, adapted.graph, task, task.dataset, folder)
    except (UnsupportedError, QuantizationError) as error:  # the network is adapted all the same
        return replace(floating, missing=(f"integers: {error}",))


def _measure_floating(adapted: Adapted, task: AdaptTask, dataset: Dataset) -> _Measured:
    trained = evaluate(task.network, dataset.test).accuracy
    after = evaluate(adapted.graph, sum_split(dataset.test, adapted.graph))
    report = check(adapted.graph, task.profile, chips=task.chips, activity=after.counts)
    return _Measured(report=report, counts=after.counts, trained=trained, adapted=after.accuracy)


def _measure_integers(floating: _Measured, graph: SNNGraph, task: AdaptTask, dataset: Dataset, folder: Path) -> _Measured:
    """Write the chip's integers of an adapted network, run them on the test split and check them."""
    inputs = CheckedInputs(network=graph, profile=task.profile, chips=task.chips, dataset=sum_inputs(dataset, graph))
    integer, split = inputs.deploy_integers(graph, inputs.dataset.test)
    run = evaluate(integer, split)
    write_snn(integer, folder / INTEGERS)
    row = {"after": f"integers of {task.profile.name}", "kind": "", "layers": [], "accuracy": run.accuracy}
    differs = find_first_difference(graph, read_snn(folder / INTEGERS), dataset.test)
    return replace(
        floating,
        report=check(integer, task.profile, chips=task.chips, activity=run.counts),
        counts=run.counts,
        integers=run.accuracy,
        waterfall=({**row, "differs": differs},),
    )
