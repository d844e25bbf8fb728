"""Sweep: every combination of networks, chips, budgets, methods and seeds pruned.

A sweep file in TOML names the combinations:

    networks = ["digits"]           # files, shipped names or package.module:function
    chips = ["loihi2", "speck2f"]
    budgets = ["50%", "20%"]        # SynOps
    methods = ["recipe"]            # by default that of `prune` for the chip
    seeds = [0, 1]                  # by default 0
    data = "digits"
    epochs = 40                     # optional, as for `prune`; so are episodes, learning_rate, steps (or a range) and encoding
    source = "snntorch"             # optional, for the networks that take it; so are dt_s, reset, input_shape,
                                    # decision and outputs_per_class

Files and folders are named relative to the sweep file.

Each combination is a cell with a folder of its own, in which `prune` writes. A finished cell has its result in `cell.json`, with
a digest of all it depends on; a sweep that was stopped or killed takes finished cells from there, and an unfinished one goes on
from its checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from spear_deploy.data.dataset import hash_dataset
from spear_deploy.data.load import BUILT_IN
from spear_deploy.data.time_steps import parse_steps
from spear_deploy.errors import ChipError, DataError, FileError, SpearError
from spear_deploy.hardware.profile import SUFFIXES, hash_profile
from spear_deploy.interchange.formats import READABLE
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api
from spear_deploy.pipeline.inputs import NETWORK_OPTIONS, load_for, select_options
from spear_deploy.pipeline.prune import prune
from spear_deploy.pipeline.result import add_header, describe_run
from spear_deploy.pruning.budgets import parse_amount
from spear_deploy.pruning.search.settings import check_method
from spear_deploy.report import write_report
from spear_deploy.report.sweep_page import measure_cell
from spear_deploy.training.device import choose_device
from spear_deploy.training.learning_store import forget_learning
from spear_deploy.util.arguments import MAX_SEED
from spear_deploy.util.digests import hash_code, hash_value
from spear_deploy.util.files import find_beside, read_text, write_json
from spear_deploy.util.folder_lock import own_folder
from spear_deploy.util.printable import escape_hidden
from spear_deploy.util.progress import Progress, prefix_stage
from spear_deploy.util.workers import Workers, give_logs, map_jobs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CELL, SWEEP = "cell.json", "sweep.json"
DEFAULT = "default"
"""Method of a cell that has the one which `prune` takes for its chip."""
MAX_CELLS = 10_000
DATA_ENDINGS = (".npz", ".h5", ".hdf5")
Text = Annotated[str, Field(min_length=1)]


class SweepPlan(BaseModel):
    """The content of a sweep file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    networks: Annotated[list[Text], Field(min_length=1)]
    chips: Annotated[list[Text], Field(min_length=1)]
    budgets: Annotated[list[Text | int | float], Field(min_length=1)]
    methods: Annotated[list[Text], Field(min_length=1)] = [DEFAULT]
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=MAX_SEED)]], Field(min_length=1)] = [0]
    data: Text
    episodes: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    steps: Annotated[int, Field(ge=1)] | Text | None = None
    encoding: Text | None = None
    source: Text | None = None
    dt_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    reset: Literal["value", "subtract", "none"] | None = None
    input_shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None = None
    decision: Text | None = None
    outputs_per_class: Annotated[int, Field(ge=1)] | None = None
    _folder: Path = PrivateAttr(default_factory=Path)

    def find_network(self, name: str) -> str:
        """Return a network as it is named from the working folder."""
        return find_beside(self._folder, name, tuple(READABLE))

    def find_chip(self, name: str) -> str:
        """Return a chip as it is named from the working folder."""
        return find_beside(self._folder, name, SUFFIXES)

    def find_data(self) -> str:
        """Return the data as they are named from the working folder."""
        is_folder = self.data not in BUILT_IN and (self._folder / self.data).is_dir()
        return str(self._folder / self.data) if is_folder else find_beside(self._folder, self.data, DATA_ENDINGS)

    @property
    def reading(self) -> dict[str, Any]:
        """The options of networks that are stated, as `load` takes them."""
        stated = {name: getattr(self, name) for name in NETWORK_OPTIONS}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in stated.items() if value is not None}

    @property
    def axes(self) -> tuple[list[Any], ...]:
        """Networks, chips, budgets, methods and seeds, each once."""
        return tuple(list(dict.fromkeys(axis)) for axis in (self.networks, self.chips, self.budgets, self.methods, self.seeds))

    def cells(self) -> list[Cell]:
        """List the combinations, seeds fastest."""
        return [
            Cell(network=network, chip=chip, budget=budget, method=method, seed=seed)
            for network, chip, budget, method, seed in product(*self.axes)
        ]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination."""

    network: str
    chip: str
    budget: str | int | float
    method: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        words = (Path(self.network).name, Path(self.chip).name, str(self.budget), self.method, f"seed{self.seed}")
        plain = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", word.replace("%", "pc")).strip("-.") for word in words)
        return f"{plain[:80]}_{hash_value(vars(self))[:6]}"


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What all cells read."""

    folder: Path
    plan: SweepPlan
    networks: Mapping[str, SNNGraph]
    device: str
    progress: Progress | None = None


