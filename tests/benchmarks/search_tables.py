"""Markdown tables of the search benchmark from its JSON files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.pruning.search.settings import DEFAULT_METHOD, METHODS
from spear_deploy.pruning.search.synops_estimators import fit_lre, fit_per_layer

Rows = list[dict[str, Any]]
SIZES = (2, 3, 5, 10, 20, 50, 100)


DROPPED = ("settings", "best_by_evaluation")
"""Of each run: settings are those of the method, which is named."""


def write_tables(out: Path, docs: Path | None = None) -> str:
    """Write `search.md`, the raw data in one `search.json`, and `search.svg`, beside the runs or for the documentation."""
    data = gathered(out)
    text, place = tables(data), docs or out
    place.mkdir(parents=True, exist_ok=True)
    (place / "search.md").write_text(text)
    (place / "search.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")
    if any("error" not in row for row in data["runs"]):
        draw(data["runs"], place / "search.svg")
    return text


def gathered(out: Path) -> dict[str, Rows]:
    """Return everything that was measured, rounded to what can be meant."""
    runs = [{name: value for name, value in row.items() if name not in DROPPED} for row in load(out / "runs")]
    found = {"runs": runs, **{name: load(out / name) for name in ("estimator", "ladder", "speed")}}
    return _rounded(found)  # type: ignore[no-any-return]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


NOTES = {
    "accuracy": "*Dense*: before pruning. *Separate*: whether the best and the worst method differ by more than twice the "
    "mean standard "
    "deviation over seeds.",
    "budget": "*Above*: runs that use more than the budget. *Unused*: the share of the budget that is left. *Reported*: "
    "runs that say "
    "themselves that the budget is missed. *Refused*: runs that end in an error, since no plan is within the budget.",
    "cost": "Means over runs, of two processes on two busy cores: only ratios are comparable.",
    "duel": "Difference of test accuracy over pairs of the same task, budget and seed, in points, with its standard "
    "error. *Worst row*: the "
    "lowest mean of a task and a budget.",
    "controls": "Finalists of successive halving have learnt 40 batches when fine-tuning begins. Here the others learn as "
    "many more.",
    "estimator": "Error of the SynOps predicted for the network after fine-tuning, in per cent, mean / largest. *No "
    "model*: the SynOps "
    "before. *LRE*: a line through totals. *Drift*: a factor for each layer. Fitted to so many short fine-tunes, measured "
    "on others.",
    "ladder": "Spearman's rank correlation of a plan's accuracy / certainty on validation, after so many batches, with "
    "the certainty of the "
    "final network on the test split. *BN alone*: batch norm re-estimated, nothing learnt.",
    "speed": "Time of a candidate's run, and of the same network as Norse's modules, step by step.",
}
"""What the columns of each table mean."""


def tables(data: dict[str, Rows]) -> str:
    """Return the Markdown of what was measured."""
    done = [row for row in data["runs"] if "error" not in row]
    runs, controls = [row for row in done if row["method"] in METHODS], [row for row in done if row["method"] not in METHODS]
    failed = [row for row in data["runs"] if "error" in row]
    parts = ["# The search, measured", ""]
    if runs:
        seeds = ", ".join(map(str, sorted({row["seed"] for row in runs})))
        parts += [
            f"{len(runs)} runs, seeds {seeds}, `python -m tests.benchmarks.search`. Accuracies are of the test split, in "
            f"per cent, mean ± "
            "standard deviation over the seeds, each of which trains a network of its own. Budgets are shares of the "
            "SynOps of the "
            "trained network. [Tasks](index.md#tasks), [methods](../search.md#methods), raw data: [search.json](search.json).",
            "",
            "![Accuracy over the budget, a panel a task](search.svg)",
            "",
        ]
        for title, note, made in (
            ("Accuracy at equal SynOps", "accuracy", accuracy_table(runs)),
            ("Use of the budget on the test split", "budget", budget_table(runs, failed)),
            ("Cost", "cost", cost_table(runs)),
            (f"The default, {DEFAULT_METHOD}, against each other method", "duel", duel_table(runs, runs)),
        ):
            parts += [f"## {title}", "", NOTES[note], "", made, ""]
    if controls:
        title = f"{DEFAULT_METHOD} against methods that are fine-tuned as long"
        parts += [f"## {title}", "", NOTES["controls"], "", duel_table(runs, controls), ""]
    for name, title, made_of in (
        ("estimator", "Prediction of SynOps after fine-tuning", estimator_table),
        ("ladder", "Early measurements of a plan against its final network", ladder_table),
        ("speed", "Time of a candidate", speed_table),
    ):
        if data[name]:
            parts += [f"## {title}", "", NOTES[name], "", made_of(data[name]), ""]
    return "\n".join(parts)


def draw(runs: Rows, path: Path) -> None:
    """Draw accuracy against the budget, a panel a task; the default stands out."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "search"  # the same data give the same file
    from matplotlib import pyplot

    runs = [row for row in runs if "error" not in row]
    cells, methods = by(runs, "task", "method"), ordered(row["method"] for row in runs)
    tasks = sorted({row["task"] for row in runs})
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(3.6 * len(tasks), 3.4), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        axis.axhline(100 * np.mean([row["dense_accuracy"] for row in runs if row["task"] == task]), color="0.7", lw=0.8)
        for method in methods:
            points = by(cells.get((task, method), []), "budget")
            mean = [100 * np.mean([row["accuracy"] for row in group]) for group in points.values()]
            style = {"lw": 2.4, "zorder": 3} if method == DEFAULT_METHOD else {"lw": 1.1, "alpha": 0.75}
            axis.plot([budget for (budget,) in points], mean, "o-", ms=3, label=method, **style)
        axis.set_title(task)
        axis.set_xlabel("SynOps, % of the trained network")
    axes[0][0].set_ylabel("accuracy, %")
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def load(folder: Path) -> Rows:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines)


