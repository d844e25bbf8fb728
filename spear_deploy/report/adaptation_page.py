"""Results of `adapt`: accuracy after each step, and what stands in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spear_deploy.adaptation.replacement import explain_no_replacement
from spear_deploy.network.labels import add_kinds
from spear_deploy.report.folder import ADAPTATION, ADAPTATION_KEYS, DEPLOYMENT, read_json, read_origin
from spear_deploy.report.layer_names import label_adaptation
from spear_deploy.report.pruning_page import find_results
from spear_deploy.report.tables import count_kinds, describe_adaptation
from spear_deploy.util.number_format import percent, plural

PAGE = "adapt.html"
KEYS = (*ADAPTATION_KEYS, "missing", "notes", "verdict", "headline", "files", "labels")
"""Keys that the results hold."""
FILES = {
    "adapted": "the network that uses what the chip has, to go on with",
    "integers": "the network as it lies on the chip",
    "host_readout": "the weights with which the host makes classes of the chip's spikes, for numpy",
    "facts": "all of this page as data",
}
"""What is in a file of the results."""
TITLES = {
    "fits": ("Fits {}", "good"),
    "tight": ("Fits {}, tightly", "good"),
    "does_not_fit": ("Does not fit {}", "bad"),
    "unchecked": ("Fits {} as far as is published", "open"),
}
"""By verdict, the title and its tone."""
MISSING = ("A part is missing on {}", "bad")


def holds_adaptation(folder: Path) -> bool:
    """Return whether the newest results of a folder are those of `adapt`, and not of a deployment or of `prune`."""
    facts, pruned = folder / ADAPTATION, find_results(folder)
    if not facts.exists() or (folder / DEPLOYMENT).exists():
        return False
    return pruned is None or facts.stat().st_mtime_ns >= (folder / pruned).stat().st_mtime_ns


def describe_adapted(folder: Path) -> dict[str, Any]:
    """Return all values of the template of an adaptation.

    Raises:
        FileError: the file is missing or damaged.
    """
    facts = read_json(folder / ADAPTATION, KEYS, again="adapt again")
    labels = facts["labels"]
    drawn = describe_adaptation(label_adaptation(facts, labels))
    assert drawn is not None, "there are facts"
    title, tone = MISSING if facts["missing"] else TITLES[facts["verdict"]]
    return {
        "chip": facts["chip"],
        "title": title.format(facts["chip"]),
        "tone": tone,
        "sentence": _write_sentence(facts),
        "figures": list(_list_accuracies(facts["accuracy"])),
        "steps": drawn["steps"],
        "hosts": drawn["hosts"],
        "replaced": drawn["replaced"],
        "missing": [add_kinds(text, labels) for text in facts["missing"]],
        "notes": [add_kinds(text, labels) for text in (facts["headline"], *facts["notes"])],
        "origin": read_origin(facts),
        "files": [(file, FILES[key]) for key, file in facts["files"].items() if key in FILES],
    }


def _write_sentence(facts: Mapping[str, Any]) -> str:
    rows = facts["replaced"]
    if not rows:
        return f"Nothing was replaced: {explain_no_replacement(facts)}."
    sentence = f"What {facts['chip']} lacks was replaced in {plural(len(rows), 'place')} ({count_kinds(rows)})."
    return sentence if facts["accuracy"]["trained"] is not None else f"{sentence} Without data, accuracy is not measured."


def _list_accuracies(accuracy: Mapping[str, float | None]) -> Iterable[dict[str, str]]:
    if all(share is None for share in accuracy.values()):  # without data
        return
    notes = {"trained": "the given network", "adapted": "floating point", "integers": "of the chip"}
    for name, note in notes.items():
        share = accuracy.get(name)
        yield {"name": f"Accuracy, {name}", "value": "–" if share is None else percent(share, 2), "note": note}
