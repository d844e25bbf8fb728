"""Verdicts of the makers' own compilers on described networks; runs in an environment that has them.

    python vendor_mappers.py speck|xylo_audio2|xylo_audio3|xylo_imu|akida|loihi1 NETWORKS.json ANSWERS.json

A network is `{"input": [...], "layers": [...]}`; an answer `{"fits": bool, "why": text, "by": "mapper" | "documents"}`, for Speck
with `memory`, sinabs' words of kernels, neurons and biases by layer, for Loihi with `cores`, nengo-loihi's neurons, axons in and
out and bits of synapses by core. What the mapper does not look at, and the maker's documents limit, is checked on the
configuration that the mapper returns, by numbers written here anew.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


# ---------------------------------------------------------------------------------------------------------------- Speck


def speck(network: dict) -> dict:
    """Map with sinabs: `DynapcnnNetwork`, its memory summary, and the matching of layers to cores."""
    import numpy as np
    import sinabs.layers as sl
    from sinabs.backend.dynapcnn import DynapcnnNetwork
    from sinabs.backend.dynapcnn.chips.dynapcnn import DynapcnnConfigBuilder
    from sinabs.backend.dynapcnn.mapping import get_valid_mapping
    from torch import nn

    torch_layers: list = []
    shape = tuple(network["input"])
    for layer in network["layers"]:
        kind = layer["kind"]
        if kind == "conv":
            torch_layers.append(
                nn.Conv2d(shape[0], layer["out"], layer["kernel"], layer["stride"], layer["padding"], bias=layer["bias"])
            )
            side = [(n + 2 * layer["padding"] - layer["kernel"]) // layer["stride"] + 1 for n in shape[1:]]
            shape = (layer["out"], *side)
            torch_layers.append(sl.IAFSqueeze(batch_size=1, min_v_mem=-1.0))
        elif kind in ("sumpool", "avgpool"):
            window = layer["window"]
            torch_layers.append((sl.SumPool2d if kind == "sumpool" else nn.AvgPool2d)(window))
            shape = (shape[0], *(n // w for n, w in zip(shape[1:], window, strict=True)))
        else:
            if not any(isinstance(part, nn.Linear) for part in torch_layers):  # a second flatten is a cycle to sinabs
                torch_layers.append(nn.Flatten())
            torch_layers.append(nn.Linear(int(np.prod(shape)), layer["out"], bias=layer["bias"]))
            torch_layers.append(sl.IAFSqueeze(batch_size=1, min_v_mem=-1.0))
            shape = (layer["out"], 1, 1)
    by_dvs = network["layers"][0]["kind"] in ("sumpool", "avgpool")  # what the DVS layer is for
    compiled = DynapcnnNetwork(nn.Sequential(*torch_layers), input_shape=tuple(network["input"]), dvs_input=by_dvs)
    layers = compiled.dynapcnn_layers
    memory = [list(layers[index].memory_summary().values()) for index in sorted(layers)]
    cores = get_valid_mapping(layers, DynapcnnConfigBuilder.get_constraints())
    problems = []
    for index in sorted(layers):
        destinations = [d if d in layers else -1 for d in compiled.layer_destination_map[index]]
        config = DynapcnnConfigBuilder.get_dynapcnn_layer_config_dict(layers[index], cores, destinations)
        size = config["dimensions"]
        steps = (size["stride"]["x"], size["stride"]["y"])
        limits = {
            "a pool beyond 1, 2, 4": all(d["pooling"] in (1, 2, 4) for d in config["destinations"]),
            "a stride beyond 1, 2, 4, 8": all(s in (1, 2, 4, 8) for s in steps),
            "a kernel above 16": size["kernel_size"] <= 16,
            "padding above 7": max(size["padding"].values()) <= 7,
            "an input above 128 x 128": max(size["input_shape"]["size"].values()) <= 128,
            "an output above 64 x 64": max(size["output_shape"]["size"].values()) <= 64,
            "more than 1024 channels": max(size[s]["feature_count"] for s in ("input_shape", "output_shape")) <= 1024,
        }
        problems += [f"layer {index}: {what}" for what, holds in limits.items() if not holds]
    dvs = compiled.dvs_layer
    if dvs is not None:
        window = max(dvs.get_pooling())
        problems += [] if window in (1, 2, 4) and max(dvs.input_shape[1:]) <= 128 else ["the DVS layer: its pool or size"]
    return {"fits": not problems, "why": "; ".join(problems), "by": "documents", "memory": memory}


# ----------------------------------------------------------------------------------------------------------------- Xylo

XYLO = {
    "xylo_audio2": ("syns61201", 32000, 64, 1000, 8),
    "xylo_audio3": ("syns65302", 31744, 1024, 128, 32),
    "xylo_imu": ("syns63300", 31744, 512, 128, 16),
}
"""By chip: rockpool's module; entries of the fan-out list; fan-out of a neuron; neurons that input and outputs reach; outputs."""


