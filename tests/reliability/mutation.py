"""Mutants of the modules that compute figures, each run against the tests that mirror its module.

    python -m tests.reliability.mutation --sample 60             # so many a module, in a random order that stays the same
    python -m tests.reliability.mutation --only placement/splitting.py
    python -m tests.reliability.mutation --survivors             # those that no test notices

A mutant changes one operator, comparison, condition or number; messages of errors, annotations and docstrings are left alone. It
runs in a process of its own, into which the changed module is imported in place of its file. A test that fails, or that runs out
of processor time, kills it. The record holds a line a mutant; a mutant whose code changed since is run again.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib.abc
import importlib.util
import io
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability.campaign import RECORDED, Record

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "spear_deploy"
QUANTIZE = ("tests/quantize/test_fuse_weights.py", "tests/quantize/test_scaled_weights.py", "tests/quantize/test_loihi.py")
TARGETS = {
    "simulator/synops.py": ("tests/simulator/test_synops.py", "tests/simulator/test_counting_rules.py"),
    "placement/splitting.py": ("tests/placement/test_full_cores.py", "tests/placement/test_place.py"),
    "placement/populations.py": ("tests/placement/test_populations.py", "tests/placement/test_fan_in_out.py"),
    "pruning/plan.py": ("tests/network/test_channel_groups.py",),
    "budget/energy.py": ("tests/budget/test_energy.py",),
    "budget/check.py": ("tests/budget/test_check.py", "tests/budget/test_unsupported.py"),
    "quantize/loihi.py": ("tests/quantize/test_loihi.py",),
    "quantize/speck.py": ("tests/quantize/test_speck.py",),
    "quantize/xylo.py": ("tests/quantize/test_xylo.py",),
    "quantize/xylo_scales.py": ("tests/quantize/test_xylo.py",),
    "quantize/fold.py": QUANTIZE,
    "quantize/fuse_weights.py": QUANTIZE,
    "quantize/scaled_weights.py": ("tests/quantize/test_scaled_weights.py", "tests/quantize/test_loihi.py"),
    "quantize/weighted_inputs.py": (*QUANTIZE, "tests/quantize/test_xylo.py", "tests/quantize/test_speck.py"),
    "quantize/network.py": ("tests/quantize/test_loihi.py", "tests/quantize/test_xylo.py"),
    "quantize/layer_error.py": ("tests/quantize/test_scale_ranking.py", "tests/quantize/test_loihi.py"),
    "quantize/scale_ranking.py": ("tests/quantize/test_scale_ranking.py",),
}  # fmt: skip
"""Modules, and the tests that mirror them."""
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
STEP = 5
"""Mutants of a module before the next module has its turn."""
CPU_S = 600
"""Processor time after which a mutant counts as killed: it loops."""


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Attributes:
        module: its path in the package.
        name: function, code before and after, and a number where the same change occurs twice.
        original, place, after: tree of the module, the node in it that changes, and what it becomes.
    """

    module: str
    name: str
    original: ast.Module
    place: Any
    after: Any

    @property
    def tree(self) -> ast.Module:
        """Tree of the changed module."""
        return _replace(self.original, self.place, self.after)

    @property
    def key(self) -> str:
        """Key of the record."""
        return f"{self.module} {self.name}"


def list_mutants(module: str) -> list[Mutant]:
    """Return all mutants of a module, in a random order that depends on their names alone."""
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    seen: Counter[str] = Counter()
    mutants = []
    for function, place in _places(tree):
        for before, after in _changes(place):
            text = f"{function}: {ast.unparse(before)} → {ast.unparse(after)}"
            seen[text] += 1
            name = text if seen[text] == 1 else f"{text} ({seen[text]})"
            mutants.append(Mutant(module=module, name=name, original=tree, place=place, after=after))
    return sorted(mutants, key=lambda mutant: hashlib.sha256(mutant.key.encode()).digest())


def _places(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yield the nodes that may change, with the name of their function."""
    waiting: list[tuple[str, ast.AST]] = [("module", tree)]
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.AnnAssign, ast.arguments, ast.Import, ast.ImportFrom)):
            if not (isinstance(node, ast.AnnAssign) and node.value is not None):
                continue
            waiting.append((name, node.value))
            continue
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            waiting += [(node.name if name == "module" else f"{name}.{node.name}", child) for child in node.body]
            continue
        yield name, node
        waiting += [(name, child) for child in ast.iter_child_nodes(node)]


def _changes(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (node, changed node)."""
    changed = copy.deepcopy(node)
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        changed.op = OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        changed.ops[0] = COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, ast.BoolOp):
        changed.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        changed = changed.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        changed.value = node.value + 1
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        changed.value = not node.value
    elif isinstance(node, ast.IfExp):
        changed.body, changed.orelse = changed.orelse, changed.body
    else:
        return
    yield node, changed


