"""Fine-tuning of a pruned network until its budgets hold."""
