"""Tables of the page: verdict, stages, layers, resources, energy, provenance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spear_deploy.adaptation.differences import describe_difference
from spear_deploy.adaptation.replacement import join_rows
from spear_deploy.budget.energy import KEYS_OF_TERMS, STATIC_TERMS
from spear_deploy.budget.intervals import describe_energy, describe_time
from spear_deploy.budget.report import NO_NUMBER_OF_CORES
from spear_deploy.quantize.rounding import INTEGERS_COUNT
from spear_deploy.util.number_format import compact, interval, join_names, number, percent, plural, points, seconds, with_prefix

VERDICTS = {
    "fits": ("Fits", "good"),
    "does_not_fit": ("Does not fit", "bad"),
    "unchecked": ("Unchecked:", "open"),
}
STATUS_ORDER = {"over": 0, "unchecked": 1, "tight": 2, "ok": 3}
SHOWN_ROWS = 10
"""Rows of the short table of resources: all exceeded and unchecked ones, then the fullest."""
CORE_RESOURCES = ("cores", "neurons", "synapse_memory", "neuron_memory", "bias_memory", "axons_in", "axons_out")
CAPACITIES = (*CORE_RESOURCES, "synops", "energy", "latency", "events", "clock", "fan_out_mean")
"""Resources that fill up. Others, such as 8 of 8 weight bits, are not scarce at their limit."""
RESOURCE_NAMES = {"synops": "SynOps"}
"""Resources that are not written as their key."""

FILES = {
    "netx": "the integers, for lava-dl's netx loader",
    "speck": "the integers and their cores, for sinabs and samna",
    "xylo": "the integers, for rockpool and samna",
    "xylo_json": "the same numbers as lists",
    "pynn": "the script for sPyNNaker, or for Brian2",
    "pynn_npz": "populations and connections, which the script reads",
    "onnx": "the integers, for onnxruntime",
    "nir": "the pruned network in floating point, for tools that read NIR",
    "quantised": "the integers, for this package",
    "pruned": "the pruned network in floating point, for this package",
}
"""By kind, what a file of a deployment holds and who loads it; that of the chip's own tool comes first."""


