"""Searchers of the widths of a network under budgets."""
