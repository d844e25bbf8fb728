"""What did each step of the lowering cost?

explain(graph, integer, x) ─► chain of networks ─► each run ─► costs, numbers, findings

steps        the networks between the trained one and the chip's integers, one change at a time
chip_units   the trained network in the units of the chip
distance     how far apart two spike trains are
cause        the first spike that differs: potential and threshold on both sides
numbers      what rounding did to weights, thresholds, decays
findings     sentences that a person should read
"""

from spear_deploy.quantize.explain.attribution import ORDER, Cost, Explanation, explain
from spear_deploy.quantize.explain.findings import Finding, of_run
from spear_deploy.quantize.explain.first_difference import TIME_CONSTANT_STEPS, Distance, distance

__all__ = ["ORDER", "TIME_CONSTANT_STEPS", "Cost", "Distance", "Explanation", "Finding", "distance", "explain", "of_run"]
