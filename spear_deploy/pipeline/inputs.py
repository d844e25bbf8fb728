"""Networks, chips, data and options as users give them.

`net` is a file (`.snn`, `.nir`, `.net` / `.h5`), the network that ships ("digits"), a torch model of Norse, snnTorch,
SpikingJelly, sinabs or Rockpool, `package.module:function` that returns one, a `nir.NIRGraph`, or an `SNNGraph`. `chip` is the
name of a profile, a profile file, or a `HardwareProfile`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from spear_deploy.errors import ChipError, DataError, UnsupportedError, did_you_mean
from spear_deploy.network import Array, LoihiLIF, Shape
from spear_deploy.network.classes import state_decision, state_outputs_per_class
from spear_deploy.network.graph import SNNGraph
from spear_deploy.placement.weight_bits import MAX_BIAS_EXPONENT, bias_bits
from spear_deploy.simulator import InputKind
from spear_deploy.util.extras import require_packages
from spear_deploy.util.number_format import plural

if TYPE_CHECKING:
    from spear_deploy.data import Dataset
    from spear_deploy.hardware.profile import HardwareProfile
    from spear_deploy.quantize import Format

Net: TypeAlias = "SNNGraph | str | os.PathLike[str] | Any"
Chip: TypeAlias = "HardwareProfile | str | os.PathLike[str]"
Settings = TypeVar("Settings")

ANSWER_OPTIONS = ("decision", "outputs_per_class")
NETWORK_OPTIONS = ("input_shape", "dt_s", "reset", "source", *ANSWER_OPTIONS)
"""Options of `load`, which every command that takes a network hands on."""
DATA_OPTIONS = ("steps", "encoding")
"""Options of `data.load_data`, which every command that takes data hands on."""


def load(
    net: Net,
    *,
    input_shape: Shape | None = None,
    dt_s: float | None = None,
    reset: str | None = None,
    source: str | None = None,
    decision: str | None = None,
    outputs_per_class: int | None = None,
    like: str | os.PathLike[str] | None = None,
) -> SNNGraph:
    """Load a network; `metadata["assumptions"]` lists assumptions that the file left open.

    Args:
        net: a file, a name, a torch model, `package.module:function`, a `nir.NIRGraph` or an `SNNGraph`.
        input_shape: without time and batch, of a model that does not state it, or of a netx file whose input is flat.
        like: data or an input file whose samples give the input shape, where nothing else does.
        dt_s: the time step of a NIR file, which has none of its own (default 1e-4 s, or that of the source).
        reset: of a NIR file: "value" (to v_reset), "subtract" or "none".
        source: the framework that wrote a NIR file, e.g. "snntorch" (`interchange.nir.frameworks.FRAMEWORKS`).
        decision: what decides for a class: the "mean" of its output over the steps, its "maximum", or that of the "last" step,
            or of "each" step for a class in each; what the model's forward does, or the file states, unless given, else the mean.
        outputs_per_class: outputs that stand for a class together, those of class 0 first, such as ten times fifty of a
            population code; what the file states unless given, else 1.

    Returns:
        The network; `print` lists its layers with their shapes.

    Raises:
        FileError: a file is missing, damaged or of another kind.
        DataError: an object of no known kind, an option of something that states its own, a decision that there is not, or
            outputs a class whose number does not divide them.
        UnsupportedError: a model that neither states its input shape nor determines it.
    """
    return _state_answer(_read(net, input_shape, dt_s, reset, source, like), decision, outputs_per_class)


def _state_answer(graph: SNNGraph, decision: str | None, outputs_per_class: int | None) -> SNNGraph:
    """Return a network with what is stated of how its outputs become a class."""
    graph = graph if decision is None else state_decision(graph, decision)
    return graph if outputs_per_class is None else state_outputs_per_class(graph, outputs_per_class)


def _read(
    net: Net,
    input_shape: Shape | None,
    dt_s: float | None,
    reset: str | None,
    source: str | None,
    like: str | os.PathLike[str] | None,
) -> SNNGraph:
    """Read a network with the options of `load`."""
    if isinstance(net, SNNGraph):
        _refuse_options("a loaded network", input_shape=input_shape, dt_s=dt_s, reset=reset, source=source)
        return net
    if isinstance(net, (str, os.PathLike)):
        name = os.fspath(net)
        if ":" in name and not Path(name).exists():
            models = import_models(name)
            _refuse_options("a model", name, reset=reset, source=source)
            fallback = None if like is None else lambda: _read_sample_shape(like)
            return models.read_named(name, input_shape, fallback=fallback, dt_s=dt_s)
        from spear_deploy import interchange
        from spear_deploy.pipeline.shipped import NAMES, shipped_network

        if name in NAMES and not Path(name).exists():
            _refuse_options("a network that ships", name, input_shape=input_shape, dt_s=dt_s, reset=reset, source=source)
            return shipped_network(name)
        return interchange.load(name, dt_s=dt_s, reset=reset, source=source, input_shape=input_shape)
    if type(net).__name__ == "NIRGraph" and type(net).__module__.startswith("nir."):
        from spear_deploy.interchange.nir.reader import read_nir_graph

        _refuse_options("a nir.NIRGraph", input_shape=input_shape)
        return read_nir_graph(net, dt_s=dt_s, reset=reset, source=source)
    if not hasattr(net, "parameters"):
        raise DataError(
            f"net: {type(net).__name__} given, expected a network, a torch model, a nir.NIRGraph, a file or "
            "package.module:function"
        )
    _refuse_options("a model", reset=reset, source=source)
    models = import_models("a torch model")
    if input_shape is None and like is not None:
        input_shape = models.fit_input_shape(net, _read_sample_shape(like))
    return models.read_model(net, input_shape, dt_s=dt_s)


def load_for(net: Net, x: Array | Dataset | str | os.PathLike[str], **options: Any) -> SNNGraph:
    """Load a network that is to run on `x`, whose samples give the input shape of a model that states none.

    Args:
        net: see the module.
        x: (T, B, *input), data, or a file of either.
        options: of `load`; `input_shape` takes precedence over that of the samples.
    """
    check_options(options, NETWORK_OPTIONS, "load")
    is_spec = isinstance(net, str) and ":" in net and not Path(net).exists()
    is_graph = isinstance(net, SNNGraph) or type(net).__name__ == "NIRGraph"
    if options.get("input_shape") is not None or is_graph or (isinstance(net, (str, os.PathLike)) and not is_spec):
        return load(net, **options)
    if isinstance(x, (str, os.PathLike)):
        return load(net, like=x, **options)
    shape = tuple(x.shape[2:] if hasattr(x, "shape") else x.input_shape)
    if not isinstance(net, str):
        if hasattr(net, "parameters") and not hasattr(x, "shape"):
            shape = import_models("a torch model").fit_input_shape(net, shape)
        return load(net, **{**options, "input_shape": shape})
    _refuse_options("a model", net, reset=options.get("reset"), source=options.get("source"))
    models = import_models(net)
    graph: SNNGraph = models.read_named(net, fallback=lambda: shape, dt_s=options.get("dt_s"))
    return _state_answer(graph, options.get("decision"), options.get("outputs_per_class"))


def import_models(name: str) -> ModuleType:
    """Return the module that reads torch models.

    Args:
        name: of the model, for the message.

    Raises:
        MissingPackageError: torch is not installed.
    """
    require_packages("torch", user=f"'{name}': a torch model" if ":" in name else name)
    from spear_deploy.frameworks import models

    return models


def load_both(
    a: Net,
    b: Net,
    *,
    like: Array | str | os.PathLike[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[SNNGraph, SNNGraph]:
    """Load two networks; each option of `load` goes to the network that takes it.

    So the time step of a NIR file can be given where the other network has its own.

    Args:
        a, b: see the module.
        like: an input (T, B, *input) or its file, whose samples give the input shape where nothing else does.
        defaults: options of a project file, for the network that does not state its own.
        options: of `load`.

    Raises:
        TypeError: there is no such option.
    """
    check_options(options, NETWORK_OPTIONS, "load")
    set_options = {name: value for name, value in options.items() if value is not None}
    accepted = (_list_options(a), _list_options(b))

    def select(index: int) -> dict[str, Any]:
        own = {name: value for name, value in set_options.items() if name in accepted[index] or name not in accepted[1 - index]}
        return apply_defaults((a, b)[index], own, defaults or {})

    if like is None:
        return load(a, **select(0)), load(b, **select(1))
    return load_for(a, like, **select(0)), load_for(b, like, **select(1))


def apply_defaults(net: Net, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `load` that are set, and of the `defaults` of a project file those that a network takes."""
    return {**select_defaults(net, defaults), **{name: value for name, value in options.items() if value is not None}}


