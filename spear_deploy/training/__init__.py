"""Training, fine-tuning and evaluation of networks.

`evaluate` runs a network as it is stored and counts: accuracy by the one decision rule (`decide`), SynOps exactly.
`train` and `fine_tune` learn by backpropagation through time on the Norse network of a graph, and return a new graph.
With a SynOps budget, learning adds a penalty on the measured SynOps of each batch (`synops_penalty`).

torch is imported only where something learns.
"""

from spear_deploy.simulator.run import decide
from spear_deploy.training.evaluation import BATCH, Evaluation, QuickEvaluation, evaluate, quick_evaluate
from spear_deploy.training.fit import fine_tune, fit, train
from spear_deploy.training.recipe import Fit, Recipe
from spear_deploy.training.threads import limit_threads

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
    "limit_threads",
    "quick_evaluate",
    "train",
]