def xylo(network: dict, chip: str) -> dict:
    """Map with rockpool: graph, design rules, allocation, quantisation and configuration."""
    import importlib

    import numpy as np
    import rockpool.nn.modules as modules
    from rockpool.nn.combinators import Sequential
    from rockpool.transform.quantize_methods import global_quantize

    module, entries, fan_out, reach, outputs = XYLO[chip]
    before, parts = network["input"][0], []
    rng = np.random.default_rng(0)
    for layer in network["layers"]:
        weight = rng.uniform(0.5, 1, (before, layer["out"]))
        parts.append(modules.Linear((before, layer["out"]), weight=weight, has_bias=False))
        options = {"dt": 1e-3, "threshold": np.ones(layer["out"]), "bias": np.zeros(layer["out"])}
        options["tau_mem"] = np.full(layer["out"], layer["tau_mem"] * 1e-3)
        options["tau_syn"] = np.full((layer["out"], 1), layer["tau_syn"] * 1e-3)
        if layer["degree"]:
            loop = sum(np.roll(np.eye(layer["out"]), k, axis=1) for k in range(min(layer["degree"], layer["out"])))
            options |= {"has_rec": True, "w_rec": loop}
        parts.append(modules.LIF((layer["out"],), **options))
        before = layer["out"]
    package = importlib.import_module(f"rockpool.devices.xylo.{module}.xylo_mapper")
    samna = importlib.import_module(f"rockpool.devices.xylo.{module}.xylo_samna")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spec = package.mapper(Sequential(*parts).as_graph(), weight_dtype="float", threshold_dtype="float", dash_dtype="float")
        spec["mapped_graph"] = None
        spec = {name: value for name, value in spec.items() if name != "mapped_graph"}
        quantised = {**spec, **global_quantize(**spec)}
        quantised.pop("dt", None)
        samna.config_from_specification(**quantised)
    texts = [str(warning.message) for warning in caught]
    problems = [text for text in texts if "only supports up to" in text and "16 output channels" not in text]
    recurrent = np.asarray(spec["weights_rec"]).reshape(len(spec["dash_mem"]), len(spec["dash_mem"]), -1)[..., 0] != 0
    reached = np.asarray(spec["weights_in"]).shape[1] if chip != "xylo_audio2" else 0
    read = np.asarray(spec["weights_out"]).shape[0] if chip != "xylo_audio2" else 0
    limits = {
        f"{recurrent.sum()} entries of a fan-out list of {entries}": recurrent.sum() <= entries,
        f"a fan-out of {recurrent.sum(axis=1).max()}": recurrent.sum(axis=1).max() <= fan_out,
        f"{reached} neurons that the input reaches": reached <= reach,
        f"{read} neurons that outputs read": read <= reach,
        f"{len(spec['dash_mem_out'])} outputs": len(spec["dash_mem_out"]) <= outputs,
    }
    problems += [what for what, holds in limits.items() if not holds]
    return {"fits": not problems, "why": "; ".join(problems), "by": "documents"}


