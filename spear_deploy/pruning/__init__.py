"""What is left after removal? Coupled groups of channels, plans, and pure slicing.

Channels that must go together (both sides of a residual sum, a depthwise convolution, the loop of a recurrent layer, a
flatten and the dense layer behind it, per-channel neuron parameters) form one group. A plan says which channels of each
group stay; `prune` slices them out. Nothing is masked: the pruned network is smaller, and its spikes are those of the
network in which the removed neurons are silent.
"""

from spear_deploy.pruning.groups import Coupling, Group, all_groups, coupled_groups, coupling
from spear_deploy.pruning.importance import CRITERIA, Criterion, importance, plan_by_importance
from spear_deploy.pruning.slicing import PruningPlan, prune

__all__ = [
    "CRITERIA",
    "Coupling",
    "Criterion",
    "Group",
    "PruningPlan",
    "all_groups",
    "coupled_groups",
    "coupling",
    "importance",
    "plan_by_importance",
    "prune",
]