def _replace(tree: ast.Module, place: Any, after: Any) -> ast.Module:
    """Return a copy of the tree with one node exchanged."""
    path = {id(place): ast.copy_location(after, place)}

    class Exchange(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            return path.get(id(node)) or self.generic_visit(copy.copy(node))

        def generic_visit(self, node: ast.AST) -> Any:
            for field, value in ast.iter_fields(node):
                if isinstance(value, list):
                    setattr(node, field, [self.visit(item) if isinstance(item, ast.AST) else item for item in value])
                elif isinstance(value, ast.AST):
                    setattr(node, field, self.visit(value))
            return node

    return ast.fix_missing_locations(Exchange().visit(tree))


class _Exchange(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import of a changed module in place of its file."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.name = "spear_deploy." + module.removesuffix(".py").replace("/", ".")
        self.path, self.tree = PACKAGE / module, tree

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def survives(module: str, tree: ast.Module, tests: tuple[str, ...]) -> bool:
    """Run the tests on a changed module in a process of its own, and return whether all pass."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status) == 0
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        sys.meta_path.insert(0, _Exchange(module, tree))
        import pytest

        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            arguments = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--hypothesis-seed=0"]
            code = int(pytest.main([*arguments, *(str(ROOT / test) for test in tests)]))
    finally:
        os._exit(code)


def run_module(module: str, mutants: list[Mutant], record: Record, clean: set[str]) -> None:
    """Run the mutants that the record lacks; `clean` holds the modules whose tests pass without a change.

    A module whose tests fail without a change, or take too long, is left out with a line.
    """
    missing = [mutant for mutant in mutants if mutant.key not in record.blocks]
    tests = TARGETS[module]
    if missing and module not in clean and not survives(module, ast.parse((PACKAGE / module).read_text(encoding="utf-8")), tests):
        print(f"{module}: its tests fail without a change, or take over {CPU_S} s; it is left out", flush=True)
        return
    clean.add(module)
    for mutant in missing:
        start = time.monotonic()
        survived = survives(module, mutant.tree, tests)
        record.add(mutant.key, {"survived": survived})
        print(f"{'SURVIVED' if survived else 'killed'} {mutant.key} ({time.monotonic() - start:.0f} s)", flush=True)


def summarize(record: Record, mutants: dict[str, list[Mutant]]) -> dict[str, tuple[int, int, int]]:
    """Return (mutants, run, killed) by module."""
    summary = {}
    for module, all_of_it in mutants.items():
        known = [record.blocks[mutant.key] for mutant in all_of_it if mutant.key in record.blocks]
        summary[module] = (len(all_of_it), len(known), sum(not block["survived"] for block in known))
    return summary


def main() -> None:
    """Run mutants, or list survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="mutants a module (default: all)")
    parser.add_argument("--only", help="one module")
    parser.add_argument("--survivors", action="store_true", help="list those in the record, run nothing")
    parser.add_argument("--again", action="store_true", help="run the survivors of the record again")
    parser.add_argument("--record", type=Path, default=RECORDED / "mutation.json")
    options = parser.parse_args()
    record = Record(options.record)
    mutants = {module: list_mutants(module) for module in TARGETS if options.only in (None, module)}
    if options.survivors:
        known = {mutant.key for all_of_it in mutants.values() for mutant in all_of_it}
        print("\n".join(key for key in sorted(known & record.blocks.keys()) if record.blocks[key]["survived"]))
        return
    if options.again:
        record.blocks = {key: block for key, block in record.blocks.items() if not block["survived"]}
    import hypothesis  # noqa: F401  imported once, before the processes of the mutants
    import networkx  # noqa: F401
    import numpy  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401

    clean: set[str] = set()
    for count in range(
        STEP, STEP + max(map(len, mutants.values())), STEP
    ):  # all modules in turn, so that a stopped run is a sample
        for module, all_of_it in mutants.items():
            run_module(module, all_of_it[: min(count, options.sample or len(all_of_it))], record, clean)
    for module, (total, run, killed) in summarize(record, mutants).items():
        print(f"{module}: {total} mutants, {run} run, {killed} killed ({killed / max(run, 1):.1%})")


if __name__ == "__main__":
    main()
