"""Campaigns of faults, their records, and the tables of docs/reliability.md that are made from them.

Each is a script that goes on where it was stopped, e.g. `python -m tests.reliability.wild`. A record is `recorded/NAME.json`: its
blocks of work with their counts. `python -m tests.reliability.page` writes the tables.
"""
