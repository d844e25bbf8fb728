"""The path from a trained network to a pruned, proven deployment."""