def by(rows: Rows, *names: str) -> dict[tuple[Any, ...], Rows]:
    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in names)

    return {k: list(group) for k, group in groupby(sorted(rows, key=key), key)}


def ordered(found: Iterable[str]) -> list[str]:
    known = set(found)
    return [method for method in METHODS if method in known]


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation in per cent, in a line."""
    mean = f"{100 * np.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean}\u00a0±\u00a0{100 * np.std(values, ddof=1):.1f}"


# ---------------------------------------------------------------------------------------------------------------- runs


def accuracy_table(runs: Rows) -> str:
    cells = by(runs, "task", "budget", "method")
    methods = ordered(row["method"] for row in runs)
    rows = []
    for (task, budget), group in sorted(by(runs, "task", "budget").items(), key=lambda one: (one[0][0], -one[0][1])):
        found = {m: [row["accuracy"] for row in cells.get((task, budget, m), [])] for m in methods}
        seen = [spread(values) if values else "–" for values in found.values()]
        means = [np.mean(values) for values in found.values() if values]
        noise = np.mean([np.std(values) for values in found.values() if values])
        separate = "yes" if max(means) - min(means) > 2 * noise else "no"
        separate = separate if min(len(values) for values in found.values() if values) > 1 else "one seed"
        rows.append([task, f"{budget:g} %", spread([row["dense_accuracy"] for row in group]), *seen, separate])
    means = [spread([row["accuracy"] for row in runs if row["method"] == m]) for m in methods]
    means = [text.split("\u00a0")[0] for text in means]
    rows.append(["mean", "", spread([row["dense_accuracy"] for row in runs]).split("\u00a0")[0], *means, ""])
    return table(["task", "budget", "dense", *methods, "separate"], rows)


def budget_table(runs: Rows, failed: Rows) -> str:
    rows = []
    for (method,), group in by(runs, "method").items():
        unused = [1 - row["share"] for row in group]
        over = sum(row["share"] > 1 for row in group)
        rows.append(
            [
                method, len(group), over, f"{100 * np.median(unused):.2f} %", f"{100 * max(unused):.2f} %",
                sum(abs(u) > 0.02 for u in unused), sum(not row["met"] for row in group),
                sum(row["method"] == method for row in failed),
            ]
        )  # fmt: skip
    rows.sort(key=lambda row: METHODS.index(row[0]))
    header = ["method", "runs", "above", "unused, median", "unused, max", "unused > 2 %", "reported", "refused"]
    return table(header, rows)


def cost_table(runs: Rows) -> str:
    rows = []
    for (method,), group in by(runs, "method").items():
        seconds = [row["seconds"] for row in group]
        search = [search_seconds(row) for row in group]
        rows.append(
            [
                method, f"{np.mean([row['evaluations'] for row in group]):.0f}", f"{np.mean(search):.1f}",
                f"{100 * np.mean([s.get('estimate', 0) for s in seconds]) / max(np.mean(search), 1e-9):.0f} %",
                f"{np.mean([s['fine_tune'] for s in seconds if 'fine_tune' in s]):.1f}",
            ]
        )  # fmt: skip
    rows.sort(key=lambda row: METHODS.index(row[0]))
    return table(["method", "networks run", "search, s", "estimator's share", "fine-tuning, s"], rows)


def duel_table(runs: Rows, others: Rows) -> str:
    """Compare the default with others on the same task, budget and seed."""
    ours = {_place(row): row for row in runs if row["method"] == DEFAULT_METHOD}
    tasks, rows = sorted({task for task, *_ in ours}), []
    for (other,), group in by(others, "method").items():
        pairs = [(ours[_place(row)], row) for row in group if _place(row) in ours]
        if other == DEFAULT_METHOD or not pairs:
            continue
        points = [{**a, "gain": 100 * (a["accuracy"] - b["accuracy"])} for a, b in pairs]
        gain = np.array([row["gain"] for row in points])
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
        worst = min(_mean_gain(cell) for cell in by(points, "task", "budget").values())
        each = by(points, "task")
        by_task = [f"{_mean_gain(each[task,]):+.2f}" if (task,) in each else "" for task in tasks]
        cost = sum(search_seconds(a) for a, _ in pairs) / max(sum(search_seconds(b) for _, b in pairs), 1e-9)
        rows.append([other, len(pairs), f"{gain.mean():+.2f} ± {error:.2f}", f"{worst:+.2f}", *by_task, f"{cost:.2f}"])
    rows.sort(key=lambda row: METHODS.index(row[0].partition("+")[0]))
    header = [f"{DEFAULT_METHOD} against", "pairs", "accuracy, points (± s.e.)", "worst row", *tasks, "search time, ratio"]
    return table(header, rows)


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["task"], row["budget"], row["seed"]


def _mean_gain(rows: Rows) -> float:
    return float(np.mean([row["gain"] for row in rows]))


def search_seconds(row: dict[str, Any]) -> float:
    return sum(row["seconds"].get(name, 0.0) for name in ("estimate", "search", "ladder"))


# ------------------------------------------------------------------------------------------------------------- studies


def estimator_table(studies: Rows) -> str:
    """Learn from the first n samples, predict the last ones, which are never learnt from: mean over studies."""
    rows = []
    for size in SIZES:
        errors: dict[str, list[float]] = {"lre": [], "drift": [], "none": []}
        covered: list[bool] = []
        for study in studies:
            samples = study["samples"]
            kept = max(3, min(10, len(samples) // 4))
            learn, held = samples[: len(samples) - kept][:size], samples[-kept:]
            if len(learn) < size:
                continue
            found = predictions(learn, study["dense"])
            for one in held:
                truth, before = sum(one["after"].values()), one["before"]
                for name, predict in found[0].items():
                    errors[name].append(abs(predict(before) / truth - 1))
                low, high = found[1](before)
                covered.append(low <= truth <= high)
        if not errors["lre"]:
            continue
        cells = [f"{100 * np.mean(errors[name]):.2f} / {100 * max(errors[name]):.1f}" for name in ("none", "lre", "drift")]
        rows.append([size, *cells, f"{100 * np.mean(covered):.0f} %", len(errors["lre"])])
    header = ["fine-tunes", "no model", "LRE", "drift by layer", "inside the 80 % interval", "predictions"]
    return table(header, rows)


def predictions(learn: Rows, dense: dict[str, float]) -> tuple[dict[str, Callable[[Any], float]], Callable[[Any], Any]]:
    line = fit_lre([(sum(one["before"].values()), sum(one["after"].values())) for one in learn])
    model = fit_per_layer([(one["before"], one["after"]) for one in learn], dense)
    return (
        {"lre": lambda b: line.predict(sum(b.values())), "drift": model.predict, "none": lambda b: sum(b.values())},
        lambda b: model.interval(b, 0.8),
    )


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, equal values sharing their ranks."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


def ladder_table(studies: Rows) -> str:
    """Correlate what each rung says of a plan, by accuracy and by certainty, with the certainty of the final network on test."""
    rows = []
    for study in studies:
        final = [plan["rungs"]["test"]["certainty"] for plan in study["plans"]]
        rungs = [name for name in study["plans"][0]["rungs"] if name != "test"]
        cells = []
        for name in rungs:
            pair = [[plan["rungs"][name][kind] for plan in study["plans"]] for kind in ("accuracy", "certainty")]
            cells.append(" / ".join(f"{rank_correlation(values, final):+.2f}" for values in pair))
        accuracy = spread([plan["rungs"]["test"]["accuracy"] for plan in study["plans"]])
        rows.append([study["task"], study["seed"], len(final), *cells, accuracy])
    heads = [f"{name} batches" if name != "0" else "BN alone" for name in rungs]
    return table(["task", "seed", "plans", *heads, "final accuracy, %"], rows)


def speed_table(rows: Rows) -> str:
    cells = [
        [row["task"], f"{1e3 * row['seconds']['ours']:.0f}", f"{1e3 * row['seconds']['stepped']:.0f}", f"{row['ratio']:.2f}",
         f"{row['spikes_differ']} of {row['compared']:,}"]
        for row in rows
    ]  # fmt: skip
    return table(["task", "ours, ms", "stepped, ms", "ratio", "spikes that differ"], cells)
