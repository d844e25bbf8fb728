"""The whole path in one function: trained network in; pruned, integer, proven and exported network out.

    dense ─► search + fine-tune ─► integers ─► Lava ─► verdict ─► files ─► report.html

Every choice is made on the training and validation splits. The test split is used to state results: the SynOps of the
dense network there define what a budget in per cent means, and the finished network is held against that budget there.
"""

from spear_deploy.pipeline.budgets import budget_from
from spear_deploy.pipeline.demonstration import demo
from spear_deploy.pipeline.deploying import deploy
from spear_deploy.pipeline.deployment import Deployment
from spear_deploy.pipeline.fronts import prune_front
from spear_deploy.pipeline.proofs import run_on_lava, run_on_norse
from spear_deploy.pipeline.pruning import prune

__all__ = ["Deployment", "budget_from", "demo", "deploy", "prune", "prune_front", "run_on_lava", "run_on_norse"]
