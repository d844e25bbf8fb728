"""Adaptation of a network to a chip by replacements."""
