"""Which removal is best? Search the widths under a SynOps budget, then fine-tune until the budget holds.

`prune_to_budget` is the whole stage, `search` its first half. Nothing here imports torch before it is called.
"""

from spear_deploy.search.closed_loop import PrunedResult, prune_to_budget
from spear_deploy.search.loop import METHODS, SearchResult, SearchSettings, search

__all__ = ["METHODS", "PrunedResult", "SearchResult", "SearchSettings", "prune_to_budget", "search"]
