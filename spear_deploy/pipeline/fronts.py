"""Which smaller networks keep each of several SynOps budgets, found by one search?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spear_deploy import verbs
from spear_deploy.data import Dataset
from spear_deploy.errors import BudgetError
from spear_deploy.files import write_json
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.pipeline.pruning import CHECKPOINT, PLAN, PRUNED, SEARCH, both, budgets_for, facts_of
from spear_deploy.pipeline.start import checked_start
from spear_deploy.progress import Progress
from spear_deploy.report import write_report
from spear_deploy.training import evaluate

FRONT = "front.json"


def prune_front(
    net: verbs.Net,
    chip: verbs.Chip,
    data: str | os.PathLike[str] | Dataset,
    *,
    out: str | os.PathLike[str],
    synops: Sequence[str | float],
    method: str | None = None,
    episodes: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **limits: str | float | None,
) -> dict[str, Any]:
    """Prune a network to each of several SynOps budgets, and write a folder for each, `front.json` and `front.html`.

    Args:
        synops: the budgets, e.g. ("70%", "50%", "35%", "20%").
        limits: further ones, that hold for all; the other arguments are those of `prune`.

    Returns:
        {front: [what `prune` returns, for each budget], files}.
    """
    from spear_deploy.search import DEFAULT_METHOD, amount, for_tuning, prune_to_budget, search_front

    if not synops:
        raise BudgetError("budgets: none given, expected at least one such as 50%")
    folder = Path(out)
    target, chips, dense, dataset = checked_start(net, chip, data, synops[0], seed, overrides)
    costs, base = budgets_for(dense, target, chips, {"synops": synops[0], **limits})
    each = [replace(base, synops=amount(wanted, "synops")) for wanted in synops]
    before = evaluate(dense, dataset.test)
    method = method or DEFAULT_METHOD
    plans = search_front(
        dense, dataset, budgets=each, method=method, settings=for_tuning(method), episodes=episodes, seed=seed, chip=costs,
        checkpoint=folder / CHECKPOINT, progress=progress,
    )  # fmt: skip
    rows = []
    for wanted, budgets, found in zip(synops, each, plans, strict=False):  # fewer plans where Ctrl-C ended the search
        name = str(wanted).strip().replace("%", "")
        pruned = prune_to_budget(
            dense, dataset, budgets=budgets, seed=seed, deployed=both(target, dataset), chip=costs, found=found, epochs=epochs,
            progress=progress,
        )  # fmt: skip
        files = {"pruned": f"{name}/{PRUNED}", "search": f"{name}/{SEARCH}", "plan": f"{name}/{PLAN}"}
        write_snn(pruned.graph, folder / files["pruned"])
        write_json(folder / files["search"], pruned.to_json())
        write_json(folder / files["plan"], pruned.plan.to_json())
        rows.append({**facts_of(pruned, dense, dataset, budgets, target, chips, before), "wanted": str(wanted), "files": files})
        if pruned.interrupted:
            break
    write_json(folder / FRONT, {"front": rows})
    return {"front": rows, "files": {"front": FRONT, "report": write_report(folder).name}}
