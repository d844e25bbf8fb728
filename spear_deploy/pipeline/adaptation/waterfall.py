"""Accuracy after each step of an adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spear_deploy.adaptation.differences import find_first_difference
from spear_deploy.adaptation.replacement import Replacement
from spear_deploy.data import Dataset
from spear_deploy.data.input_sums import sum_split
from spear_deploy.network.graph import SNNGraph
from spear_deploy.training.evaluation import evaluate

STEP_SAMPLES = 1000
"""Test samples that accuracy is measured on after each step."""


class Waterfall:
    """The steps so far, each measured on the first samples of the test split.

    Attributes:
        rows: {after, kind, layers, accuracy}, and `differs` of a replacement in a network that goes on.
        batches: that the network learnt from so far.
    """

    def __init__(self, trained: SNNGraph, dataset: Dataset) -> None:
        self.test = dataset.test.head(STEP_SAMPLES)
        self.rows: list[dict[str, Any]] = []
        self.batches = 0
        self.add("as trained", trained, kind="")

    def add(self, after: str, graph: SNNGraph, *, kind: str = "learnt", layers: Sequence[str] = ()) -> None:
        """Measure a network after a step, which is named as `after`."""
        accuracy = evaluate(graph, sum_split(self.test, graph)).accuracy
        self.rows.append({"after": after, "kind": kind, "layers": list(layers), "accuracy": accuracy})

    def add_learning(self, name: str, batches: int, graph: SNNGraph) -> None:
        """Measure a network after learning from a number of batches."""
        self.batches += batches
        self.add(f"{name}, {batches} batches", graph)

    def add_replacement(self, made: Replacement, before: SNNGraph | None, after: SNNGraph) -> None:
        """Measure a network after a replacement, and where its spikes differ first from the network `before` it, if any."""
        self.add(f"{made.what} → {made.by}", after, kind=made.kind, layers=made.layers)
        if before is not None:
            self.rows[-1]["differs"] = find_first_difference(before, after, self.test)
