"""Attribution of a quantization's error to its stages.

explain(graph, integer, x) ─► chain of networks ─► a run of each ─► costs, rounding, findings

stages             the networks between the trained one and the chip's integers, one change at a time
partial_networks   the trained network with some of its numbers as the chip stores them
attribution        what each stage changed: decisions, output, spikes
first_difference   distance of two spike trains; the first spike that differs, with potential and threshold on both sides
rounding           what rounding did to weights, thresholds, decays
findings           sentences for the user, with what to do
"""

from spear_deploy.quantize.explain.attribution import ORDER_NOTE, Explanation, StageCost, explain
from spear_deploy.quantize.explain.findings import Finding, find_changed_rules, find_in_run
from spear_deploy.quantize.explain.first_difference import TIME_CONSTANT_STEPS, SpikeDistance, spike_distance

__all__ = [
    "ORDER_NOTE",
    "TIME_CONSTANT_STEPS",
    "Explanation",
    "Finding",
    "SpikeDistance",
    "StageCost",
    "explain",
    "find_changed_rules",
    "find_in_run",
    "spike_distance",
]  # fmt: skip