def read_sweep(path: str | os.PathLike[str]) -> SweepPlan:
    """Read a sweep file.

    Raises:
        FileError: missing, not TOML, an unknown key or a value that a key cannot have; names file and key.
        BudgetError: a budget that is none, or an unknown method.
        DataError: steps that are neither a number nor a range.
    """
    source, text = Path(path), read_text(path, "sweep file (TOML)")
    try:
        plan = SweepPlan.model_validate(tomllib.loads(text))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        keys = ", ".join(SweepPlan.model_fields)
        raise FileError(
            f"sweep file '{source}', key '{escape_hidden(place)}': {fault['msg'].lower()}; the keys are {keys}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"sweep file '{source}': is not TOML ({str(error)[:200]}); see docs/scale.md for an example") from error
    plan._folder = source.parent
    for budget in plan.budgets:
        parse_amount(budget, "synops")
    for method in plan.methods:
        if method != DEFAULT:
            check_method(method)
    parse_steps(plan.steps)
    count = math.prod(map(len, plan.axes))
    if count > MAX_CELLS:
        raise FileError(f"sweep file '{source}': makes {count} cells, at most {MAX_CELLS}; split it into several")
    return plan


def sweep(
    plan: SweepPlan | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    workers: Workers | int | str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Prune every combination of a sweep, and write `sweep.json` and the page `sweep.html`.

    Args:
        plan: a sweep file, or its content.
        out: folder for all cells. Finished cells of an earlier run with the same inputs are taken from it.
        workers: where cells are pruned at the same time; None: one after the other in this process.
        device: that networks learn on.
        progress: is called after each cell, and during a cell that runs in this process.
        command: the command line, for the page.

    Ctrl-C ends a sweep at once: of the cell that it interrupts the measurements are kept, from which the next run goes on.

    Returns:
        {cells: [network, chip, budget, method, seed, folder, and the results of `prune` or `error`], front, taken, files}.

    Raises:
        FileError: the sweep file cannot be read, or another run writes into the folder.
        DataError: an option that no network of the sweep takes.
        WorkerError: `workers` are none.
        MissingPackageError: their package is not installed.
        SpearError: a network or a chip cannot be read.
    """
    plan = plan if isinstance(plan, SweepPlan) else read_sweep(plan)
    device = choose_device(device)
    placed = give_logs(workers, Path(out))
    with own_folder(out) as folder:
        cells = plan.cells()
        networks = _load_networks(plan)
        keys = _make_keys(plan, cells, networks)
        rows = {cell: _read_cell(folder / cell.name, keys[cell]) for cell in cells}
        missing = [cell for cell in cells if rows[cell] is None]
        shared = _Shared(
            folder=folder, plan=plan, networks=networks, device=device, progress=progress if placed is None else None
        )

        def keep(index: int, row: dict[str, Any]) -> None:
            rows[missing[index]] = row

        map_jobs(
            _run_cell, [(cell, keys[cell]) for cell in missing], shared=shared, workers=placed, keep=keep,
            names=[cell.name for cell in missing], stage="sweep", progress=progress,
        )  # fmt: skip
        done = [row for row in rows.values() if row is not None]
        result = {"cells": done, "front": find_front(done)}
        write_json(folder / SWEEP, add_header({**result, **describe_run(command)}))
        files = {"sweep": SWEEP, "report": write_report(folder, results=SWEEP).name}
        return add_header({**result, "taken": len(cells) - len(missing), "files": files})


def find_front(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the folders of the cells that no other cell of the same network and chip beats in accuracy and SynOps."""
    front = []
    for row in (row for row in rows if "error" not in row):
        rivals = [
            other for other in rows if "error" not in other and (other["network"], other["chip"]) == (row["network"], row["chip"])
        ]
        if not any(_beats(other, row) for other in rivals):
            front.append(row["folder"])
    return front


def _beats(other: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Return whether a cell is at least as good as another in both, and better in one."""
    (s, a), (t, b) = map(measure_cell, (other, row))
    return bool(a >= b and s <= t and (a, s) != (b, t))


def _load_networks(plan: SweepPlan) -> dict[str, SNNGraph]:
    """Return the networks of a sweep by name, each read with the options that it takes.

    Raises:
        DataError: none of them takes an option.
    """
    options = {name: select_options(plan.find_network(name), plan.reading) for name in plan.networks}
    for name in plan.reading:
        if not any(name in taken for taken in options.values()):
            raise DataError(f"sweep: no network takes '{name}', since each states its own; leave the key out")
    return {name: load_for(plan.find_network(name), plan.find_data(), **taken) for name, taken in options.items()}


def _make_keys(plan: SweepPlan, cells: Sequence[Cell], networks: Mapping[str, SNNGraph]) -> dict[Cell, str]:
    """Return by cell a digest of all that its result depends on."""
    graphs = {name: hash_network(graph) for name, graph in networks.items()}
    profiles = {name: api.resolve_chip(plan.find_chip(name), None) for name in plan.chips}
    chips = {name: (hash_profile(profile), count) for name, (profile, count) in profiles.items()}
    source, coding = plan.find_data(), {"steps": plan.steps, "encoding": plan.encoding}
    data = {
        (name, seed): hash_dataset(api.data(source, networks[name], seed=seed, **coding))
        for name in plan.networks
        for seed in plan.seeds
    }
    common = {
        "episodes": plan.episodes, "epochs": plan.epochs, "learning_rate": plan.learning_rate, "steps": str(plan.steps),
        "reading": str(plan.reading), "code": hash_code(),
    }  # fmt: skip
    return {
        cell: hash_value(
            {
                **vars(cell),
                **common,
                "graph": graphs[cell.network],
                "facts": chips[cell.chip],
                "data": data[cell.network, cell.seed],
            }
        )
        for cell in cells
    }


def _read_cell(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the result of a finished cell with the same inputs, or None."""
    try:
        content = json.loads((folder / CELL).read_text(encoding="utf-8"))
        row = dict(content["row"])
        return row if content["key"] == key and content["digest"] == hash_value(row) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # not finished, or damaged: it runs again


def _run_cell(shared: _Shared, job: tuple[Cell, str]) -> dict[str, Any]:
    """Prune one combination, write its result, and return it; a combination that cannot be has the sentence that says why."""
    cell, key = job
    plan, folder = shared.plan, shared.folder / cell.name
    row: dict[str, Any] = {**vars(cell), "folder": cell.name}
    try:
        facts = prune(
            shared.networks[cell.network], plan.find_chip(cell.chip), plan.find_data(), out=folder, synops=cell.budget,
            method=None if cell.method == DEFAULT else cell.method, seed=cell.seed, episodes=plan.episodes, epochs=plan.epochs,
            learning_rate=plan.learning_rate, steps=plan.steps, encoding=plan.encoding, device=shared.device, completes=False,
            progress=prefix_stage(shared.progress, cell.name),
        )  # fmt: skip
    except FileError:
        raise  # the folder, not the combination
    except SpearError as error:
        if isinstance(error, ChipError) and error.adapting:
            named = (plan.find_network(cell.network), "--chip", plan.find_chip(cell.chip), "--data", plan.find_data())
            error.adapting = shlex.join(named)
        row["error"] = str(error)
        forget_learning(folder)
    else:
        names = ("accuracy", "synops", "verdict", "cores_used", "cores_limit", "met", "batches", "seconds", "notes", "widths")
        row |= {name: facts[name] for name in names}
        if cell.method == DEFAULT:
            row["method"] = facts["method"] or DEFAULT
    write_json(folder / CELL, {"key": key, "row": row, "digest": hash_value(row)})
    return row
