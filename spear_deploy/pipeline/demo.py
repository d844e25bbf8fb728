"""Demo: train on scikit-learn's digits, then deploy."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from spear_deploy.data import load_data
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import LI, LIF, Array, AvgPool, BatchNorm, Conv2d, Dense, Layer
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.pipeline import api, stages
from spear_deploy.pipeline.deploy import open_cache, run_stages
from spear_deploy.pipeline.deployment import Deployment, DeploySettings
from spear_deploy.pipeline.inputs import merge_options
from spear_deploy.pipeline.preflight import check_inputs, check_proofs, require_deployment
from spear_deploy.pipeline.stage_cache import StageOutput
from spear_deploy.training.device import choose_device
from spear_deploy.training.fit import train
from spear_deploy.training.recipe import Recipe
from spear_deploy.util.folder_lock import own_folder
from spear_deploy.util.progress import Progress

EPOCHS = 25


def demo(
    *,
    chip: api.Chip = "loihi2",
    out: str | os.PathLike[str] = "demo",
    settings: DeploySettings | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Deployment:
    """Train a small convolutional network on scikit-learn's digits and deploy it.

    Args:
        chip, out, settings, progress, options: those of `deploy`.

    Returns:
        What `deploy` returns.

    Raises:
        SpearError: the first stage that cannot go on; files of finished stages stay.
        TypeError: there is no such option.
    """
    settings = merge_options(settings or DeploySettings(), options, "demo")
    settings = replace(settings, device=choose_device(settings.device))
    with own_folder(out):
        return _train_and_deploy(chip, out, settings, progress)


def _train_and_deploy(
    chip: api.Chip, out: str | os.PathLike[str], settings: DeploySettings, progress: Progress | None
) -> Deployment:  # fmt: skip
    require_deployment(api.profile(chip, settings.overrides), "sklearn")
    cache = open_cache(out, settings, progress)
    seed, untrained = settings.seed, digits_network(settings.seed)
    dataset = load_data("digits", seed=seed)

    def train_network() -> StageOutput:
        recipe = Recipe(epochs=EPOCHS, seed=seed, device=settings.device)
        write_snn(train(untrained, dataset, recipe=recipe, progress=progress), cache.folder / stages.DENSE)
        return StageOutput(files=(stages.DENSE,))

    inputs = check_inputs(untrained, chip, dataset, seed=seed, overrides=settings.overrides)  # before anything is trained
    check_proofs(untrained, inputs.profile)
    device = {} if settings.device == "cpu" else {"device": settings.device}
    cache.run("train", {"data": hash_dataset(dataset), "seed": seed, **device}, train_network)
    return run_stages(cache, cache.folder / stages.DENSE, chip, "digits", settings)


def digits_network(seed: int = 0) -> SNNGraph:
    """Return the untrained network of the demo: 8x8 digits → conv 16 → pool → conv 32 → pool → dense 10 → readout.

    Membranes halve in every step (dt 1 ms, tau 2 ms), each convolution has a batch norm: without it, and with slower
    membranes, a network of this size stays silent.
    """
    rng = np.random.default_rng(seed)

    def uniform(*shape: int) -> Array:
        bound = 1 / np.sqrt(np.prod(shape[1:]))
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    def norm(channels: int) -> BatchNorm:
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        return BatchNorm(weight=one, bias=zero, mean=zero, var=one)

    def neuron() -> LIF:
        return LIF(tau_s=2e-3)  # type: ignore[arg-type]

    layers = (
        Layer(name="conv1", synapse=Conv2d(weight=uniform(16, 1, 3, 3), padding=(1, 1)), norm=norm(16), neuron=neuron()),
        Layer(name="pool1", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="conv2", synapse=Conv2d(weight=uniform(32, 16, 3, 3), padding=(1, 1)), norm=norm(32), neuron=neuron()),
        Layer(name="pool2", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(
            name="readout",
            synapse=Dense(weight=uniform(10, 128), bias=np.zeros(10, np.float32)),
            neuron=LI(tau_s=2e-3),  # type: ignore[arg-type]
        ),
    )
    return chain(layers, input_shape=(1, 8, 8), dt_s=1e-3)