# ---------------------------------------------------------------------------------------------------------------- Akida


def akida_1000(network: dict) -> dict:
    """Map on a virtual AKD1000, in hardware alone."""
    import akida

    model = akida.Model()
    height, width, channels = network["input"][1], network["input"][2], network["input"][0]
    model.add(akida.InputData(input_shape=(height, width, channels), input_bits=4))
    for layer in network["layers"]:
        if layer["kind"] == "conv":
            side = (layer["kernel"],) * 2
            model.add(
                akida.Convolutional(
                    filters=layer["out"], kernel_size=side, kernel_stride=(layer["stride"],) * 2, padding=akida.Padding.Same,
                    weights_bits=4,
                )
            )  # fmt: skip
        else:
            model.add(akida.FullyConnected(units=layer["out"], weights_bits=4))
    model.map(akida.AKD1000(), hw_only=True)
    return {"fits": True, "why": "", "by": "mapper"}


# ---------------------------------------------------------------------------------------------------------------- Loihi


def loihi_1(network: dict) -> dict:
    """Build with nengo-loihi, which splits layers and validates each core, and allocate the cores of one chip.

    The input is neurons off the chip. Weights are random: nengo-loihi stores equal ones once.
    """
    import nengo
    import nengo_loihi
    import numpy as np
    from nengo_loihi.hardware.allocators import Greedy
    from nengo_loihi.hardware.validate import validate_board

    rng, shape = np.random.default_rng(0), tuple(network["input"])

    def ensemble(size: int, neuron: object) -> object:
        return nengo.Ensemble(size, 1, neuron_type=neuron, gain=np.ones(size), bias=np.zeros(size))

    with nengo.Network(seed=0) as net:
        nengo_loihi.add_params(net)
        before = ensemble(int(np.prod(shape)), nengo.SpikingRectifiedLinear())
        net.config[before].on_chip = False
        for layer in network["layers"]:
            if layer["kind"] == "conv":
                transform = nengo.Convolution(
                    layer["out"], shape, kernel_size=(layer["kernel"],) * 2, strides=(layer["stride"],) * 2, padding="valid",
                    channels_last=False,
                )  # fmt: skip
                shape = transform.output_shape.shape
            else:
                shape = (layer["out"],)
                transform = rng.normal(size=(layer["out"], before.n_neurons))
            after = ensemble(int(np.prod(shape)), nengo_loihi.neurons.LoihiSpikingRectifiedLinear())
            nengo.Connection(before.neurons, after.neurons, transform=transform, synapse=None)
            if layer.get("loop"):
                nengo.Connection(after.neurons, after.neurons, transform=rng.normal(size=(layer["out"],) * 2), synapse=None)
            before = after
    with nengo_loihi.Simulator(net, target="sim", progress_bar=False) as simulator:
        blocks = list(simulator.model.blocks)
        validate_board(Greedy()(simulator.model, 1))
    cores = [[int(used) for used, _ in block.utilization().values()] for block in blocks]
    return {"fits": True, "why": "", "by": "mapper", "cores": cores}


def main() -> None:
    """Answer all networks."""
    chip, networks, answers = sys.argv[1:]
    if chip not in ("akida", "loihi1"):
        import samna_stand_in

        samna_stand_in.install()
    mapper = {"speck": speck, "akida": akida_1000, "loihi1": loihi_1}.get(chip) or (lambda network: xylo(network, chip))
    result = []
    for network in json.loads(Path(networks).read_text()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result.append(mapper(network))
        except Exception as error:  # the compilers refuse by exceptions of all kinds
            chain, causes = error, [f"{type(error).__name__}: {error}"]
            while chain.__cause__ is not None:
                chain = chain.__cause__
                causes.append(f"{type(chain).__name__}: {chain}")
            result.append({"fits": False, "why": " <- ".join(causes)[:500], "by": "mapper"})
    Path(answers).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
