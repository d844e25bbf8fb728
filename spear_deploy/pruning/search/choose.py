"""Search functions by method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from spear_deploy.pruning.search.constrained_rl import search_levers
from spear_deploy.pruning.search.recipes import search_recipes
from spear_deploy.pruning.search.search import SearchResult, search
from spear_deploy.pruning.search.settings import RECIPE, RL

Search: TypeAlias = Callable[..., SearchResult]
"""(graph, dataset, settings, *, chip=, checkpoint=, progress=) → the best plan."""


def get_search(method: str) -> Search:
    """Return the function that searches by a method."""
    searches: dict[str, Search] = {RECIPE: search_recipes, RL: search_levers}
    return searches.get(method, search)
