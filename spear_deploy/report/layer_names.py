"""Layers on the page of a deployment; bare numbers with kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from spear_deploy.budget.core_rows import TOGETHER
from spear_deploy.network.labels import add_kinds, is_bare, join_kinds
from spear_deploy.report.folder import Evidence
from spear_deploy.util.number_format import format_shape


def label_evidence(evidence: Evidence) -> Evidence:
    """Return the files of a deployment with the labels of layers in place of their names.

    Where a shape stands beside the name, the label is name and kind alone. What lies on the chip has the kinds of the trained
    network and the shapes of the pruned one.
    """
    stages = [part for part in evidence.layers.values() if isinstance(part, Mapping)]
    rows = {row["name"]: row for part in reversed(stages) for row in part["layers"]}
    short = {name: _join(name, row) for name, row in rows.items()}
    labels = {name: _join(name, row, row["shape"]) for name, row in rows.items()}
    shapes = {row["name"]: row["shape"] for part in stages for row in part["layers"]}
    on_chip = {name: _join(name, row, shapes[name]) for name, row in rows.items()}
    if evidence.adaptation is not None:
        labels = {**evidence.adaptation.get("labels", {}), **labels}
    if all(label == name for name, label in labels.items()):
        return evidence
    deployment, check, cores = evidence.deployment, evidence.check, evidence.cores
    return replace(
        evidence,
        deployment={
            **deployment,
            "widths": {short.get(name, name): pair for name, pair in deployment["widths"].items()},
            **({"weight_bits": _label_bits(deployment["weight_bits"], short)} if deployment.get("weight_bits") else {}),
            "notes": [add_kinds(note, labels) for note in deployment["notes"]],
            **({"failures": [add_kinds(text, labels) for text in deployment["failures"]]} if "failures" in deployment else {}),
        },
        check=_label_check(check, on_chip),
        layers={
            key: {**part, "layers": [{**row, "name": short[row["name"]]} for row in part["layers"]]}
            if isinstance(part, Mapping)
            else part
            for key, part in evidence.layers.items()
        },
        cores={
            **cores,
            "layers": [on_chip.get(name, name) for name in cores["layers"]],
            "work": cores.get("work") and add_kinds(cores["work"], on_chip),
        },
        raster=_label_keys(evidence.raster, on_chip),
        adaptation=None if evidence.adaptation is None else label_adaptation(evidence.adaptation, labels),
    )


def _join(name: str, row: Mapping[str, Any], shape: Sequence[int] = ()) -> str:
    """Return name, kind and shape of a layer, or its name where that has letters."""
    kind = join_kinds(row["synapse"], row["neuron"])
    return " ".join([name, kind, *([format_shape(shape)] if shape else [])]) if kind and is_bare(name) else name


def _label_check(check: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    def label_row(row: Mapping[str, Any]) -> dict[str, Any]:
        where = TOGETHER.join(labels.get(name, name) for name in row["where"].split(TOGETHER))
        return {**row, "where": where, "remedy": row["remedy"] and add_kinds(row["remedy"], labels)}

    def label_finding(row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "layer": labels.get(row["layer"], row["layer"])}

    return {
        **check,
        "rows": [label_row(row) for row in check["rows"]],
        "unsupported": [label_finding(row) for row in check["unsupported"]],
        "replaced": [label_finding(row) for row in check.get("replaced", ())],
        "notes": [add_kinds(note, labels) for note in check["notes"]],
    }


def label_adaptation(adaptation: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts of an adaptation with labels of layers in place of names."""

    def label_step(row: Mapping[str, Any]) -> dict[str, Any]:
        differs = row.get("differs")
        if differs:
            differs = {**differs, "layer": labels.get(differs["layer"], differs["layer"])}
        return {**row, "layers": [labels.get(name, name) for name in row["layers"]], "differs": differs}

    return {
        **adaptation,
        "replaced": [{**row, "layer": labels.get(row["layer"], row["layer"])} for row in adaptation["replaced"]],
        "waterfall": [label_step(row) for row in adaptation["waterfall"]],
    }


def _label_bits(bits: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    return {**bits, "layers": {labels.get(name, name): width for name, width in bits["layers"].items()}}


def _label_keys(raster: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the arrays `<layer>.<side>` under the labels of their layers."""
    named = {}
    for key, value in raster.items():
        name, _, side = key.rpartition(".")
        named[f"{labels[name]}.{side}" if name in labels else key] = value
    return named
