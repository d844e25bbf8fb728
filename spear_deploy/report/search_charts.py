"""Charts of the search, of its SynOps estimator and of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from spear_deploy.report.budgets import list_budgets
from spear_deploy.report.chart import Rule, Series, draw_chart
from spear_deploy.util.number_format import compact, number, percent, plural, points

NAMES = {
    "spear": "SPEAR (DDPG)", "td3": "TD3", "sac": "SAC", "evolution": "Regularised evolution", "gp": "A Gaussian process",
    "cma-es": "CMA-ES", "tpe": "TPE", "threshold": "A threshold on importance", "random": "Random search",
    "uniform": "The uniform baseline", "recipe": "The search of recipes",
    "rl": "Constrained reinforcement learning",
}  # fmt: skip


STAGE_NAMES = {"rates": "fine-tuning, firing rates", "bits": "learning with the chip's rounding"}
"""Names of stages that are not those of the file."""


def draw_search(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return charts, several budgets and a summary of the search; no chart if the network met its budgets unchanged.

    Args:
        search: `search.json`.
    """
    rows, epochs, rungs = search["search"], search["fine_tune"], search.get("rungs") or []
    charts = []
    if rows:
        charts += [_draw_rewards(rows)]
    if search["lre"] and search["lre"]["pairs"]:
        charts += [_draw_predictions(search)]
    if len({row["synops"] for row in rows}) > 1:
        charts += [_draw_front(rows)]
    if any(row.get("multipliers") for row in rows):
        charts += [_draw_multipliers(rows)]
    if len(rungs) > 1:
        charts += [_draw_rungs(rungs)]
    if epochs:
        charts += [_draw_synops(search, epochs), _draw_accuracy(epochs)]
    budgets = list_budgets(search.get("budgets", {}))
    return {
        "charts": charts,
        "summary": _summarize_search(search),
        "budgets": budgets if len(budgets) > 1 else [],
        "levers": describe_levers(search.get("levers") or []),
        "bits": list_episode_bits(rows),
    }


