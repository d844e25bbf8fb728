"""Spikes and SynOps of a network on data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy import simulator
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.labels import label_layers
from spear_deploy.pipeline.inputs import (
    DATA_OPTIONS,
    NETWORK_OPTIONS,
    Chip,
    Net,
    check_options,
    data,
    load_for,
    refuse_coding,
    resolve_chip,
    split_options,
)
from spear_deploy.simulator import InputKind, SpikeCounts
from spear_deploy.util.number_format import plural
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Count:
    """SynOps and rates of a network on data, per inference, mean over samples.

    Attributes:
        synops_total, synops_per_layer, macs_first_layer: see `synops.SynOps`.
        rates: spikes per neuron and step by layer.
        samples, steps: size of the input.
        rules: SynOps by the counting rules of other tools, or None.
        neuron_ops: neuron updates: every neuron in every step.
        chip_synops: SynOps that a chip works on, zero weights included where it skips none; None without a chip, or where
            that is not published.
        labels: of layers in the table of a notebook (`label_layers`).
    """

    synops_total: float
    synops_per_layer: dict[str, float]
    macs_first_layer: float
    rates: dict[str, float]
    samples: int
    steps: int
    rules: dict[str, float] | None = None
    neuron_ops: int = 0
    chip_synops: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        values = {name: value for name, value in vars(self).items() if name not in ("rules", "labels")}
        return values if self.rules is None else {**values, "rules": self.rules}

    def __repr__(self) -> str:
        """Return one line, for lists."""
        rate = f"Count({self.synops_total:,.0f} SynOps per inference"
        macs = f" and {self.macs_first_layer:,.0f} MACs of the first layer" if self.macs_first_layer else ""
        return f"{rate}{macs}; {plural(self.samples, 'sample')}, {plural(self.steps, 'step')})"

    def _repr_html_(self) -> str:
        """Return the table of a notebook."""
        from spear_deploy.util.html_table import html_table

        rates = {name: f"{rate:.4f}" for name, rate in self.rates.items()}
        names = list(dict.fromkeys([*self.synops_per_layer, *rates]))
        rows = [
            ("ok", (self.labels.get(name, name), f"{self.synops_per_layer.get(name, 0.0):,.0f}", rates.get(name, "–")))
            for name in names
        ]
        notes = [f"first layer, analogue input: {self.macs_first_layer:,.0f} MACs"] if self.macs_first_layer else []
        notes += [f"by the rule '{rule}': {operations:,.0f}" for rule, operations in (self.rules or {}).items()]
        title = f"{self.synops_total:,.0f} SynOps per inference ({self.samples} samples, {self.steps} steps)"
        return html_table(title, ("layer", "SynOps", "rate"), rows, numbers=(1, 2), notes=notes)


def count(
    net: Net,
    x: Array | Dataset | str | os.PathLike[str],
    *,
    kind: InputKind = "spikes",
    rules: bool = False,
    chip: Chip | None = None,
    batch: int = 64,
    device: str = "cpu",
    progress: Progress | None = None,
    **options: Any,
) -> Count:
    """Count the SynOps of a network on an input (T, B, *input), or on all samples of a dataset.

    Args:
        net: a file, a name, a torch model, `package.module:function` or an `SNNGraph` (`pipeline.inputs`).
        x: (T, B, *input), or data by name, file, folder or function.
        kind: "spikes" or "current"; data have their own.
        rules: also count by the rules of other tools.
        chip: profile by name, file, or chip:board; also count the operations that it works on.
        batch: samples at a time.
        device: "cpu" runs our simulator; another one, of torch (`training.device`), runs the network as Norse's cells in float32,
            where a sum that rounds otherwise can move a spike.
        progress: is called after each batch.
        options: of `load`; and `steps`, `encoding` and `seed` of data that are named (`load_data`).

    Returns:
        `synops_total`, `synops_per_layer`, `macs_first_layer` and `rates` (spikes per neuron and step), per inference, mean over
        samples; `to_json()` is plain data, and a notebook shows a table.

    Raises:
        DataError: the input does not fit the network.
        TypeError: there is no such option.
    """
    coding_options = (*DATA_OPTIONS, "seed")
    check_options(options, (*NETWORK_OPTIONS, *coding_options), "count")
    coding, reading = split_options(options, coding_options)
    graph = load_for(net, x, **reading)
    counts = _count_batches(graph, _read_input(x, graph, coding), kind, batch, device, progress)
    return _derive_count(graph, counts, rules=rules, chip=chip)


def _read_input(x: Array | Dataset | str | os.PathLike[str], graph: SNNGraph, coding: Mapping[str, Any]) -> Array | Dataset:
    """Return an array as it is, and data of any source as a dataset; an array has its own time steps."""
    from spear_deploy.data import Dataset

    if isinstance(x, (str, os.PathLike, Dataset)):
        return data(x, graph, **coding)
    refuse_coding("an array (T, B, *input)", coding)
    return x


def _count_batches(
    graph: SNNGraph, x: Array | Dataset, kind: InputKind, batch: int, device: str, progress: Progress | None
) -> SpikeCounts:
    """Return the spikes of all samples, run batch by batch."""
    from spear_deploy.data import Dataset

    if device != "cpu":
        from spear_deploy.training.device import choose_device

        device = choose_device(device)
    counts: SpikeCounts | None = None
    samples = len(x.train) + len(x.val) + len(x.test) if isinstance(x, Dataset) else np.shape(x)[1]
    for part, part_kind in _batches(graph, x, kind, batch):
        batch_counts = _count_spikes(graph, part, part_kind, device)
        counts = batch_counts if counts is None else counts + batch_counts
        if progress is not None:
            progress({"stage": "count", "done": counts.samples, "of": samples})
    assert counts is not None
    return counts


def _derive_count(graph: SNNGraph, counts: SpikeCounts, *, rules: bool, chip: Chip | None) -> Count:
    """Return SynOps, rates and neuron updates of counted spikes."""
    from spear_deploy.placement.populations import find_populations
    from spear_deploy.simulator.synops import count_by_rules, count_synops

    result = count_synops(graph, counts)
    return Count(
        synops_total=result.total,
        synops_per_layer=result.per_layer,
        macs_first_layer=result.macs_first_layer,
        rates=counts.rates(),
        samples=counts.samples,
        steps=counts.steps,
        rules=count_by_rules(graph, counts) if rules else None,
        neuron_ops=counts.steps * sum(population.neurons for population in find_populations(graph)),
        chip_synops=None if chip is None else _count_on_chip(graph, counts, chip),
        labels=label_layers(graph),
    )


def _count_spikes(graph: SNNGraph, x: Array, kind: InputKind, device: str) -> SpikeCounts:
    """Return the spikes of a batch, on our simulator or on a device of torch."""
    if device == "cpu":
        return simulator.simulate(graph, x, kind=kind).counts
    from spear_deploy.norse.run import run_on_norse

    return run_on_norse(graph, x, kind=kind, device=device).counts


def _count_on_chip(graph: SNNGraph, counts: SpikeCounts, chip: Chip) -> float | None:
    """Return the SynOps that a chip works on, or None where it is not published whether it skips zero weights."""
    from spear_deploy.budget.zero_weights import fill_zero_weights
    from spear_deploy.simulator.synops import count_synops

    profile, _ = resolve_chip(chip, None)
    if profile.weights.zero_synops.value is None:
        return None
    return count_synops(fill_zero_weights(graph, profile), counts).total


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