def list_files(files: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the networks of a deployment: file, what it holds, its certificate and what the host computes, "" where it has none.

    Args:
        files: of `deployment.json`, by kind.
    """
    return [
        {
            "name": files[kind],
            "words": words,
            "certificate": files.get(f"{kind}_certificate", ""),
            "host": files.get(f"{kind}_host_readout", ""),
        }
        for kind, words in FILES.items()
        if kind in files
    ]


def list_lava_failures(lava: Mapping[str, Any]) -> list[str]:
    """Return a sentence where Lava's run differs from the simulator's, else nothing.

    Args:
        lava: {samples, spike_mismatches, value_mismatches, spikes_compared, first_difference} of a deployment.
    """
    parts = []
    if lava["spike_mismatches"]:
        parts.append(f"{number(lava['spike_mismatches'])} of {number(lava['spikes_compared'])} spikes")
    if lava["value_mismatches"]:
        parts.append(f"{number(lava['value_mismatches'])} values of the output")
    if not parts:
        return []
    difference = lava["first_difference"] or {}
    first = difference.get("first") or {}
    place = f"; first in layer '{difference['layer']}', step {first['step']}, sample {first['sample']}" if first else ""
    return [f"Lava and the simulator differ in {' and '.join(parts)}{place}"]


def describe_verdict(deployment: Mapping[str, Any], check: Mapping[str, Any], title: str) -> dict[str, Any]:
    """Return the verdict in words, its main figures, and what exceeds a limit or is missing."""
    word, tone = VERDICTS[deployment["verdict"]]
    failures = deployment.get("failures", list_lava_failures(deployment["lava"]))  # folders of earlier releases have none
    if failures:
        word, tone = f"Not proven: {word[0].lower()}{word[1:]}", "bad"
    over = [row for row in check["rows"] if row["status"] == "over" and row["unit"] != "thing"]
    open_rows = [row for row in check["rows"] if row["status"] == "unchecked"]
    sentences = {
        "fits": "The network keeps every limit of the chip.",
        "does_not_fit": f"{plural(len(over) + len(check['unsupported']), 'obstacle')}; what to change is below.",
        "unchecked": f"No limit is exceeded, but {plural(len(open_rows), 'resource')} could not be checked: "
        "the numbers are not published.",
    }
    return {
        "word": word,
        "tone": tone,
        "title": title,
        "sentence": sentences[deployment["verdict"]] + _describe_replaced(check.get("replaced", ())),
        "failures": failures,
        "figures": _list_figures(deployment, check),
        "over": over,
        "unsupported": check["unsupported"],
        "notes": deployment["notes"],
    }


def _describe_replaced(replaced: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on what the chip does in another way than the trained network, or an empty text."""
    if not replaced:
        return ""
    return f" {join_names([entry['layer'] for entry in replaced])} had {replaced[0]['what']}, here {replaced[0]['by']}."


def _list_figures(deployment: Mapping[str, Any], check: Mapping[str, Any]) -> list[dict[str, str]]:
    accuracy, synops, lava = deployment["accuracy"], deployment["synops"], deployment["lava"]
    limit = deployment["cores_limit"]
    energy = deployment["energy"]
    time, evidence = describe_time(deployment)
    return [
        {
            "name": "Accuracy on the chip",
            "value": percent(accuracy["quantised"], 1),
            "note": f"{points(accuracy['quantised'] - accuracy['dense'])} against the trained network; test split",
        },
        {
            "name": "SynOps per inference",
            "value": number(synops["achieved"]),
            "note": f"{percent(synops['achieved'] / synops['budget'], 1)} of the budget, "
            f"{percent(synops['achieved'] / synops['dense']) if synops['dense'] else '–'} of the trained network; test split",
        },
        {
            "name": "Cores",
            "value": number(deployment["cores_used"]) + (f" of {number(limit)}" if limit else ""),
            "note": _find_scarcest(check["rows"]) if limit else _explain_no_limit(check["rows"]),
        },
        {
            "name": "Lava against our simulator",
            "value": f"{number(lava['spike_mismatches'])} differ" if lava["samples"] else "not run",
            "note": f"of {compact(lava['spikes_compared'])} spikes compared, {plural(lava['samples'], 'sample')}"
            if lava["samples"]
            else "Lava has no models of this chip's integers",
            "tone": "bad" if list_lava_failures(lava) else "",
        },
        {"name": "Energy per inference", **_write_energy(energy)},
        {
            "name": "Time per inference",
            "value": time or "not known",
            "note": f"estimated; {evidence}".rstrip("; ") if time else _unpublished(check["latency"]["missing"]),
        },
    ]


def _write_energy(energy: Mapping[str, Any]) -> dict[str, str]:
    """Return the energy, or the interval of its dynamic part with that of the static one as a note."""
    words, evidence = describe_energy(energy)
    if not words:
        return {"value": "not known", "note": _unpublished(energy["missing"])}
    if energy["total"] is not None:
        return {"value": words, "note": f"{evidence}; terms below" if evidence else "terms below"}
    first, _, rest = words.partition(", ")
    return {"value": first, "note": f"{rest}; {evidence}" if rest else evidence}


def _explain_no_limit(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return why a chip has no number of cores, in the words of its verdict."""
    is_unpublished = any(row["resource"] == "cores" and row["status"] == "unchecked" for row in rows)
    return NO_NUMBER_OF_CORES if is_unpublished else "no limit"


def _find_scarcest(rows: Sequence[Mapping[str, Any]]) -> str:
    row = max((row for row in rows if row["resource"] in CORE_RESOURCES), key=_fullness, default=None)
    if row is None or not _fullness(row):
        return ""
    return f"scarcest: {row['resource'].replace('_', ' ')} of {row['where']}, {percent(_fullness(row))}"


def _fullness(row: Mapping[str, Any]) -> float:
    """Return used / limit of a resource that fills up, else 0."""
    if row["resource"] not in CAPACITIES or row["used"] is None or not row["limit"]:
        return 0.0
    return float(row["used"] / row["limit"])


def describe_floating_point(deployment: Mapping[str, Any]) -> str:
    """Return what an accuracy in floating point says where the integers alone count; else nothing.

    Files of earlier releases have a note in place of the key.

    >>> describe_floating_point({"floating_point_counts": False, "notes": []})
    'in floating point, which this chip does not compute: its integers count'
    >>> describe_floating_point({"floating_point_counts": True, "notes": []})
    ''
    """
    if deployment.get("floating_point_counts", INTEGERS_COUNT not in deployment["notes"]):
        return ""
    return "in floating point, which this chip does not compute: its integers count"


def list_stages(deployment: Mapping[str, Any], layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return accuracy and SynOps at each stage."""
    accuracy, synops = deployment["accuracy"], deployment["synops"]
    lava, is_adapted = deployment["lava"], "adaptation" in deployment["files"]
    floating = describe_floating_point(deployment)
    longest = max(synops["dense"], synops["budget"], layers["pruned"]["synops"], synops["achieved"]) or 1
    rows = [
        (
            *(("Adapted", floating or "what the chip has") if is_adapted else ("Trained", "the given network")),
            accuracy["dense"],
            synops["dense"],
        ),
        ("Pruned and fine-tuned", floating or "floating point", accuracy["pruned"], layers["pruned"]["synops"]),
        ("Integers of the chip", "our simulator", accuracy["quantised"], synops["achieved"]),
        *([("Integers on Lava", plural(lava["samples"], "sample"), accuracy["lava"], None)] if lava["samples"] else []),
    ]
    change = points(accuracy["quantised"] - accuracy["dense"])
    outcome = f"accuracy changes by {change}." if change != points(0.0) else "accuracy stays the same."
    outcome = f"accuracy in its integers is {percent(accuracy['quantised'], 1)}." if floating else outcome
    saved = 1 - synops["achieved"] / synops["dense"] if synops["dense"] else 0.0
    return {
        "rows": [
            {
                "name": name,
                "note": note,
                "accuracy": percent(share, 2),
                "change": "" if n == 0 else points(share - accuracy["dense"]),
                "synops": number(cost) if cost is not None else "as above",
                "width": None if cost is None else round(100 * cost / longest, 2),
                "trained": n == 0,
            }
            for n, (name, note, share, cost) in enumerate(rows)
        ],
        "budget": round(100 * synops["budget"] / longest, 2),
        "budget_text": number(synops["budget"]),
        "samples": layers["dense"]["samples"],
        "steps": layers["dense"]["steps"],
        "sentence": f"On the chip an inference takes {percent(saved)} fewer synaptic operations than in the trained network, and "
        + outcome
        + _describe_steps(deployment.get("steps"))
        + describe_bits(deployment.get("weight_bits")),
        "norse": deployment["norse"],
    }


def _describe_steps(steps: Mapping[str, int] | None) -> str:
    """Return a sentence where a network runs on fewer time steps than it was trained on.

    >>> _describe_steps({"trained": 8, "deployed": 4}), _describe_steps({"trained": 8, "deployed": 8}), _describe_steps(None)
    (' It runs on 4 time steps, trained on 8.', '', '')
    """
    if steps is None or steps["deployed"] == steps["trained"]:
        return ""
    return f" It runs on {steps['deployed']} time steps, trained on {steps['trained']}."


def describe_bits(bits: Mapping[str, Any] | None) -> str:
    """Return a sentence where layers have other bits of a weight than the chip's default.

    >>> describe_bits({"default": 8, "layers": {"fc1": 4, "fc2": 2}}), describe_bits({"default": 8, "layers": {}})
    (" Weights of fc1 have 4 bits and of fc2 2; the chip's default is 8.", '')
    """
    if not bits or not bits["layers"]:
        return ""
    (first, width), *others = bits["layers"].items()
    texts = [f"of {first} have {width} bits", *(f"of {name} {number}" for name, number in others)]
    return f" Weights {join_names(texts)}; the chip's default is {bits['default']}."


def _write_difference(difference: Mapping[str, Any] | None) -> str:
    return f"spikes differ first: {describe_difference(difference)}" if difference else ""


def describe_adaptation(adaptation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the steps from the trained network to one that the chip takes, and what each layer has instead; None without any."""
    if adaptation is None:
        return None
    steps, before = [], None
    for row in adaptation["waterfall"]:
        share, made = row["accuracy"], ": ".join(part for part in (row["kind"], ", ".join(row["layers"])) if part)
        steps.append(
            {
                "name": row["after"][:1].upper() + row["after"][1:],
                "note": "; ".join(part for part in (made, _write_difference(row.get("differs"))) if part),
                "accuracy": percent(share, 2),
                "change": "" if before is None else points(share - before),
                "width": round(100 * share, 2),
            }
        )
        before = share
    accuracy, replaced = adaptation["accuracy"], adaptation["replaced"]
    made = f"{plural(len(replaced), 'replacement')} ({count_kinds(replaced)})"
    return {
        "steps": steps,
        "replaced": join_rows(replaced),
        "sentence": f"{adaptation['chip']} lacks parts of the trained network. {made} took it from "
        f"{percent(accuracy['trained'], 2)} to {percent(accuracy['adapted'], 2)}; what follows on this page starts there.",
        "hosts": [f"{row['layer']}: {row['by']}." for row in replaced if "host" in row["by"]],
    }


def count_kinds(replaced: Sequence[Mapping[str, Any]]) -> str:
    """Return how many replacements are of each kind.

    >>> count_kinds([{"kind": "learnt"}, {"kind": "exact"}, {"kind": "learnt"}])
    '1 exact, 2 learnt'
    """
    kinds = [row["kind"] for row in replaced]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("exact", "bounded", "learnt") if kind in kinds)


def list_widths(deployment: Mapping[str, Any], layers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the channels of each group before and after, with the shape of the trained layer that names it."""
    shapes = {row["name"]: row["shape"] for row in layers["dense"]["layers"]}
    longest = max((before for before, _ in deployment["widths"].values()), default=1)
    return [
        {
            "name": name,
            "shape": shapes.get(name),
            "before": before,
            "after": after,
            "outer": round(100 * before / longest, 2),
            "inner": round(100 * after / longest, 2),
            "share": percent(after / before),
        }
        for name, (before, after) in deployment["widths"].items()
    ]


def list_activity(layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return for each layer shape, weights, SynOps, spikes and rate, of the trained network and on the chip."""
    before, after = layers["dense"], layers["quantised"]
    names = dict.fromkeys(row["name"] for row in [*before["layers"], *after["layers"]])
    by_name = [{row["name"]: row for row in part["layers"]} for part in (before, after)]
    longest = max((row["synops"] or 0 for part in by_name for row in part.values()), default=0) or 1
    rows = []
    for name in names:
        old, new = by_name[0].get(name), by_name[1].get(name)
        if any(row and (row["synops"] or row["spikes"] is not None or row["weights"]) for row in (old, new)):
            rows.append(
                {
                    "name": name,
                    "old": old,
                    "new": new,
                    "old_width": round(100 * (old["synops"] or 0) / longest, 2) if old else 0,
                    "new_width": round(100 * (new["synops"] or 0) / longest, 2) if new else 0,
                }
            )
    return {"rows": rows, "input": after["input"], "kind": after["input_kind"], "macs": after["macs"], "steps": after["steps"]}


def list_resources(check: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows of the check: a short list, exceeded and fullest first, and all rows if there are more."""

    def add_share(row: Mapping[str, Any]) -> dict[str, Any]:
        share = row["used"] / row["limit"] if row["used"] is not None and row["limit"] else None
        width = round(min(100.0, 100 * (share or 0.0)), 2)
        return {
            **row,
            "resource": RESOURCE_NAMES.get(row["resource"], row["resource"].replace("_", " ")),
            "share": share,
            "width": width,
            "fullness": _fullness(row),
        }

    rows = [add_share(row) for row in check["rows"]]
    ranked = sorted(rows, key=lambda row: (STATUS_ORDER[row["status"]], -row["fullness"]))
    first = max(SHOWN_ROWS, sum(row["status"] in ("over", "unchecked") for row in ranked))
    return {"first": ranked[:first], "all": rows if len(rows) > first else [], "notes": check["notes"], "count": len(rows)}


def list_energy(check: Mapping[str, Any], unpublished: Collection[str]) -> dict[str, Any]:
    """Return the terms of the energy, and the missing ones with what they lack.

    Args:
        check: of a deployment.
        unpublished: keys of the profile without a value.
    """
    energy = check["energy"]
    longest = max((term["joules"] for term in energy["terms"]), default=0.0) or 1.0
    return {
        "terms": [
            {
                **term,
                "text": with_prefix(term["joules"], "J") if term["joules"] else "0 J",
                "width": round(100 * term["joules"] / longest, 2),
            }
            for term in energy["terms"]
        ],
        "total": None if energy["total"] is None else with_prefix(energy["total"], "J"),
        "missing": [_explain_missing(name, unpublished, check["latency"]["missing"]) for name in energy["missing"]],
        "measured": energy["measured"],
        "intervals": _list_intervals(energy),
        "effective": energy.get("effective_ops"),
        "neuron_ops": check.get("neuron_ops"),
        "latency": check["latency"],
    }


def _explain_missing(term: str, unpublished: Collection[str], untimed: Sequence[str]) -> dict[str, str]:
    """Return why a term has no number, and the option that supplies its prices; a power that is known lacks the time."""
    keys = [key for key in (f"energy.{price}" for price in KEYS_OF_TERMS.get(term, ())) if key in unpublished]
    if keys:
        return {"name": term, "why": "not published; to supply it:", "option": " ".join(f"--set {key}=…" for key in keys)}
    if term in STATIC_TERMS:
        return {"name": term, "why": f"known power, but no time; not published: {', '.join(untimed)}", "option": ""}
    return {"name": term, "why": "not published: topology" if term == "hop" else "not published", "option": ""}


def _list_intervals(energy: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return dynamic and static energy between their ends, with product, evidence and source."""
    parts = energy.get("interval_j") or {}
    return [
        {
            "name": name,
            "text": interval(parts[name][0], parts[name][1], "J"),
            **{key: parts[key][name] for key in ("how", "evidence", "source")},
        }
        for name in ("dynamic", "static")
        if parts.get(name) is not None
    ]


def describe_origin(provenance: Mapping[str, Any], deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance, with the facts that the user supplied apart from those of the profile."""
    chip = provenance["chip"]
    spent = deployment["seconds"]
    return {
        **provenance,
        "made": provenance["made"].replace("T", " ").replace("+00:00", " UTC"),
        "supplied": [fact for fact in chip["facts"] if fact["evidence"] == "user"],
        "facts": [fact for fact in chip["facts"] if fact["evidence"] != "user"],
        "spent": [(name, seconds(value)) for name, value in spent.items()],
        "total": seconds(sum(spent.values())),
        "seed": deployment["seed"],
    }


def _unpublished(names: Sequence[str]) -> str:
    return f"no number for {join_names(names)}" if len(names) < 3 else f"{len(names)} needed numbers are not published"
