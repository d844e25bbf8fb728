"""The whole path: a trained network in, a pruned and proven one out."""
