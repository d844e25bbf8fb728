"""Adaptation of a network to a chip: replacements for what the chip lacks."""
