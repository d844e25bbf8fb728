"""Prune a spiking network until it fits a neuromorphic chip, prove it, and hand over the file to load."""
