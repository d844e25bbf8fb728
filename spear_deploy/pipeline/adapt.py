"""Adaptation of a trained network: replacement, learning and measurement by step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from spear_deploy.data import Dataset
from spear_deploy.errors import DataError
from spear_deploy.network.classes import count_classes, read_decision
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api
from spear_deploy.pipeline.adaptation.adapt_network import adapt_network
from spear_deploy.pipeline.adaptation.results import FACTS, RESULTS, describe_adapted
from spear_deploy.pipeline.adaptation.task import AdaptSettings, AdaptTask
from spear_deploy.pipeline.inputs import DATA_OPTIONS, NETWORK_OPTIONS, load_for, merge_options, split_options
from spear_deploy.pipeline.result import add_header, describe_run
from spear_deploy.quantize.fold import fold_chained_weights
from spear_deploy.quantize.for_chip import require_unsigned
from spear_deploy.report import write_report
from spear_deploy.report.adaptation_page import PAGE
from spear_deploy.training.device import choose_device
from spear_deploy.training.learning_store import LearningStore, forget_learning
from spear_deploy.util.extras import require_packages
from spear_deploy.util.files import write_json
from spear_deploy.util.folder_lock import own_folder, require_kept
from spear_deploy.util.progress import Progress
from spear_deploy.util.workers import give_logs


def adapt(
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset | None = None,
    *,
    out: str | os.PathLike[str],
    settings: AdaptSettings | None = None,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    command: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Replace what a chip lacks, learn it, and write `adapted.snn`, `integers.snn`, `adapt.json` and the page `adapt.html`.

    Fine-tuning that was stopped goes on from `learning-*.npz` in the same folder, behind the last epoch.

    Args:
        net: a file, a name, a torch model, `package.module:function` or an `SNNGraph` (`pipeline.inputs`).
        chip: name or file of a profile, or a `HardwareProfile`.
        data: a built-in name, a file, or a `Dataset`; without it only what needs no learning is replaced.
        out: folder for the files.
        settings: epochs, seed, device, workers, the place of the readout, and whether layers may become narrower.
        overrides: facts of the profile to replace, by dotted key.
        progress: is called while it learns.
        command: the command line, for the page.
        options: fields of `AdaptSettings` by name. How network and data are read: those of `load`, and `steps` and `encoding` of
            `load_data`.

    Returns:
        {chip, adapted_digest, labels (of layers in tables), replaced, accuracy {trained, adapted, integers}, waterfall, missing,
        verdict, cores_used, cores_limit, widths, notes, made, command, files, seconds}; integers are None where the family's are
        not built here. With a readout on the host also `host_readout` {what, outputs, weights, spikes_per_step}, and its numbers
        as an `.npz`.

    Raises:
        DataError: data that do not go with the network, options of data without any, or a device that is not there.
        UnsupportedError: a quantised network, or a readout that a host cannot integrate.
        TypeError: there is no such option.
    """
    begin = perf_counter()
    require_kept(out, RESULTS, net, data)
    reading, options = split_options(options, NETWORK_OPTIONS)
    coding, options = split_options(options, DATA_OPTIONS)
    settings = merge_options(settings or AdaptSettings(), options, "adapt")
    settings = replace(settings, device=choose_device(settings.device), workers=give_logs(settings.workers, Path(out)))
    profile, chips = api.resolve_chip(chip, overrides)
    network = fold_chained_weights(api.load(net, **reading) if data is None else load_for(net, data, **reading))
    dataset = _load_data(data, network, settings.seed, coding)
    if dataset is not None:  # learning would end in the same refusal
        require_unsigned(profile, dataset.train.x, dataset.kind, f"data '{dataset.name}'")
    with own_folder(out) as folder:
        task = AdaptTask(
            network=network, profile=profile, chips=chips, dataset=dataset, settings=settings, progress=progress,
            store=None if dataset is None else LearningStore(folder, progress),
        )  # fmt: skip
        facts = describe_adapted(adapt_network(task), task, folder)
        files = {**facts["files"], "report": PAGE}
        for name in set(RESULTS) - set(files.values()):  # of a run before, of another network or another readout
            (folder / name).unlink(missing_ok=True)
        facts = add_header({**facts, **describe_run(command), "files": files, "seconds": perf_counter() - begin}, network)
        facts["notes"] = [*(dataset.notes if dataset else []), *facts["notes"]]
        write_json(folder / FACTS, facts)
        write_report(folder, results=FACTS)
        forget_learning(folder)
    return facts


def _load_data(
    data: str | os.PathLike[str] | Dataset | None, network: SNNGraph, seed: int, coding: Mapping[str, Any]
) -> Dataset | None:
    """Return the data that the replacements learn from; None where none are given.

    Raises:
        DataError: data that do not go with the network, or options of how data are read without any.
    """
    if data is None:
        if coding:
            raise DataError(
                f"{next(iter(coding))}: says how data are read, and none are given; give data, or leave the option out"
            )
        return None
    require_packages("torch", "norse", user="adaptation")
    dataset = api.data(data, network, seed=seed, **coding)
    dataset.check(network.input_shape, count_classes(network), read_decision(network))
    return dataset
