"""Adaptation as a stage of a deployment, and its facts read again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from spear_deploy.adaptation.reach import exceeds_fixed
from spear_deploy.budget.check import check
from spear_deploy.data import Dataset
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.errors import ChipError, FileError
from spear_deploy.hardware.profile import HardwareProfile, hash_profile
from spear_deploy.interchange.snn_file import hash_network, write_snn
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.classes import count_classes, read_decision
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api
from spear_deploy.pipeline.adaptation.adapt_network import adapt_network
from spear_deploy.pipeline.adaptation.results import ADAPTED, FACTS, TRAINED, describe_adapted
from spear_deploy.pipeline.adaptation.task import HOST, AdaptSettings, AdaptTask
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.inputs import load_for, require_integers
from spear_deploy.pipeline.preflight import require_steps
from spear_deploy.pipeline.stage_cache import StageCache, StageOutput
from spear_deploy.quantize.fold import fold_chained_weights
from spear_deploy.quantize.for_chip import require_unsigned
from spear_deploy.report.tables import count_kinds
from spear_deploy.training.learning_store import LearningStore, forget_learning
from spear_deploy.util.files import write_json
from spear_deploy.util.number_format import plural
from spear_deploy.util.workers import give_logs


def adapt_for_deployment(
    cache: StageCache, net: api.Net, chip: api.Chip, data: str | os.PathLike[str] | Dataset, settings: DeploySettings
) -> api.Net:
    """Return the network of a deployment: adapted, by a stage of its own, where the chip lacks a part of it.

    So is one whose readout moves to the host. What the integers of the chip refuse it lacks too: a weighted sum at the output,
    which no neuron takes, or a potential over steps on Akida.

    Where nothing is to replace, or the network holds integers, the given one is returned and no file is written.

    Raises:
        ChipError: something is left that the chip lacks; names what it would need.
        UnsupportedError: a readout that a host cannot integrate.
    """
    (cache.folder / FACTS).unlink(missing_ok=True)
    profile, chips = api.resolve_chip(chip, settings.overrides)
    network = load_for(net, data)
    if (held := find_chip_format(network)) is None:
        require_integers(profile)
    folded = fold_chained_weights(network)
    if held is not None:
        return network
    is_on_host = settings.readout == HOST
    if not is_on_host and not has_to_change(folded, profile, chips=chips):
        return network
    network = folded
    dataset = _read_data(network, profile, data, settings)
    task = AdaptTask(
        network=network, profile=profile, chips=chips, dataset=dataset,
        settings=AdaptSettings(
            seed=settings.seed, readout=settings.readout, device=settings.device,
            workers=give_logs(settings.workers, cache.folder),
        ),
        progress=cache.progress, store=LearningStore(cache.folder, cache.progress),
    )  # fmt: skip

    def run() -> StageOutput:
        write_snn(network, cache.folder / TRAINED)
        facts = describe_adapted(adapt_network(task), task, cache.folder, quantises=False)
        forget_learning(cache.folder)
        return StageOutput(files=(ADAPTED, TRAINED), value=facts)

    inputs = {
        "network": hash_network(network),
        "chip": hash_profile(profile),
        "data": hash_dataset(dataset),
        "seed": settings.seed,
        **({"readout": HOST} if is_on_host else {}),
        **({} if settings.device == "cpu" else {"device": settings.device}),
    }
    facts = cache.run("adapt", inputs, run).value
    if facts["missing"]:
        raise ChipError(
            f"chip '{profile.name}' lacks what this network needs, and nothing replaces it: {'; '.join(facts['missing'])}"
        )
    if not facts["replaced"]:
        return network
    write_json(cache.folder / FACTS, facts)
    return api.load(cache.folder / ADAPTED)


def _read_data(
    network: SNNGraph, profile: HardwareProfile, data: str | os.PathLike[str] | Dataset, settings: DeploySettings
) -> Dataset:
    """Return the data of an adaptation, of the network's shape, classes and steps, and of signs that the chip takes."""
    dataset = api.data(data, network, seed=settings.seed, steps=settings.steps, encoding=settings.encoding)
    dataset.check(network.input_shape, count_classes(network), read_decision(network))
    coding = {} if isinstance(data, Dataset) else {"seed": settings.seed, "encoding": settings.encoding}
    require_steps(settings.steps, data, network, dataset, **coding)
    require_unsigned(profile, dataset.train.x, dataset.kind, f"data '{dataset.name}'")
    return dataset


def has_to_change(network: SNNGraph, profile: HardwareProfile, *, chips: int) -> bool:
    """Return whether a chip lacks a part of a network, its integers refuse one, or it has fewer inputs."""
    report = check(network, profile, chips=chips, remedies=False)
    return bool(report.unsupported) or exceeds_fixed(report)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Replacement(_Strict):
    kind: str


class _Accuracy(_Strict):
    trained: float
    adapted: float


class _Adaptation(_Strict):
    """What the file must hold."""

    chip: str
    replaced: list[_Replacement]
    accuracy: _Accuracy


class _Step(_Strict):
    after: str
    kind: str
    accuracy: float


class _AdaptedFile(_Adaptation):
    """What the file must hold beside the network that it is of."""

    adapted_digest: str
    waterfall: list[_Step]


def read_adaptation(folder: Path) -> dict[str, Any] | None:
    """Return what was replaced in the deployment of a folder, None where nothing was.

    Raises:
        FileError: the file is damaged.
    """
    path = folder / FACTS
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
        _Adaptation.model_validate_json(content)
        return dict(json.loads(content))
    except (OSError, ValueError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise FileError(f"file '{path}': is damaged ({why}); run the deployment again with --fresh") from error


def find_adaptation(net: api.Net, graph: SNNGraph, chip: str) -> dict[str, Any] | None:
    """Return what was replaced in a network for a chip, from the facts beside its file: {chip, replaced, accuracy, waterfall}.

    None where there are none, or where they are damaged, or of another network or chip.

    Args:
        net: as named.
        graph: the same, loaded.
        chip: name of its profile.
    """
    if not isinstance(net, (str, os.PathLike)) or not Path(net).is_file():
        return None
    try:
        content = (Path(net).parent / FACTS).read_bytes()
        facts = _AdaptedFile.model_validate_json(content)
        if facts.chip != chip or facts.adapted_digest != hash_network(graph):
            return None
        whole = json.loads(content)
    except (OSError, ValueError, RecursionError):
        return None
    return {name: whole[name] for name in ("chip", "replaced", "accuracy", "waterfall")}


def note_adaptation(facts: Mapping[str, Any]) -> str:
    """Return a sentence on what was replaced."""
    accuracy, replaced = facts["accuracy"], facts["replaced"]
    return (
        f"adapted to {facts['chip']}: {plural(len(replaced), 'part')} replaced ({count_kinds(replaced)}); accuracy of the "
        f"trained network {accuracy['trained']:.2%}, of the adapted one {accuracy['adapted']:.2%}; {FACTS} lists the steps"
    )
