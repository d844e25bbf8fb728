"""Linter of netx files for lava-dl's loader."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.errors import FileError, SpearError
from spear_deploy.interchange.netx.lint_numbers import Flaw
from spear_deploy.interchange.netx.lint_rules import Loader, check_entry
from spear_deploy.interchange.netx.reader import build_network
from spear_deploy.interchange.netx.writer import build_entries
from spear_deploy.util.hdf5.tree import Tree, read_tree


@dataclass(frozen=True, kw_only=True)
class LintFinding:
    """A place in a netx file that lava-dl does not load as it is written.

    Attributes:
        layer: the entry, e.g. "layer 3", or "file".
        rule: its kind, e.g. "all-zero".
        what: the contents of the place.
        why: what lava-dl does with it.
        repair: what to change in the file.
        breaks: whether loading or running fails; else something is passed over or changed without an error.
        repaired_by_export: whether `export FILE --to netx` writes a file without it.
    """

    layer: str
    rule: str
    what: str
    why: str
    repair: str
    breaks: bool
    repaired_by_export: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        done = "export repairs it" if self.repaired_by_export else "export does not repair it"
        return f"{self.layer}: {self.what}; {self.why}; {self.repair} ({done})"


def lint_netx(path: str | os.PathLike[str]) -> list[LintFinding]:
    """Find what in a netx file lava-dl's loader fails on, or loads as something else.

    Args:
        path: the file.

    Returns:
        The findings in the order of the file; empty where lava-dl loads what is written.

    Raises:
        FileError: missing, damaged, not HDF5, or without a group `layer`.
    """
    tree = read_tree(path, "netx file")
    try:
        return lint_tree(tree)
    except SpearError as error:
        raise type(error)(f"file '{Path(path)}': {error}") from error


def lint_tree(tree: Tree) -> list[LintFinding]:
    """Find the same in a tree that `read_tree` returned."""
    flaws = _find_flaws(tree)
    left = _rules_left_by_export(tree) if flaws else None
    return [
        LintFinding(layer=layer, **asdict(flaw), repaired_by_export=left is not None and flaw.rule not in left)
        for layer, flaw in flaws
    ]


def _find_flaws(tree: Tree) -> list[tuple[str, Flaw]]:
    rows = tree.get("layer")
    if not isinstance(rows, dict) or not rows:
        raise FileError("holds no netx network; expected groups 'layer/0', 'layer/1', ...")
    flaws: list[tuple[str, Flaw]] = []
    numbered = [str(n) for n in range(len(rows))]
    odd = sorted(name for name in rows if name not in numbered)
    if odd:
        flaw = Flaw(
            rule="numbering",
            what=f"{len(rows)} entries, among them {', '.join(odd[:3])}",
            why=f"the loader takes 0..{len(rows) - 1} and fails",
            repair="number the entries from 0 without gaps",
        )
        flaws.append(("file", flaw))
    loader = Loader()
    for name in sorted(rows, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)):
        row = rows[name]
        if isinstance(row, dict):
            flaws += [(f"layer {name}", flaw) for flaw in check_entry(row, loader)]
        elif name in numbered:
            why = "the loader takes groups and fails"
            flaw = Flaw(rule="missing-key", what="is no group", why=why, repair="export the network again")
            flaws.append((f"layer {name}", flaw))
    return flaws


def _rules_left_by_export(tree: Tree) -> set[str] | None:
    """Return the rules that the exported file still breaks; None where it cannot be exported."""
    try:
        entries = build_entries(build_network(dict(tree)), [])
    except SpearError:
        return None
    return {flaw.rule for _, flaw in _find_flaws({"layer": {str(n): _entry_to_tree(entry) for n, entry in enumerate(entries)}})}


def _entry_to_tree(row: Any) -> Tree:
    """Return an entry in the form in which `read_tree` returns it."""
    tree: Tree = {"type": row.kind, "shape": np.array(row.shape)}
    tree |= {key: np.asarray(value) for key, value in row.values.items()}
    if row.neuron:
        tree["neuron"] = {key: value if isinstance(value, str) else np.asarray(value) for key, value in row.neuron.items()}
    return tree
