"""Verification of a deployment by what it compares: results, pruning, adaptation, files."""
