"""Which removal is best? Search the widths under budgets, then fine-tune until the budgets hold.

    prune_to_budget    the whole stage: search, fine-tune, trim
    search             its first half; `search_front` serves several budgets at once

    budgets, chip_costs    what must hold, and what a plan takes on the chip
    score, projection      what is left of a candidate, and which is within the budgets
    estimator, drift       SynOps after fine-tuning: SPEAR's LRE, and a model by layer
    reward, environment, agents        SPEAR
    baselines, evolution, optuna_searchers, ladder        searchers of other kinds
    aims, margins, tuning, trim        the closed loop

Nothing here imports torch before it is called.
"""

from spear_deploy.search.aims import Deployed, itself
from spear_deploy.search.budgets import Amount, Budgets, amount
from spear_deploy.search.chip_costs import ChipCosts, on_chip
from spear_deploy.search.closed_loop import PrunedResult, for_tuning, prune_to_budget
from spear_deploy.search.loop import SearchResult, search, search_front
from spear_deploy.search.score import not_prunable
from spear_deploy.search.settings import DEFAULT_METHOD, METHODS, SearchSettings, settings_for

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "Amount",
    "Budgets",
    "ChipCosts",
    "Deployed",
    "PrunedResult",
    "SearchResult",
    "SearchSettings",
    "amount",
    "for_tuning",
    "itself",
    "not_prunable",
    "on_chip",
    "prune_to_budget",
    "search",
    "search_front",
    "settings_for",
]
