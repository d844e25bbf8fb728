"""Which network, which chip and which data do these words stand for?

`net` is a file (`.snn`, `.nir`, `.net` / `.h5`), the network that ships ("digits"), `package.module:function` that returns a
Norse model, a Norse model, or an `SNNGraph`. `chip` is the name of a profile, a profile file, or a `HardwareProfile`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.network import Array, LoihiLIF, Shape
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.weight_bits import MAX_BIAS_EXPONENT, bias_bits
from spear_deploy.simulator import InputKind

if TYPE_CHECKING:
    from spear_deploy.data import Dataset
    from spear_deploy.hardware.profile import HardwareProfile

Net: TypeAlias = "SNNGraph | str | os.PathLike[str] | Any"
Chip: TypeAlias = "HardwareProfile | str | os.PathLike[str]"


def load(
    net: Net,
    *,
    input_shape: Shape | None = None,
    dt_s: float | None = None,
    reset: str | None = None,
    source: str | None = None,
    like: str | os.PathLike[str] | None = None,
) -> SNNGraph:
    """Return the network that `net` stands for; what had to be assumed is in its `metadata["assumptions"]`.

    Args:
        net: see the module.
        input_shape: of a Norse model that does not say it, without time and batch; of a netx file whose input is flat.
        like: data or an input file whose samples tell the input shape where nothing else does.
        dt_s: the time step of a NIR file, which has none of its own (default 1e-4 s, or that of the source).
        reset: of a NIR file: "value" (to v_reset) or "subtract".
        source: the framework that wrote a NIR file, e.g. "snntorch" (`interchange.nir.frameworks.FRAMEWORKS`).
    """
    if isinstance(net, SNNGraph):
        return net
    if isinstance(net, (str, os.PathLike)):
        name = os.fspath(net)
        if ":" in name and not Path(name).exists():
            from spear_deploy.norse.from_norse import from_norse, load_model

            _refuse_nir_options(name, reset=reset, source=source)
            model, shape = load_model(name, input_shape, fallback=None if like is None else lambda: _sample_shape(like))
            return from_norse(model, shape, dt_s=dt_s)
        from spear_deploy import interchange
        from spear_deploy.pipeline.shipped import NAMES, shipped_network

        if name in NAMES and not Path(name).exists():
            return shipped_network(name)
        return interchange.load(name, dt_s=dt_s, reset=reset, source=source, input_shape=input_shape)
    from spear_deploy.norse.from_norse import from_norse

    if not hasattr(net, "parameters"):
        raise DataError(f"net: {type(net).__name__} given, expected a network, a Norse model, a file or package.module:function")
    _refuse_nir_options("the model", reset=reset, source=source)
    if input_shape is None:
        raise DataError("a Norse model does not say the shape of its input; give input_shape, without time and batch")
    return from_norse(net, input_shape, dt_s=dt_s)


def load_both(a: Net, b: Net, *, like: str | os.PathLike[str] | None = None, **options: Any) -> tuple[SNNGraph, SNNGraph]:
    """Load two networks; each option of `load` goes to the one that takes it, so that a NIR file meets one that knows its dt."""
    given = {name: value for name, value in options.items() if value is not None}
    takes = (_options_of(a), _options_of(b))

    def own(first: int) -> dict[str, Any]:
        return {name: value for name, value in given.items() if name in takes[first] or name not in takes[1 - first]}

    return load(a, like=like, **own(0)), load(b, like=like, **own(1))


def _options_of(net: Net) -> tuple[str, ...]:
    from spear_deploy import interchange
    from spear_deploy.pipeline.shipped import NAMES

    if net in NAMES:
        return ()
    if isinstance(net, (str, os.PathLike)) and (Path(net).exists() or ":" not in os.fspath(net)):
        return interchange.reader_options(net)
    return () if isinstance(net, SNNGraph) else ("input_shape", "dt_s")


def _refuse_nir_options(name: str, **options: str | None) -> None:
    for option, value in options.items():
        if value is not None:
            raise DataError(f"{name}: a Norse model states its own {option}; leave the option out")


def _sample_shape(source: str | os.PathLike[str]) -> Shape:
    """Return the shape of one step of one sample of an input file or of data."""
    name = os.fspath(source)
    if name.endswith(".npz"):
        from spear_deploy.util.files import read_arrays

        arrays = read_arrays(name)
        for kind in ("spikes", "current"):
            if kind in arrays and arrays[kind].ndim > 2:
                return arrays[kind].shape[2:]
    from spear_deploy.data import load_data

    return load_data(name).input_shape


def profile(chip: Chip, overrides: Mapping[str, Any] | None = None) -> HardwareProfile:
    """Return the profile that `chip` stands for, with facts that the user knows better."""
    return target(chip, overrides)[0]


def target(chip: Chip, overrides: Mapping[str, Any] | None = None) -> tuple[HardwareProfile, int]:
    """Return the profile that `chip` stands for, and how many chips its board has."""
    from spear_deploy.hardware.profile import HardwareProfile, load_target, override_facts

    found, chips = (chip, 1) if isinstance(chip, HardwareProfile) else load_target(chip)
    return (override_facts(found, overrides) if overrides else found), chips


def quantize_for_chip(net: Net, chip: Chip, *, calibration: Array | None = None, kind: InputKind = "spikes") -> SNNGraph:
    """Return the integer network in the chip's formats; an integer network stays as it is.

    Args:
        net, chip: see the module; the family of the profile says which format.
        calibration, kind: input that scales are chosen on, see `quantize.quantize`.

    Raises:
        UnsupportedError: there are no integers for this family, or its spikes carry no values and the input is a current.
    """
    from spear_deploy.quantize import FORMATS, quantize

    graph, found = load(net), profile(chip)
    if kind == "current" and found.neuron.graded_spike_bits.max_value == 1 and found.meta.family == "loihi":
        raise UnsupportedError(
            f"input: a current is sent as spikes that carry a value, those of {found.name} carry none; code it as spikes "
            "(`spear_deploy.data.rate_code`), or take loihi2"
        )
    if graph.is_integer:
        _check_biases(graph, found)
        return graph
    family = found.meta.family
    if family not in FORMATS:
        raise UnsupportedError(
            f"profile '{found.name}': integers of the {family} family are not built yet; there are {', '.join(FORMATS)}"
        )
    limits: dict[str, Any] = {
        "max_spikes": found.neuron.max_spikes_per_step.max_value,
        "input_events": found.neuron.max_input_events_per_step.max_value,
    }
    return quantize(
        graph,
        format=family,
        weight_bits=min(8, max(found.weight_bits)),
        calibration=calibration,
        kind=kind,
        **{name: limit for name, limit in limits.items() if limit is not None and family == "xylo"},
    )


def _check_biases(graph: SNNGraph, found: HardwareProfile) -> None:
    most = found.neuron.bias_bits.max_value
    for layer in graph.layers:
        if most is not None and isinstance(layer.neuron, LoihiLIF) and (need := bias_bits(layer.neuron.bias)) > most:
            low, high = layer.neuron.bias.min(), layer.neuron.bias.max()
            raise UnsupportedError(
                f"layer '{layer.name}': bias {low}..{high} takes {need} bits, {found.name} holds {most} times 2^0 to "
                f"2^{MAX_BIAS_EXPONENT}; round it to fewer bits"
            )


def data(source: str | os.PathLike[str] | Dataset, graph: SNNGraph) -> Dataset:
    """Return the data called `source`, with samples of the network's shape."""
    from spear_deploy.data import load_data

    return load_data(source, input_shape=graph.input_shape)