def describe_levers(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a row for each stage from trained to fine-tuned: its SynOps and accuracy, and what they changed by.

    Args:
        stages: rows of `lever`, `synops`, `accuracy` and `batches`; none in files written before levers were recorded.

    >>> row = {"lever": "trained", "synops": 200.0, "accuracy": 0.9, "batches": 0}
    >>> describe_levers([row, {"lever": "channels", "synops": 100.0, "accuracy": 0.88, "batches": 70}])[1]
    {'name': 'channels', 'synops': '100', 'left': '50 %', 'accuracy': '88.00 %', 'change': '−2.0 points', 'batches': '70'}
    """
    rows = []
    for index, stage in enumerate(stages):
        before = stages[max(index - 1, 0)]
        rows.append(
            {
                "name": STAGE_NAMES.get(stage["lever"], stage["lever"]),
                "synops": number(stage["synops"]),
                "left": percent(stage["synops"] / max(stages[0]["synops"], 1e-12)) if index else "",
                "accuracy": percent(stage["accuracy"], 2),
                "change": points(stage["accuracy"] - before["accuracy"]) if index else "",
                "batches": number(stage["batches"]) if index else "",
            }
        )
    return rows


def list_episode_bits(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the bits of a weight of each layer in each episode, and what the episode reached; None where none were searched.

    Args:
        rows: of a search.

    >>> row = {"episode": 1, "bits": {"fc1": 4}, "widths": [9], "certainty": 0.5, "accuracy": 0.8, "reward": 0.5}
    >>> list_episode_bits([row])
    {'layers': ['fc1'], 'rows': [{'episode': 1, 'bits': [4], 'widths': '9', 'accuracy': '80.0 %', 'value': '0.500'}]}
    """
    if not rows or not rows[0].get("bits"):
        return None
    layers = list(rows[0]["bits"])
    return {
        "layers": layers,
        "rows": [
            {
                "episode": row["episode"],
                "bits": [row["bits"][name] for name in layers],
                "widths": ", ".join(map(str, row["widths"])),
                "accuracy": percent(row["accuracy"], 1),
                "value": f"{row['reward']:.3f}",
            }
            for row in rows
        ],
    }


def pareto_front(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows that no other row beats in both accuracy and SynOps, by rising SynOps.

    >>> best = pareto_front([{"synops": 2, "accuracy": 0.9}, {"synops": 1, "accuracy": 0.8}, {"synops": 3, "accuracy": 0.85}])
    >>> [row["synops"] for row in best]
    [1, 2]
    """
    best: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["synops"], -row["accuracy"])):
        if not best or row["accuracy"] > best[-1]["accuracy"]:
            best.append(row)
    return best


def _summarize_search(search: Mapping[str, Any]) -> list[str]:
    if not search["search"]:
        learnt = (search.get("batches") or {}).get("bits", 0)
        whole = (
            f"The network, which learnt from {learnt} batches with the chip's rounding," if learnt else "The unchanged network"
        )
        return [f"{whole} is within the budget: nothing was searched and nothing was removed."]
    sentences = [
        f"{NAMES.get(search['method'], search['method'])} proposed {plural(len(search['search']), 'network')}; "
        f"{plural(search['evaluations'], 'measurement')} on validation data in the last run, those of the estimator included.",
    ]
    if search["budget"] and search["aim"] is not None:
        margin = percent(1 - search["aim"] / search["budget"], 1)
        row = search.get("budgets", {}).get("synops", {})
        where = row.get("measured_on", "validation")
        aim = f"The aim was {number(search['aim'])} SynOps on {where} data, {margin} below the budget"
        sentences.append(
            f"{aim} of {number(search['budget'])} there, since unseen samples may differ by so much by chance; "
            f"{number(search['synops'])} were reached."
        )
    return sentences + (["The search was stopped early by hand."] if search.get("interrupted") else [])


def _format_tooltip(row: Mapping[str, Any]) -> str:
    return (
        f"evaluation {row['episode']}: reward {row['reward']:.3g}, accuracy {percent(row['accuracy'], 1)}, "
        f"{number(row['synops'])} SynOps, widths {', '.join(map(str, row['widths']))}"
        + (f", bits {', '.join(map(str, row['bits'].values()))}" if row.get("bits") else "")
    )


def _draw_rewards(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    inside, outside = [row for row in rows if row["feasible"]], [row for row in rows if not row["feasible"]]

    def dots(name: str, kind: Any, some: Sequence[Mapping[str, Any]]) -> Series:
        points = [(row["episode"], row["reward"]) for row in some]
        return Series(name=name, kind=kind, role="quiet", points=points, tips=[_format_tooltip(row) for row in some])

    series = [dots("plan within the budget", "dots", inside)] if inside else []
    series += [dots("plan above it", "rings", outside)] if outside else []
    ranked = [(row["feasible"], row["reward"]) for row in rows]
    best = [value[1] for value in accumulate(ranked, max)]
    points = [(row["episode"], value) for row, value in zip(rows, best, strict=True)]
    series.append(Series(name="best so far", kind="steps", points=points))
    return draw_chart("Reward of each evaluation", x="evaluation", y=_name_reward(rows), series=series)


def _name_reward(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the reward of plans within the budget is; those above it have less.

    >>> _name_reward([{"reward": 0.4, "certainty": 0.4, "accuracy": 0.9}]), _name_reward([{"reward": 0.9, "accuracy": 0.9}])
    ('reward: mean probability of the right class', 'reward: accuracy')
    >>> _name_reward([{"reward": 0.2, "certainty": 0.4, "accuracy": 0.9}])
    'reward'
    """
    for key, name in (("certainty", "mean probability of the right class"), ("accuracy", "accuracy")):
        if all(row["reward"] == row.get(key) for row in rows if row.get("feasible", True)):
            return f"reward: {name}"
    return "reward"


def _draw_multipliers(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw each budget's multiplier and its measured use, relative to the budget, over the episodes."""
    series = []
    for name in rows[0]["multipliers"]:
        label = name.replace("_", " ")
        used = [(row["episode"], row["use"][name]) for row in rows]
        tips = [f"episode {n}: {percent(use)} of the budget" for n, use in used]
        series.append(Series(name=f"{label}: use / budget", kind="dots", role="quiet", points=used, tips=tips))
        prices = [(row["episode"], row["multipliers"][name]) for row in rows]
        series.append(Series(name=f"{label}: multiplier", kind="steps", points=prices))
    rules = [Rule(name="budget", y=1.0)]
    return draw_chart("Multiplier and use of each budget", x="episode", y="", series=series, rules=rules)


def _draw_predictions(search: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the prediction of each fine-tuned plan by the fit to the others, and that of the chosen plan."""
    lre = search["lre"]
    pairs = [
        (after, after / (1 + residual))
        for (_, after), residual in zip(lre["pairs"], lre["residuals"] or [0.0] * len(lre["pairs"]), strict=True)
    ]
    tips = [f"measured {number(after)}, predicted {number(guess)} SynOps" for after, guess in pairs]
    series = [Series(name="short fine-tune, predicted from the others", kind="rings", points=pairs, tips=tips)]
    widths = [after for _, after in search["widths"].values()]
    chosen = [row for row in search["search"] if row["widths"] == widths and row["feasible"]]
    if chosen:
        point = (search["synops"], chosen[-1]["predicted"])
        tip = f"the chosen network: measured {number(point[0])}, predicted {number(point[1])} SynOps"
        name = "chosen network, fine-tuned under the budget"
        series.append(Series(name=name, kind="dots", role="alert", points=[point], tips=[tip]))
    rules = [Rule(name="equal")]
    return draw_chart("SynOps, predicted and measured", x="measured after fine-tuning", y="predicted", series=series, rules=rules)


def _draw_front(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [(row["synops"], row["accuracy"]) for row in rows]
    best = [(row["synops"], row["accuracy"]) for row in pareto_front(rows)]
    series = [
        Series(name="plan", kind="dots", role="quiet", points=points, tips=[_format_tooltip(row) for row in rows]),
        Series(name="best of its size", kind="line", points=best),
    ]
    title = "Accuracy against SynOps, before fine-tuning"
    return draw_chart(title, x="SynOps per inference", y="accuracy", series=series, shares=True)


def _draw_rungs(rungs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the accuracy of the best plans over the batches of their fine-tuning."""
    plans: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for row in rungs:
        plans.setdefault(tuple(row["widths"]), []).append(row)
    lines = [[(row["steps"], row["accuracy"]) for row in rows] for rows in plans.values()]
    series = [Series(name="", kind="line", role="quiet", points=line) for line in lines if len(line) > 1]
    points = [(row["steps"], row["accuracy"]) for row in rungs]
    tips = [f"widths {', '.join(map(str, row['widths']))}: {percent(row['accuracy'], 1)}" for row in rungs]
    series.append(Series(name="plan", kind="dots", points=points, tips=tips))
    steps = {row["steps"] for row in rungs}
    title = "The best plans, fine-tuned for more and more batches"
    if len(steps) == 1:
        title = f"The best plans, fine-tuned for {min(steps)} batches"
    return draw_chart(title, x="batches", y="accuracy", series=series, shares=True)


def _draw_synops(search: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [(index + 1, row["synops"]) for index, row in enumerate(epochs)]
    tips = [
        f"epoch {n}: {number(synops)} SynOps, weight of the penalty {row['dual']:.3g}"
        for (n, synops), row in zip(points, epochs, strict=True)
    ]
    series = [
        Series(name="", kind="line", points=points),
        Series(name="validation", kind="dots", points=points, tips=tips),
    ]
    rules = [Rule(name=f"budget {compact(search['budget'])}", y=search["budget"])] if search["budget"] else []
    return draw_chart("SynOps while fine-tuning", x="epoch", y="SynOps per inference", series=series, rules=rules)


def _draw_accuracy(epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [(index + 1, row["accuracy"]) for index, row in enumerate(epochs)]
    tips = [
        f"epoch {n}: accuracy {percent(share, 2)}, loss {row['loss']:.3g}" for (n, share), row in zip(points, epochs, strict=True)
    ]
    series = [
        Series(name="", kind="line", points=points),
        Series(name="validation", kind="dots", points=points, tips=tips),
    ]
    title = "Accuracy while fine-tuning"
    return draw_chart(title, x="epoch", y="accuracy", series=series, shares=True)