def select_defaults(net: Net, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the defaults of a project file that a network takes.

    A loaded network and a file that was written here take none: they state what decides for a class, which `adapt` may have
    changed.
    """
    if not defaults or isinstance(net, SNNGraph):
        return {}
    from spear_deploy import interchange

    states_answer = isinstance(net, (str, os.PathLike)) and interchange.states_answer(net)
    return {} if states_answer else select_options(net, defaults)


def select_options(net: Net, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options of `load`, stated for several networks, that a network takes and does not state itself."""
    if not options:
        return {}
    from spear_deploy import interchange

    states_steps = isinstance(net, (str, os.PathLike)) and interchange.states_steps(net)
    taken = ANSWER_OPTIONS if states_steps else _list_options(net)
    return {name: value for name, value in options.items() if name in taken}


def _list_options(net: Net) -> tuple[str, ...]:
    from spear_deploy import interchange
    from spear_deploy.pipeline.shipped import NAMES

    if isinstance(net, str) and net in NAMES:
        return ANSWER_OPTIONS
    if isinstance(net, (str, os.PathLike)) and (Path(net).exists() or ":" not in os.fspath(net)):
        return (*interchange.reader_options(net), *ANSWER_OPTIONS)
    if type(net).__name__ == "NIRGraph":
        return ("dt_s", "reset", "source", *ANSWER_OPTIONS)
    return ANSWER_OPTIONS if isinstance(net, SNNGraph) else ("input_shape", "dt_s", *ANSWER_OPTIONS)


def _refuse_options(kind: str, name: str = "net", **options: Any) -> None:
    """Refuse options of `load` that a network of this kind does not take.

    Raises:
        DataError: one is set.
    """
    for option, value in options.items():
        if value is not None:
            raise DataError(f"{name}: {kind} states its own {option}; leave the option out")


def _read_sample_shape(source: str | os.PathLike[str]) -> Shape:
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
    """Load the profile of a chip, with `overrides` in place of its facts, by dotted key."""
    return resolve_chip(chip, overrides)[0]


def resolve_chip(chip: Chip, overrides: Mapping[str, Any] | None = None) -> tuple[HardwareProfile, int]:
    """Load the profile of a chip, and return it with the number of chips of its board."""
    from spear_deploy.hardware.profile import HardwareProfile, load_target, override_facts

    loaded, chips = (chip, 1) if isinstance(chip, HardwareProfile) else load_target(chip)
    return (override_facts(loaded, overrides) if overrides else loaded), chips


def require_integers(target: HardwareProfile) -> Format:
    """Return the integer format of a chip.

    Raises:
        ChipError: those of its family are not known.
    """
    from spear_deploy.quantize import FORMATS

    family = target.meta.family
    if family not in FORMATS:
        raise ChipError(
            f"profile '{target.name}': no integers of the family '{family}' are known; known are those of {', '.join(FORMATS)}; "
            "name one of these in meta.family where the chip has its numbers, or stay in floating point with `check` and `prune`"
        )
    return family


def quantize_for_chip(net: Net, chip: Chip, *, calibration: Array | None = None, kind: InputKind = "spikes") -> SNNGraph:
    """Quantise a network to the chip's formats; one that is quantised to them is returned unchanged.

    Args:
        net, chip: see the module; the family of the profile gives the format.
        calibration, kind: input that scales are chosen on, see `quantize.quantize`.

    Raises:
        UnsupportedError: a network that is quantised for another chip.
        ChipError: this family has no integer format here, or none of the widths that the profile names, or lacks a part of the
            network, or its spikes carry no values and the input is a current.
    """
    from spear_deploy.quantize.for_chip import quantize_for_profile, require_values
    from spear_deploy.quantize.network import is_quantized

    graph, target = load(net), profile(chip)
    require_values(target, kind)
    if is_quantized(graph, require_integers(target), target.name):
        _check_biases(graph, target)
        return graph
    try:
        return quantize_for_profile(graph, target, calibration=calibration, kind=kind)
    except ChipError:
        raise
    except UnsupportedError as error:
        adapting = f"NET --chip {target.name} --data DATA" if _has_replacement(graph, target) else ""
        raise ChipError(error.refusal or str(error), adapting=adapting) from error


def _has_replacement(graph: SNNGraph, target: HardwareProfile) -> bool:
    """Return whether something stands in for a part that a chip lacks."""
    from spear_deploy.adaptation.table import find_replacements
    from spear_deploy.network.graph import merge_parts

    try:
        return next(find_replacements(merge_parts(graph), target), None) is not None
    except Exception:  # any failure: the refusal stands without advice
        return False


def _check_biases(graph: SNNGraph, target: HardwareProfile) -> None:
    max_bits = target.neuron.bias_bits.max_value
    for layer in graph.layers:
        if max_bits is not None and isinstance(layer.neuron, LoihiLIF) and (bits := bias_bits(layer.neuron.bias)) > max_bits:
            low, high = layer.neuron.bias.min(), layer.neuron.bias.max()
            raise ChipError(
                f"layer '{layer.name}': bias {low}..{high} takes {bits} bits, {target.name} holds {max_bits} times 2^0 to "
                f"2^{MAX_BIAS_EXPONENT}; round it to fewer bits"
            )


def data(source: str | os.PathLike[str] | Dataset, graph: SNNGraph, **options: Any) -> Dataset:
    """Load data with samples of the network's input shape, and of its number of steps where that was chosen.

    Args:
        source: of `load_data`.
        graph: the network.
        options: of `load_data`: `steps`, `encoding`, `seed`; None means its default. Of a range of steps the most.

    Raises:
        DataError: `steps` or `encoding` of a `Dataset`, or of samples that have other time steps or some at all.
    """
    from spear_deploy.data import Dataset
    from spear_deploy.data.time_steps import StepsRange, deployed_steps, largest_steps, list_steps, parse_steps, take_steps

    wanted, chosen = parse_steps(options.get("steps")), deployed_steps(graph)
    if chosen is None or (not isinstance(wanted, StepsRange) and wanted not in (None, *chosen)):
        dataset = _read_data(source, graph, **{**options, "steps": largest_steps(wanted)})
        if isinstance(wanted, int) and dataset.steps != wanted:
            raise DataError(
                f"data '{dataset.name}': the samples have {plural(dataset.steps, 'time step')} of their own, steps {wanted} "
                "given; leave the option out"
            )
        return dataset
    steps, trained = chosen
    number = None if isinstance(source, Dataset) else steps
    dataset = _read_data(source, graph, **{**options, "steps": number})
    return take_steps(dataset, steps) if dataset.steps == trained and steps in list_steps(dataset) else dataset


def data_with_steps(
    source: str | os.PathLike[str] | Dataset, graph: SNNGraph, dataset: Dataset, steps: int, **options: Any
) -> Dataset:
    """Return a dataset that was loaded by `data` with another number of steps: encoded or binned again, or in coarser bins.

    Args:
        source, options: those of `data`.
        graph: the network.
        dataset: with all steps; it becomes `full` of the result.
        steps: fewer.

    Raises:
        DataError: the samples cannot be given so many steps.
    """
    from spear_deploy.data import Dataset

    if steps == dataset.steps:
        return dataset
    again = dataset if isinstance(source, Dataset) else _read_data(source, graph, **{**options, "steps": steps})
    if again.steps != steps:
        from spear_deploy.data.time_steps import take_steps

        again = take_steps(dataset, steps)
    return replace(again, full=dataset)


def list_data_steps(source: str | os.PathLike[str] | Dataset, graph: SNNGraph, dataset: Dataset, **options: Any) -> Sequence[int]:
    """Return the numbers of steps that `data_with_steps` can give, from few to many."""
    from spear_deploy.data import Dataset
    from spear_deploy.data.labels import labels_each_step
    from spear_deploy.data.time_steps import list_steps

    if dataset.steps > 1 and not isinstance(source, Dataset) and not labels_each_step(dataset.train.y):
        fewer = dataset.steps - 1
        if _read_data(source, graph, **{**options, "steps": fewer}).steps == fewer:
            return range(1, dataset.steps + 1)
    return list_steps(dataset)


def _read_data(source: str | os.PathLike[str] | Dataset, graph: SNNGraph, **options: Any) -> Dataset:
    from spear_deploy.data import Dataset, load_data
    from spear_deploy.data.input_sums import original_shape, sum_inputs

    set_options = {name: value for name, value in options.items() if value is not None}
    if isinstance(source, Dataset):
        refuse_coding("a Dataset", set_options)
    shape = graph.input_shape
    if not (isinstance(source, Dataset) and source.input_shape == shape):
        shape = original_shape(graph)
    return sum_inputs(load_data(source, input_shape=shape, **set_options), graph)


def refuse_coding(kind: str, options: Iterable[str]) -> None:
    """Refuse options of data for something that has its time steps already.

    Raises:
        DataError: one is set.
    """
    for name in options:
        if name in DATA_OPTIONS:
            raise DataError(f"data: {kind} has its own {name}; leave the option out")


def merge_options(settings: Settings, options: Mapping[str, Any], command: str) -> Settings:
    """Return settings with some fields replaced by keyword options; an option that is None keeps the field.

    Args:
        settings: a frozen dataclass.
        options: by name of a field.
        command: the function that got the options, for the message.

    Raises:
        TypeError: an option is none of the fields.
    """
    check_options(options, [field.name for field in fields(settings)], command)  # type: ignore[arg-type]
    values = {name: value for name, value in options.items() if value is not None}
    return replace(settings, **values)  # type: ignore[type-var]


def split_options(options: Mapping[str, Any], names: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of these names, without those that are None, and all others.

    >>> split_options({"source": "sinabs", "dt_s": None, "seed": 3}, NETWORK_OPTIONS)
    ({'source': 'sinabs'}, {'seed': 3})
    """
    wanted = set(names)
    taken = {name: value for name, value in options.items() if name in wanted and value is not None}
    return taken, {name: value for name, value in options.items() if name not in wanted}


def load_named(
    net: Net, data_source: str | os.PathLike[str] | Dataset, options: Mapping[str, Any]
) -> tuple[Net, dict[str, Any], dict[str, Any]]:
    """Apply the options of networks among those of a command; the network is loaded only if one is set.

    Returns:
        (the network, the options of data that are set, all other options).
    """
    reading, rest = split_options(options, NETWORK_OPTIONS)
    coding, rest = split_options(rest, DATA_OPTIONS)
    return (load_for(net, data_source, **reading) if reading else net), coding, rest


def check_options(options: Iterable[str], known: Iterable[str], command: str) -> None:
    """Check the names of keyword options.

    Raises:
        TypeError: an option is not known.
    """
    names = list(known)
    for name in options:
        if name not in names:
            raise TypeError(f"{command}: there is no option '{name}'; expected {', '.join(names)}{did_you_mean(name, names)}")
