"""Structured pruning of a network to the budgets of a chip."""
