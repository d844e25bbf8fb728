"""Integers of small random networks for every family, as recorded: what chooses scales, shifts and thresholds shows in them.

python -m tests.quantize.test_recorded_integers        # writes the record, after a change that is meant to choose others
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_deploy.network import IF, LI, LIF, AvgPool, BatchNorm, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer, SumPool
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.quantize import quantize

RECORD = Path(__file__).with_name("recorded_integers.json")
SEEDS = {
    "loihi": 14, "speck": 14, "xylo": 14, "truenorth": 8, "spinnaker": 8, "reckon": 8, "odin": 8, "spinnaker2": 4,
    "brainscales": 4,
}  # fmt: skip
"""Networks of each family."""
DENSE_ONLY = ("xylo", "odin")
UNBIASED = ("reckon", "odin")
STEPS, SAMPLES = 14, 3
SAME = 1e-6
"""Relative difference of scales that another order of sums makes on another processor."""


def case(family: str, seed: int) -> tuple[SNNGraph, dict[str, Any]]:
    """Return a network that the family takes, and the options of `quantize`."""
    rng = np.random.default_rng([list(SEEDS).index(family), seed])
    convolves = family not in DENSE_ONLY and seed % 3 == 2
    shape = (2, 5, 5) if convolves else (9,)
    layers: list[Layer] = []
    if convolves:
        norm = BatchNorm(
            weight=rng.uniform(0.5, 2, 3), bias=rng.normal(size=3) / 8, mean=rng.normal(size=3) / 8, var=rng.uniform(0.5, 2, 3)
        )
        biased = family not in UNBIASED
        conv = Conv2d(weight=rng.normal(size=(3, 2, 2, 2)), bias=rng.normal(size=3) / 4 if biased else None)
        layers.append(
            Layer(name="conv", synapse=conv, norm=norm if biased and seed % 2 else None, neuron=spiking(family, rng, (3, 1, 1)))
        )
        pool = AvgPool if seed % 4 < 2 else SumPool
        layers += [Layer(name="pool", synapse=pool(kernel_size=(2, 2))), Layer(name="flatten", synapse=Flatten())]
    inputs = 12 if convolves else 9
    layers.append(Layer(name="hidden", synapse=dense(family, rng, (6, inputs)), neuron=spiking(family, rng, (6,))))
    if seed % 2 and family not in ("odin", "reckon"):
        layers[-1:] = [Layer(name="drive", synapse=layers[-1].synapse), Layer(name="hidden", neuron=layers[-1].neuron)]
    layers.append(Layer(name="out", synapse=dense(family, rng, (3, 6)), neuron=readout(family, rng)))
    graph = chain(layers, input_shape=shape, dt_s=1e-3)
    if seed % 2 and family not in ("odin", "reckon"):  # feedback beside the weights
        back = Layer(name="back", synapse=Dense(weight=rng.normal(size=(6, 6)) / 2))
        edges = [*graph.edges, Edge(source="hidden", target="back", delay=1), Edge(source="back", target="hidden")]
        places = [layer.name for layer in graph.layers].index("hidden")
        ordered = [*graph.layers[:places], back, *graph.layers[places:]]
        graph = SNNGraph(layers=ordered, edges=edges, input_shape=shape, output="out", dt_s=1e-3)
    return graph, options(family, rng, seed, shape)


def options(family: str, rng: np.random.Generator, seed: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return options: with data in two of three cases, a current in one, some with headroom or fewer bits."""
    given: dict[str, Any] = {}
    analogue = seed % 3 == 1 and family in ("loihi", "speck", "xylo", "spinnaker", "odin")
    if analogue:
        low = -1.0 if family == "loihi" else 0.0
        given |= {"kind": "current", "calibration": rng.uniform(low, 1, (STEPS, SAMPLES, *shape)).round(6)}
    elif seed % 4:
        given["calibration"] = rng.random((STEPS, SAMPLES, *shape)) < 0.4
    if seed % 5 == 4:
        given["headroom"] = {"hidden": 0.75}
    if seed % 4 == 3 and family not in ("spinnaker", "odin"):
        given["weight_bits"] = int(rng.integers(4, 7))
    return given


def dense(family: str, rng: np.random.Generator, shape: tuple[int, int]) -> Dense:
    """Return weights; ODIN's sources have one sign each."""
    weight = rng.normal(size=shape).round(6)
    if family == "odin":
        return Dense(weight=np.abs(weight) * rng.choice([-1.0, 1.0], shape[1]))
    bias = None if family in UNBIASED or rng.random() < 0.4 else (rng.normal(size=shape[0]) / 4).round(6)
    return Dense(weight=weight, bias=bias)


