"""What accuracy is left, and how is it won back?

`evaluate` runs a network as it is stored and counts: accuracy by the one decision rule (`decide`), SynOps exactly.
`train` and `fine_tune` learn by backpropagation through time on the Norse network of a graph, and return a new graph.
With a SynOps budget, fine-tuning closes the loop: a dual variable on the *measured* SynOps of each batch makes spikes as
dear as they must be (`spike_price`).

torch is imported only where something is learnt.
"""

from spear_deploy.simulator.run import decide
from spear_deploy.training.evaluation import BATCH, Evaluation, QuickEvaluation, evaluate, quick_evaluate
from spear_deploy.training.fit import Fit, Recipe, fine_tune, fit, threads_for, train

__all__ = [
    "BATCH",
    "Evaluation",
    "Fit",
    "QuickEvaluation",
    "Recipe",
    "decide",
    "evaluate",
    "fine_tune",
    "fit",
    "quick_evaluate",
    "threads_for",
    "train",
]
