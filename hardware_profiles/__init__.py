"""Chips as data: one YAML file each; see README.md for the keys."""
