"""How was the network found? Charts of the search, of its estimator and of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from spear_deploy.report.chart import Rule, Series, chart
from spear_deploy.util.number_format import compact, number, percent

NAMES = {
    "spear": "SPEAR (DDPG)", "td3": "TD3", "sac": "SAC", "evolution": "Regularised evolution", "gp": "A Gaussian process",
    "cma-es": "CMA-ES", "tpe": "TPE", "threshold": "A threshold on importance", "random": "Random search",
    "uniform": "The uniform baseline",
}  # fmt: skip


def search_view(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return charts, the budgets and the sentences that go with them; no chart where the network met the budgets as it was.

    Args:
        search: `search.json`.
    """
    rows, epochs, rungs = search["search"], search["fine_tune"], search.get("rungs") or []
    charts = []
    if rows:
        charts += [_reward(rows)]
    if search["lre"] and search["lre"]["pairs"]:
        charts += [_predicted(search)]
    if len({row["synops"] for row in rows}) > 1:
        charts += [_front(rows)]
    if rungs:
        charts += [_climbed(rungs)]
    if epochs:
        charts += [_spent(search, epochs), _learnt(epochs)]
    budgets = [{"name": name.replace("_", " "), **row} for name, row in search.get("budgets", {}).items()]
    return {"charts": charts, "told": _told(search), "budgets": budgets if len(budgets) > 1 else []}


def front(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows that no other beats in accuracy and SynOps, by SynOps.

    >>> found = front([{"synops": 2, "accuracy": 0.9}, {"synops": 1, "accuracy": 0.8}, {"synops": 3, "accuracy": 0.85}])
    >>> [row["synops"] for row in found]
    [1, 2]
    """
    best: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["synops"], -row["accuracy"])):
        if not best or row["accuracy"] > best[-1]["accuracy"]:
            best.append(row)
    return best


def _told(search: Mapping[str, Any]) -> list[str]:
    if not search["search"]:
        return ["The network is within the budget as it is: nothing was searched and nothing removed."]
    said = [
        f"{NAMES.get(search['method'], search['method'])} made {len(search['search'])} proposals; {search['evaluations']} "
        "different networks were measured for them, on validation data.",
    ]
    if search["budget"] and search["aim"] is not None:
        margin = percent(1 - search["aim"] / search["budget"], 1)
        aim = f"Validation was held to {number(search['aim'])} SynOps"
        said.append(f"{aim}, {margin} below the budget, which is by how much unseen samples may differ by chance.")
    return said + (["The search was stopped early by hand."] if search.get("interrupted") else [])


def _tip(row: Mapping[str, Any]) -> str:
    return (
        f"evaluation {row['episode']}: reward {row['reward']:.3g}, accuracy {percent(row['accuracy'], 1)}, "
        f"{number(row['synops'])} SynOps, widths {', '.join(map(str, row['widths']))}"
    )


def _reward(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    inside, outside = [row for row in rows if row["feasible"]], [row for row in rows if not row["feasible"]]

    def dots(name: str, kind: Any, some: Sequence[Mapping[str, Any]]) -> Series:
        points = [(row["episode"], row["reward"]) for row in some]
        return Series(name=name, kind=kind, role="quiet", points=points, tips=[_tip(row) for row in some])

    series = [dots("plan within the budget", "dots", inside)] if inside else []
    series += [dots("plan above it", "rings", outside)] if outside else []
    ranked = [(row["feasible"], row["reward"]) for row in rows]
    best = [value[1] for value in accumulate(ranked, max)]
    points = [(row["episode"], value) for row, value in zip(rows, best, strict=True)]
    series.append(Series(name="best so far", kind="steps", points=points))
    return chart("Reward of each evaluation", x="evaluation", y="reward", series=series)


def _predicted(search: Mapping[str, Any]) -> dict[str, Any]:
    """Predictions of each fine-tuned plan by the line through the others, and of the plan that was chosen."""
    lre = search["lre"]
    told = [
        (after, after / (1 + residual))
        for (_, after), residual in zip(lre["pairs"], lre["residuals"] or [0.0] * len(lre["pairs"]), strict=True)
    ]
    tips = [f"measured {number(after)}, predicted {number(guess)} SynOps" for after, guess in told]
    series = [Series(name="short fine-tune, predicted from the others", kind="rings", points=told, tips=tips)]
    widths = [after for _, after in search["widths"].values()]
    chosen = [row for row in search["search"] if row["widths"] == widths and row["feasible"]]
    if chosen:
        point = (search["synops"], chosen[-1]["predicted"])
        tip = f"the network that was chosen: measured {number(point[0])}, predicted {number(point[1])} SynOps"
        name = "chosen network, which learnt under the budget"
        series.append(Series(name=name, kind="dots", role="alert", points=[point], tips=[tip]))
    rules = [Rule(name="equal")]
    return chart("SynOps, predicted and measured", x="measured after fine-tuning", y="predicted", series=series, rules=rules)


def _front(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [(row["synops"], row["accuracy"]) for row in rows]
    best = [(row["synops"], row["accuracy"]) for row in front(rows)]
    series = [
        Series(name="plan", kind="dots", role="quiet", points=points, tips=[_tip(row) for row in rows]),
        Series(name="best of its size", kind="line", points=best),
    ]
    title = "Accuracy against SynOps, before fine-tuning"
    return chart(title, x="SynOps per inference", y="accuracy", series=series, y_text=lambda share: percent(share, 1))


def _climbed(rungs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Plans that were fine-tuned for some batches, the best of them for longer."""
    plans: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for row in rungs:
        plans.setdefault(tuple(row["widths"]), []).append(row)
    lines = [[(row["steps"], row["accuracy"]) for row in rows] for rows in plans.values()]
    series = [Series(name="", kind="line", role="quiet", points=line) for line in lines if len(line) > 1]
    points = [(row["steps"], row["accuracy"]) for row in rungs]
    tips = [f"widths {', '.join(map(str, row['widths']))}: {percent(row['accuracy'], 1)}" for row in rungs]
    series.append(Series(name="plan", kind="dots", points=points, tips=tips))
    steps = {row["steps"] for row in rungs}
    title = "The best plans, fine-tuned for longer and longer"
    if len(steps) == 1:
        title = f"The best plans, fine-tuned for {min(steps)} batches"
    return chart(title, x="batches", y="accuracy", series=series, y_text=lambda share: percent(share, 1))


def _spent(search: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [(index + 1, row["synops"]) for index, row in enumerate(epochs)]
    tips = [
        f"epoch {n}: {number(synops)} SynOps, the price of SynOps {row['dual']:.3g}" for (n, synops), row in _with(points, epochs)
    ]
    series = [
        Series(name="", kind="line", points=points),
        Series(name="validation", kind="dots", points=points, tips=tips),
    ]
    rules = [Rule(name=f"budget {compact(search['budget'])}", y=search["budget"])] if search["budget"] else []
    return chart("SynOps while fine-tuning", x="epoch", y="SynOps per inference", series=series, rules=rules)


def _learnt(epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [(index + 1, row["accuracy"]) for index, row in enumerate(epochs)]
    tips = [f"epoch {n}: accuracy {percent(share, 2)}, loss {row['loss']:.3g}" for (n, share), row in _with(points, epochs)]
    series = [
        Series(name="", kind="line", points=points),
        Series(name="validation", kind="dots", points=points, tips=tips),
    ]
    return chart("Accuracy while fine-tuning", x="epoch", y="accuracy", series=series, y_text=lambda share: percent(share, 1))


def _with(points: Sequence[tuple[float, float]], rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Mapping[str, Any]]]:
    return list(zip(points, rows, strict=True))
