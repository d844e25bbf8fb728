"""Needs of a network that no replacement meets."""

from __future__ import annotations

from collections.abc import Iterator

from spear_deploy.adaptation.neurons import INSTEAD
from spear_deploy.adaptation.plan import list_fixed
from spear_deploy.budget.geometry import ADDED_UP
from spear_deploy.budget.report import BudgetReport
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network import CONVS, LI, POOLS
from spear_deploy.network.graph import SNNGraph

NEEDS = {
    "recurrent": "spikes that return to a layer they have passed",
    "weight_sign": "a sign for each synapse",
    "reset": "another reset",
    "time_constant": "shorter time constants",
    "neuron_constants": "a threshold and time constants for each neuron",
    "delay": "longer delays",
}
"""By resource of `check`, what would help."""


def list_needs(report: BudgetReport, graph: SNNGraph, profile: HardwareProfile) -> Iterator[str]:
    """Yield a sentence for each part that the chip lacks: what it is, what the chip has, what it would need."""
    for finding in report.unsupported:
        need = NEEDS.get(finding.resource)
        if finding.resource == "neuron_model":
            neuron = graph[finding.layer].neuron
            model = LI if neuron is None else type(neuron)  # a weighted sum is a readout of one step
            need = " or ".join(each.__name__ for each in (model, *INSTEAD.get(model, ())))
        elif finding.what.startswith(ADDED_UP):
            need = "several layers of weights on a core"
        elif isinstance(graph[finding.layer].synapse, (*CONVS, *POOLS)) and finding.resource == "layer_kind":
            need = f"{finding.what}, or Dense with room for its weights written out"
        yield f"layer '{finding.layer}': {finding.what}; {finding.reason}" + (f", it would need {need}" if need else "")
    yield from list_fixed(report)
