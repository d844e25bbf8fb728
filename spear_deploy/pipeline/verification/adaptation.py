"""Verification of adapt.json: accuracies, verdict, cores, energy, widths, first and last step.

Networks between the trained and the adapted one are not kept: steps and accuracies between the first and the last, bounds and
notes are held by the digest of the file. So is the origin of `trained.snn`; its accuracies are derived.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_deploy.budget.check import check
from spear_deploy.data import Dataset
from spear_deploy.data.input_sums import sum_split, takes_other_input
from spear_deploy.errors import FileError
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.network.host_readout import has_host_readout
from spear_deploy.pipeline import api, stages
from spear_deploy.pipeline.adapt_stage import has_to_change
from spear_deploy.pipeline.adaptation.results import ADAPTED, FACTS, TRAINED
from spear_deploy.pipeline.adaptation.waterfall import STEP_SAMPLES
from spear_deploy.pipeline.verification.failures import Failures, read_stated
from spear_deploy.training.evaluation import evaluate

if TYPE_CHECKING:
    from spear_deploy.pipeline.stages import Task


@dataclass(frozen=True, kw_only=True)
class DerivedAdaptation:
    """What adapt.json should hold.

    Attributes:
        facts: by key.
        first, last: accuracy of the trained and the adapted network on the samples of the waterfall.
        lacks: whether the chip lacks a part of the trained network, or has given its readout to the host.
        channels: of the prunable groups of the trained network, by group.
    """

    facts: dict[str, Any]
    first: float
    last: float
    lacks: bool
    channels: dict[str, int]


def derive_adaptation(place: Path, task: Task, data: str | os.PathLike[str] | Dataset) -> DerivedAdaptation:
    """Measure the trained network and the one that was deployed as the adaptation did."""
    trained, adapted = api.load(place / TRAINED), api.load(place / stages.DENSE)
    test, settings, profile, chips = task.test, task.settings, task.inputs.profile, task.inputs.chips
    if takes_other_input(adapted):  # the data of the task are in the form that the deployed network takes
        test = api.data(data, trained, seed=settings.seed, steps=settings.steps, encoding=settings.encoding).test
    after, head = evaluate(adapted, sum_split(test, adapted)), test.head(STEP_SAMPLES)
    report = check(adapted, profile, chips=chips, activity=after.counts)
    facts = {
        "chip": profile.name,
        "adapted_digest": hash_network(adapted),
        "accuracy": {"trained": evaluate(trained, test).accuracy, "adapted": after.accuracy, "integers": None},
        "missing": [],
        "verdict": report.verdict,
        "headline": report.headline,
        "cores_used": report.cores_used,
        "cores_limit": report.cores_limit,
        "energy": report.energy.to_json(),
        "files": {"adapted": ADAPTED, "facts": FACTS},
    }
    return DerivedAdaptation(
        facts=json.loads(json.dumps(facts)),
        first=evaluate(trained, head).accuracy,
        last=evaluate(adapted, sum_split(head, adapted)).accuracy,
        lacks=has_host_readout(adapted) or has_to_change(trained, profile, chips=chips),
        channels={group.name: group.channels for group in list_prunable_groups(trained)},
    )


def compare_adaptation(folder: Path, derived: DerivedAdaptation, failures: Failures, *, same_code: bool) -> None:
    """Compare adapt.json with the derived values, and its widths with the replacements that it lists."""
    try:
        stated = read_stated(folder / FACTS)
    except (FileError, ValueError, RecursionError):
        stated = None
    failures.compare_keys(FACTS, stated, derived.facts, later=() if same_code else derived.facts)
    failures.checked += 1
    if not derived.lacks:
        failures.add(TRAINED, "parts", "some that the chip lacks", "none that the chip lacks")
    if not isinstance(stated, dict) or not same_code:
        return
    failures.compare(FACTS, stated.get("widths"), _list_widths(stated.get("replaced"), derived.channels), "widths")
    rows = stated.get("waterfall")
    if rows == []:  # what needs no learning is not measured by step
        return
    ends = (0, derived.first), (-1, derived.last)
    for index, accuracy in ends:
        row = rows[index] if isinstance(rows, list) else None
        number = 0 if index == 0 or not isinstance(rows, list) else len(rows) - 1
        failures.compare_keys(FACTS, row, {"accuracy": accuracy}, f"waterfall[{number}]")


def _list_widths(replaced: Any, channels: dict[str, int]) -> dict[str, Any]:
    """Return widths by group as the list of replacements states them, from the width of the trained network on."""
    widths: dict[str, Any] = {}
    for row in replaced if isinstance(replaced, list) else []:
        name, words = (row.get("layer"), str(row.get("by")).split()) if isinstance(row, dict) else (None, [])
        if not isinstance(name, str) or name not in channels or row.get("what") != f"{channels[name]} channels":
            continue
        if len(words) == 2 and words[1] == "channels" and words[0].isdecimal() and len(words[0]) < 10:
            widths[name] = [channels[name], int(words[0])]
    return widths