def spiking(family: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Return neurons of a model that the family has; half of the layers have a threshold for each channel."""
    threshold = rng.uniform(0.6, 1.6, shape if rng.random() < 0.5 and family != "reckon" else ()).round(3)
    subtracts = family == "xylo" or (rng.random() < 0.5 and family not in ("spinnaker", "odin"))
    reset = "subtract" if subtracts else "value"
    model = {"speck": 0, "truenorth": 0, "odin": 0, "brainscales": 2}.get(family)
    model = int(rng.integers(3)) if model is None else model
    if model == 0 and family in ("xylo", "spinnaker"):
        model = 1
    if model == 2 and family == "reckon":
        model = 1
    if model == 0:
        v_min = 0.0 if family == "odin" else -1.25 if family in ("speck", "truenorth", "loihi") and rng.random() < 0.5 else None
        v_reset = 0.0 if family in ("odin", "reckon") else float(rng.choice([0.0, 0.125]))
        return IF(v_threshold=threshold, reset=reset, v_min=v_min, v_reset=v_reset)
    tau = float(rng.choice([0.009, 0.016, 0.02])) if family == "reckon" else float(rng.choice([0.002, 0.005, 0.0085]))
    leak = 0.0 if family in ("reckon", "brainscales") else float(rng.choice([0.0, 0.0625]))
    level = leak if reset == "value" and family == "reckon" else 0.0
    common: dict[str, Any] = {"v_threshold": threshold, "reset": reset, "v_leak": leak, "v_reset": level, "r": 3.0}
    if model == 1:
        return LIF(tau_s=tau, **common)
    return CubaLIF(tau_mem_s=tau, tau_syn_s=float(rng.choice([0.002, 0.003])), w_in=2.0, **common)


def readout(family: str, rng: np.random.Generator) -> Any:
    """Return the neurons at the end: a readout where the family has one, in half of the networks."""
    if family == "brainscales" or (family in ("loihi", "xylo", "spinnaker") and rng.random() < 0.25):
        return CubaLI(tau_mem_s=0.006, tau_syn_s=0.003, w_in=2.0)
    if family in ("loihi", "xylo", "spinnaker", "reckon") and rng.random() < 0.5:
        return LI(tau_s=0.006, v_leak=0.0 if family == "reckon" else 0.0625)
    return spiking(family, rng, (3,))


def describe(family: str, seed: int) -> dict[str, Any]:
    """Return the integers of a case, and what is said of them."""
    graph, given = case(family, seed)
    integer = quantize(graph, format=family, **given)
    return {"facts": plain(integer.metadata["quantization"]), **read_layers(integer)}


def read_layers(graph: SNNGraph) -> dict[str, Any]:
    """Return weights and neurons by layer."""
    layers: dict[str, Any] = {}
    for layer in graph.layers:
        parts = {"model": type(layer.neuron).__name__, **sums(layer)}
        for part in (layer.synapse, layer.neuron):
            for field in fields(part) if part is not None else ():
                value = getattr(part, field.name)
                if field.name != "weight" and value is not None:
                    parts[field.name] = plain(value)
        layers[layer.name] = parts
    return layers


def sums(layer: Layer) -> dict[str, Any]:
    """Return what differs with each weight: the weights' shape, sum, and sums by place."""
    weight = getattr(layer.synapse, "weight", None)
    if weight is None:
        return {}
    flat = np.asarray(weight).reshape(-1)
    places = np.arange(1, flat.size + 1) % 97
    return {"weight": [list(np.shape(weight)), plain(flat.sum()), plain(np.abs(flat).sum()), plain((flat * places).sum())]}


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    return float(f"{value:.9g}") if isinstance(value, float) else value


def differences(wanted: Any, got: Any, where: str = "") -> list[str]:
    """Return the places at which a value is not as recorded; a field that a neuron has got since then is none."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        lost = [f"{where}.{key}: lost" for key in wanted.keys() - got.keys()]
        return lost + [
            line for key in wanted.keys() & got.keys() for line in differences(wanted[key], got[key], f"{where}.{key}")
        ]
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        return [line for n, pair in enumerate(zip(wanted, got, strict=True)) for line in differences(*pair, f"{where}[{n}]")]
    if isinstance(wanted, float) and isinstance(got, (int, float)):
        return [] if math.isclose(wanted, got, rel_tol=SAME, abs_tol=SAME) else [f"{where}: {wanted} was recorded, {got} now"]
    return [] if wanted == got else [f"{where}: {wanted} was recorded, {got} now"]


CASES = [(family, seed) for family, count in SEEDS.items() for seed in range(count)]


@pytest.mark.parametrize(
    ("family", "seed"),
    [pytest.param(*case, marks=pytest.mark.slow if 2 * case[1] >= max(8, SEEDS[case[0]]) else ()) for case in CASES],
)
def test_integers_are_those_recorded(family, seed):
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    got = json.loads(json.dumps(describe(family, seed)))
    assert differences(recorded[f"{family} {seed}"], got) == []


def test_the_record_has_each_case_once():
    assert json.loads(RECORD.read_text(encoding="utf-8")).keys() == {f"{family} {seed}" for family, seed in CASES}


if __name__ == "__main__":
    rows = [f'"{family} {seed}": {json.dumps(describe(family, seed))}' for family, seed in CASES]
    RECORD.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
