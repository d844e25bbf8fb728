"""What can a person ask for? The verbs of the command line, as functions.

`net` is a file (`.snn`, `.nir`, `.net` / `.h5`), `package.module:function` that returns a Norse model, a Norse model, or an
`SNNGraph`. `chip` is the name of a profile, a profile file, or a `HardwareProfile`. Everything else is data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from spear_deploy import comparison, simulator
from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.graph import SNNGraph
from spear_deploy.layers import Array, Shape
from spear_deploy.simulator import ChipRun, InputKind, Record, SpikeCounts

if TYPE_CHECKING:
    from spear_deploy.budget import BudgetReport
    from spear_deploy.data import Dataset
    from spear_deploy.profile import HardwareProfile

Net: TypeAlias = "SNNGraph | str | os.PathLike[str] | Any"
Chip: TypeAlias = "HardwareProfile | str | os.PathLike[str]"
Backend: TypeAlias = Literal["fast", "lava"]
Progress: TypeAlias = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Count:
    """SynOps and rates of a network on data, per inference, mean over samples.

    Attributes:
        synops_total, synops_per_layer, macs_first_layer: see `synops.SynOps`.
        rates: spikes per neuron and step by layer.
        samples, steps: what was counted over.
        rules: what other tools' rules would say, or None.
    """

    synops_total: float
    synops_per_layer: dict[str, float]
    macs_first_layer: float
    rates: dict[str, float]
    samples: int
    steps: int
    rules: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        shown = {name: value for name, value in vars(self).items() if name != "rules"}
        return shown if self.rules is None else {**shown, "rules": self.rules}


def load(
    net: Net,
    *,
    input_shape: Shape | None = None,
    dt_s: float | None = None,
    reset: str | None = None,
    like: str | os.PathLike[str] | None = None,
) -> SNNGraph:
    """Return the network that `net` stands for.

    Args:
        net: see the module.
        input_shape: of a Norse model that does not say it, without time and batch; of a netx file whose input is flat.
        like: data or an input file whose samples tell the input shape where nothing else does.
        dt_s: the time step of a NIR file, which has none of its own (default 1e-4 s).
        reset: of a NIR file: "value" (to v_reset) or "subtract".
    """
    if isinstance(net, SNNGraph):
        return net
    if isinstance(net, (str, os.PathLike)):
        name = os.fspath(net)
        if ":" in name and not Path(name).exists():
            from spear_deploy.interchange.norse_model import from_norse, load_model

            _refuse_reset(reset, name)
            model, shape = load_model(name, input_shape, fallback=None if like is None else lambda: _sample_shape(like))
            return from_norse(model, shape, dt_s=dt_s)
        from spear_deploy import interchange

        return interchange.load(name, dt_s=dt_s, reset=reset, input_shape=input_shape)
    from spear_deploy.interchange.norse_model import from_norse

    if not hasattr(net, "parameters"):
        raise DataError(f"net: {type(net).__name__} given, expected a network, a Norse model, a file or package.module:function")
    _refuse_reset(reset, "the model")
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

    if isinstance(net, (str, os.PathLike)) and (Path(net).exists() or ":" not in os.fspath(net)):
        return interchange.options_of(net)
    return () if isinstance(net, SNNGraph) else ("input_shape", "dt_s")


def _refuse_reset(reset: str | None, name: str) -> None:
    if reset is not None:
        raise DataError(f"{name}: a Norse model states its own reset; leave the option out")


def _sample_shape(source: str | os.PathLike[str]) -> Shape:
    """Return the shape of one step of one sample of an input file or of data."""
    name = os.fspath(source)
    if name.endswith(".npz"):
        from spear_deploy.recordings import read_arrays

        arrays = read_arrays(name)
        for kind in ("spikes", "current"):
            if kind in arrays and arrays[kind].ndim > 2:
                return arrays[kind].shape[2:]
    from spear_deploy.data import load_data

    return load_data(name).input_shape


def profile(chip: Chip, overrides: Mapping[str, float] | None = None) -> HardwareProfile:
    """Return the profile that `chip` stands for, with numbers that the user knows better."""
    from spear_deploy.profile import HardwareProfile, load_profile, with_overrides

    found = chip if isinstance(chip, HardwareProfile) else load_profile(chip)
    return with_overrides(found, overrides) if overrides else found


def check(
    net: Net,
    chip: Chip,
    *,
    chips: int = 1,
    synops: float | None = None,
    activity: SpikeCounts | float | str | os.PathLike[str] | None = None,
    overrides: Mapping[str, float] | None = None,
) -> BudgetReport:
    """Say whether a network fits a chip, resource by resource, and what to change where it does not.

    Args:
        net, chip: see the module.
        chips: how many chips there are.
        synops: a limit on SynOps per inference, if there is one.
        activity: spike counts, a rate (spikes per neuron and step), or a file that `recordings.read_activity` reads;
            without it, what depends on activity stays open.
        overrides: numbers of the profile that the user knows better.
    """
    from spear_deploy.budget import check as check_graph
    from spear_deploy.recordings import read_activity

    graph = load(net)
    if isinstance(activity, (str, os.PathLike)):
        activity = read_activity(activity, graph)
    return check_graph(graph, profile(chip, overrides), chips=chips, synops=synops, activity=activity)


def count(net: Net, x: Array | Dataset, *, kind: InputKind = "spikes", rules: bool = False, batch: int = 64) -> Count:
    """Count the SynOps of a network on an input (T, B, *input), or on all samples of a dataset."""
    from spear_deploy.counting_rules import count_by_rules
    from spear_deploy.synops import synops

    graph = load(net)
    counts: SpikeCounts | None = None
    for part, part_kind in _batches(graph, x, kind, batch):
        found = simulator.simulate(graph, part, kind=part_kind).counts
        counts = found if counts is None else counts + found
    assert counts is not None
    result = synops(graph, counts)
    return Count(
        synops_total=result.total,
        synops_per_layer=result.per_layer,
        macs_first_layer=result.macs_first_layer,
        rates=counts.rates(),
        samples=counts.samples,
        steps=counts.steps,
        rules=count_by_rules(graph, counts) if rules else None,
    )


def _batches(graph: SNNGraph, x: Array | Dataset, kind: InputKind, size: int) -> Iterable[tuple[Array, InputKind]]:
    from spear_deploy.data import Dataset

    if not isinstance(x, Dataset):
        x = simulator.check_input(graph, x, kind)
        for start in range(0, x.shape[1], size):
            yield x[:, start : start + size], kind
        return
    x.check(graph.input_shape)
    for split in (x.train, x.val, x.test):
        for part, _ in split.batches(size):
            yield part, split.kind


def for_chip(net: Net, chip: Chip, *, calibration: Array | None = None, kind: InputKind = "spikes") -> SNNGraph:
    """Return the integer network in the chip's formats; an integer network stays as it is.

    Raises:
        UnsupportedError: the chip's integer format is not built yet.
    """
    from spear_deploy.quantize import quantize

    graph, target = load(net), profile(chip)
    if graph.is_integer:
        return graph
    if target.meta.family != "loihi":
        raise UnsupportedError(
            f"profile '{target.name}': integers of the {target.meta.family} family are not built yet; use loihi1 or loihi2"
        )
    return quantize(graph, weight_bits=min(8, max(target.weight_bits)), calibration=calibration, kind=kind)


def simulate(
    net: Net,
    x: Array,
    *,
    kind: InputKind = "spikes",
    backend: Backend = "fast",
    chip: Chip | None = None,
    record: Iterable[Record] = ("spikes",),
    timeout_s: float | None = None,
) -> ChipRun:
    """Run a network: as it is stored, or as integers of a chip; on our simulator, or as Lava processes.

    Args:
        net, chip: see the module.
        x: (T, B, *input).
        kind: "spikes" or "current".
        backend: "fast" (numpy) or "lava" (Lava's own processes in a guarded worker; integer networks only).
        record: which of "spikes", "v", "u" to keep.
        timeout_s: longest time a Lava run may take.
    """
    graph, record = load(net), tuple(record)
    x = simulator.check_input(graph, x, kind)
    simulator.check_record(record)
    if backend not in ("fast", "lava"):
        raise DataError(f"backend '{backend}': expected 'fast' (ours) or 'lava'; give one of them")
    if chip is not None:
        from spear_deploy.quantize import graded

        graph = for_chip(graph, chip, calibration=x, kind=kind)
        x = graded(graph, x, kind)
    if backend == "lava":
        from spear_deploy.lava_backend import run_lava

        return run_lava(graph, x, kind=kind, record=record, timeout_s=timeout_s)
    return simulator.simulate(graph, x, kind=kind, record=record)


def compare(a: Net, b: Net, x: Array, *, kind: InputKind = "spikes") -> list[comparison.LayerDifference]:
    """Run two networks on the same input and name, layer by layer, how many spikes differ and which is the first."""
    one, other = load(a), load(b)
    pairs = comparison.paired_layers(one, other)
    runs = [simulator.simulate(graph, x, kind=kind, record=("spikes",)) for graph in (one, other)]
    return comparison.compare_runs(runs[0], runs[1], pairs)


def export(
    net: Net,
    path: str | os.PathLike[str],
    *,
    to: Literal["nir", "netx", "onnx"],
    x: Array | None = None,
    kind: InputKind = "spikes",
    chip: Chip = "loihi2",
    seed: int = 0,
) -> dict[str, Any]:
    """Write a network for other tools, read it back with an independent reader, run both, and return the certificate.

    Args:
        net: see the module. netx holds integers only: a floating-point network is quantised for `chip` first.
        path: the file; `certificate.json` is written beside it.
        to: "nir", "netx" or "onnx".
        x: the input of the proof, (T, B, *input); random spikes drawn by `seed` unless given.
        kind: of `x`.
        chip: whose integers, for netx.
        seed: draws the input.
    """
    from spear_deploy import interchange

    graph = load(net)
    if x is None:
        kind, x = "spikes", np.random.default_rng(seed).random((16, 4, *graph.input_shape)) < 0.3
    if to == "netx" and not graph.is_integer:
        graph = for_chip(graph, chip, calibration=x, kind=kind)
    return interchange.export(graph, path, to=to, x=x, kind=kind)
