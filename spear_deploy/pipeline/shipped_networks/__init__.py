"""Trained networks that ship with the toolkit, as .snn files."""
