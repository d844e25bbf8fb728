"""Mutants of the modules that compute figures, each run against the tests that mirror its module.

    python -m tests.reliability.mutation --sample 60             # so many a module, in a random order that stays the same
    python -m tests.reliability.mutation --only placement/splitting.py
    python -m tests.reliability.mutation --survivors             # those that no test notices

A mutant changes one operator, comparison, condition or number; messages of errors, assertions (`strict` of zip too), annotations
and docstrings are left alone.
The tests are collected and run once, to see which lines each reaches; that is kept by test file. A mutant then runs the tests
that reach its lines, short ones and those that killed many first, in a copy of that process in which its function has the
changed code; code that runs on import is changed in a new process. A test that fails, or that runs out of processor time, kills
it. The record holds a line a mutant; a mutant whose expression changed since is run again, and a survivor also where its module
or the tests of it did.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from tests.reliability.campaign import RECORDED, Record

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "spear_deploy"
INTEGERS, LIMITS = "tests/quantize/test_recorded_integers.py", "tests/quantize/test_format_limits.py"
QUANTIZE = (
    INTEGERS, LIMITS, "tests/quantize/test_fuse_weights.py", "tests/quantize/test_scaled_weights.py",
    "tests/quantize/test_loihi.py",
)  # fmt: skip
CHIPS = (
    INTEGERS, LIMITS, "tests/quantize/test_chips.py", "tests/quantize/test_weighted_inputs.py",
    "tests/quantize/test_shared_cells.py",
)  # fmt: skip
TARGETS = {
    "simulator/synops.py": ("tests/simulator/test_synops.py", "tests/simulator/test_counting_rules.py"),
    "simulator/sign_sums.py": ("tests/simulator/test_sign_sums.py", "tests/simulator/test_chip_neurons.py"),
    "placement/splitting.py": (
        "tests/placement/test_recorded_placements.py", "tests/placement/test_full_cores.py",
        "tests/placement/test_place.py", "tests/placement/test_core_assignment.py",
        "tests/placement/test_brute_force.py", "tests/placement/test_splitting.py",
        "tests/placement/test_copies.py", "tests/placement/test_core_needs.py",
    ),
    "placement/populations.py": ("tests/placement/test_populations.py", "tests/placement/test_fan_in_out.py"),
    "placement/axes.py": (
        "tests/placement/test_fan_in_out.py", "tests/placement/test_populations.py",
        "tests/placement/test_chip_populations.py", "tests/placement/test_synapse_memory.py",
        "tests/placement/test_place.py", "tests/budget/test_open_counts.py",
        "tests/placement/test_projections.py",
    ),
    "placement/compose_projections.py": (
        "tests/placement/test_populations.py", "tests/placement/test_fan_in_out.py",
        "tests/placement/test_chip_populations.py", "tests/placement/test_one_to_one.py",
        "tests/budget/test_open_counts.py", "tests/placement/test_compose_projections.py",
        "tests/placement/test_brute_force.py",
    ),
    "placement/projections.py": (
        "tests/placement/test_fan_in_out.py", "tests/placement/test_populations.py",
        "tests/placement/test_chip_populations.py", "tests/placement/test_synapse_memory.py",
        "tests/budget/test_remote_rows.py", "tests/placement/test_copies.py",
        "tests/placement/test_projections.py",
    ),
    "placement/read_sources.py": ("tests/placement/test_read_sources.py", "tests/placement/test_copies.py"),
    "placement/chip_populations.py": (
        "tests/placement/test_chip_populations.py", "tests/placement/test_brute_force.py", "tests/budget/test_sdram_rows.py",
        "tests/placement/test_copies.py",
    ),
    "placement/synapse_memory.py": (
        "tests/placement/test_synapse_memory.py", "tests/placement/test_place.py", "tests/placement/test_brute_force.py",
        "tests/placement/test_one_to_one.py", "tests/budget/test_sdram_rows.py", "tests/hardware/test_chips_by_hand.py",
        "tests/placement/test_projections.py",
    ),
    "placement/core_needs.py": (
        "tests/placement/test_place.py", "tests/placement/test_brute_force.py", "tests/placement/test_splitting.py",
        "tests/placement/test_copies.py", "tests/placement/test_core_assignment.py",
        "tests/placement/test_chip_populations.py", "tests/placement/test_recorded_placements.py",
        "tests/placement/test_core_needs.py",
    ),
    "placement/axon_sets.py": (
        "tests/placement/test_core_axons.py", "tests/placement/test_core_needs.py", "tests/placement/test_core_assignment.py",
        "tests/placement/test_chip_populations.py", "tests/placement/test_cores_by_synapses.py",
    ),
    "placement/core_axons.py": ("tests/placement/test_core_axons.py", "tests/placement/test_core_assignment.py"),
    "placement/core_assignment.py": (
        "tests/placement/test_core_assignment.py", "tests/placement/test_place.py", "tests/placement/test_brute_force.py",
    ),
    "pruning/plan.py": ("tests/network/test_channel_groups.py",),
    "budget/energy.py": ("tests/budget/test_energy.py", "tests/budget/test_intervals.py"),
    "budget/check.py": (
        "tests/budget/test_check.py", "tests/budget/test_unsupported.py", "tests/budget/test_report.py",
        "tests/budget/test_remote_rows.py", "tests/budget/test_core_work.py", "tests/budget/test_latency.py",
        "tests/budget/test_zero_weights.py", "tests/budget/test_axon_room.py", "tests/budget/test_energy.py",
    ),
    "budget/axon_room.py": ("tests/budget/test_axon_room.py",),
    "budget/axon_cuts.py": ("tests/budget/test_axon_room.py",),
    "quantize/loihi.py": (INTEGERS, LIMITS, "tests/quantize/test_loihi.py"),
    "quantize/speck.py": (INTEGERS, LIMITS, "tests/quantize/test_speck.py"),
    "quantize/xylo.py": (INTEGERS, LIMITS, "tests/quantize/test_xylo.py"),
    "quantize/xylo_scales.py": (INTEGERS, LIMITS, "tests/quantize/test_xylo.py"),
    "quantize/akida.py": ("tests/quantize/test_akida.py", "tests/quantize/test_layer_bits.py"),
    "quantize/chips.py": CHIPS,
    "quantize/chip_scales.py": CHIPS,
    "quantize/integrate_and_fire.py": CHIPS,
    "quantize/leaky_integrators.py": CHIPS,
    "quantize/palette.py": (INTEGERS, LIMITS, "tests/quantize/test_chips.py"),
    "quantize/rounded_weights.py": (INTEGERS, "tests/quantize/test_rounded_weights.py"),
    "quantize/rounding.py": ("tests/quantize/test_rounding.py", "tests/training/test_rounding.py"),
    "quantize/fold.py": (*QUANTIZE, "tests/quantize/test_fold.py"),
    "quantize/fuse_weights.py": (*QUANTIZE, "tests/network/test_fixed_weights.py"),
    "quantize/fuse_pools.py": ("tests/quantize/test_fuse_pools.py", "tests/quantize/test_fuse_weights.py"),
    "quantize/scaled_weights.py": (INTEGERS, "tests/quantize/test_scaled_weights.py", "tests/quantize/test_loihi.py"),
    "quantize/weighted_inputs.py": (
        *QUANTIZE, "tests/quantize/test_weighted_inputs.py", "tests/quantize/test_rounding.py",
        "tests/quantize/test_xylo.py", "tests/quantize/test_speck.py", "tests/quantize/test_weight_levels.py",
    ),
    "quantize/integer_layers.py": (*QUANTIZE, "tests/quantize/test_integer_layers.py", "tests/quantize/test_weight_levels.py"),
    "quantize/network.py": (
        INTEGERS, LIMITS, "tests/quantize/test_network.py", "tests/quantize/test_loihi.py", "tests/quantize/test_xylo.py",
        "tests/quantize/test_chips.py", "tests/quantize/test_layer_bits.py", "tests/quantize/test_shared_cells.py",
    ),
    "quantize/even_neurons.py": (
        LIMITS, "tests/quantize/test_even_neurons.py", "tests/quantize/test_network.py", "tests/quantize/test_rounding.py",
        "tests/adaptation/test_shared_constants.py",
    ),
    "quantize/layer_error.py": (INTEGERS, "tests/quantize/test_layer_error.py", "tests/quantize/test_loihi.py"),
    "quantize/scale_ranking.py": (INTEGERS, "tests/quantize/test_scale_ranking.py",),
    "adaptation/calibrate.py": ("tests/adaptation/test_calibrate.py",),
    "pruning/tune/margins.py": ("tests/pruning/test_margins.py",),
    "util/memory.py": ("tests/util/test_memory.py",),
    "data/dataset.py": (
        "tests/data/test_datasets.py", "tests/data/test_shapes.py", "tests/data/test_time_steps.py", "tests/data/test_labels.py",
    ),
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
CPU_S = 300
"""Processor time after which a mutant of code that runs on import counts as killed: it loops."""
MAX_TESTS_S = 8
"""Processor time of the tests that a mutant meets, as long as tracing takes: longer ones are left out, and kill none."""
CHANGED = 99
"""Exit code of a process that finds no such mutant."""
LONGER = 10
"""Times the processor time of its tests, after which another mutant does."""
PYTEST = ("-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:timeout", "--hypothesis-seed=0")
OUTPUT = os.fdopen(os.dup(1), "w")
"""Output of this script: pytest keeps that of the tests to itself."""


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Attributes:
        module: its path in the package.
        name: function, code before and after, and a number where the same change occurs twice.
        function: name and first line of the outermost function around it, None for code that runs on import.
        original, place, after: tree of the module, the node in it that changes, and what it becomes.
    """

    module: str
    name: str
    function: tuple[str, int] | None
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
    for owner, function, place in _places(tree):
        for before, after in _changes(place):
            text = f"{owner}: {ast.unparse(before)} → {ast.unparse(after)}"
            seen[text] += 1
            name = text if seen[text] == 1 else f"{text} ({seen[text]})"
            mutants.append(Mutant(module=module, name=name, function=function, original=tree, place=place, after=after))
    return sorted(mutants, key=lambda mutant: hashlib.sha256(mutant.key.encode()).digest())


def _places(tree: ast.Module) -> Iterator[tuple[str, tuple[str, int] | None, ast.AST]]:
    """Yield the nodes that may change, with the name of their owner and their outermost function."""
    waiting: list[tuple[str, tuple[str, int] | None, ast.AST]] = [("module", None, tree)]
    while waiting:
        name, function, node = waiting.pop()
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.AnnAssign, ast.arguments, ast.Import, ast.ImportFrom)):
            if not (isinstance(node, ast.AnnAssign) and node.value is not None):
                continue
            waiting.append((name, function, node.value))
            continue
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            inner = node.name if name == "module" else f"{name}.{node.name}"
            if function is None and isinstance(node, ast.FunctionDef):
                function = node.name, min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            waiting += [(inner, function, child) for child in node.body]
            continue
        yield name, function, node
        waiting += [(name, function, child) for child in _parts_that_count(node)]


def _parts_that_count(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children of a node that compute something.

    `strict` of zip asserts that lengths are equal; for -1 numpy's reshape takes any negative number.
    """
    is_reshape = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reshape"
    for child in ast.iter_child_nodes(node):
        is_strict = isinstance(child, ast.keyword) and child.arg == "strict"
        if not (is_strict or (is_reshape and isinstance(child, ast.UnaryOp))):
            yield child


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


def find_code(code: CodeType, name: str, line: int) -> CodeType | None:
    """Return the code of a function by its name and first line."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            found = part if (part.co_name, part.co_firstlineno) == (name, line) else find_code(part, name, line)
            if found is not None:
                return found
    return None


def digest_tests(module: str) -> str:
    """Return a digest of a module and of the tests that mirror it."""
    files = [PACKAGE / module, *(ROOT / test for test in sorted(TARGETS[module]))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def list_functions(module: str) -> dict[tuple[str, int], list[FunctionType]]:
    """Return all functions of an imported module by name and first line, wherever they are held."""
    functions: dict[tuple[str, int], list[FunctionType]] = {}
    path = str(PACKAGE / module)
    for value in gc.get_objects():
        if isinstance(value, FunctionType) and value.__code__.co_filename == path:
            functions.setdefault((value.__code__.co_name, value.__code__.co_firstlineno), []).append(value)
    return functions


class Markers:
    """Makes the marker of a plugin known that is left out here."""

    def pytest_configure(self, config: Any) -> None:
        """Add the marker."""
        config.addinivalue_line("markers", "timeout: seconds after which a test fails")


class Session(Markers):
    """Tests collected once; each mutant runs those that reach its lines, in a copy of this process.

    Attributes:
        again: keys of the record that are run once more; each stays in it until then.
        items: the tests of all modules.
        reached: lines of each module by test.
        seconds: processor time of each test.
        kills: mutants that each test killed.
    """

    def __init__(self, mutants: Mapping[str, Sequence[Mutant]], record: Record, again: set[str]) -> None:
        self.mutants, self.record, self.again = mutants, record, again
        self.items: list[Any] = []
        self.reached: dict[str, dict[str, list[int]]] = {}
        self.seconds: dict[str, float] = {}
        self.kills: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keep the tests, and run none of them in this process."""
        self.items = list(items)

    def pytest_runtestloop(self, session: Any) -> bool:
        """Run all tests once to see what they reach, then the mutants."""
        for module in self.mutants:
            importlib.import_module("spear_deploy." + module.removesuffix(".py").replace("/", "."))
        failed = self._load_trace()
        self.items = [item for item in self.items if item.nodeid not in failed]
        print(f"{len(self.items)} tests; left out, since they fail without a change: {sorted(failed)}", file=OUTPUT, flush=True)
        functions = {module: list_functions(module) for module in self.mutants}
        for mutant in take_turns(self.mutants):
            row = self.record.blocks.get(mutant.key)
            tests_digest = digest_tests(mutant.module)
            is_stale = row is not None and row["survived"] and row.get("tests") != tests_digest
            if row is not None and not is_stale and mutant.key not in self.again:
                continue
            start = time.monotonic()
            tests = self.choose_tests(mutant)
            survived = self._survives(mutant, tests, functions[mutant.module])
            self.record.add(mutant.key, {"survived": True, "tests": tests_digest} if survived else {"survived": False})
            word = "SURVIVED" if survived else "killed"
            print(f"{word} {mutant.key} ({len(tests)} tests, {time.monotonic() - start:.1f} s)", file=OUTPUT, flush=True)
        return True

    def choose_tests(self, mutant: Mutant) -> list[Any]:
        """Return the tests that reach the lines of a mutant; of code that runs on import, those that reach its module."""
        lines = set(range(mutant.place.lineno, mutant.place.end_lineno + 1))
        chosen = [
            item for item in self.items
            if (reached := self.reached[item.nodeid].get(mutant.module)) and (mutant.function is None or lines & set(reached))
        ]  # fmt: skip
        chosen.sort(key=lambda item: self.seconds[item.nodeid] / (1 + self.kills[item.nodeid]))
        ends = accumulate(self.seconds[item.nodeid] for item in chosen)
        return [item for item, end in zip(chosen, ends, strict=True) if end <= MAX_TESTS_S]

    def _load_trace(self) -> set[str]:
        """Fill `reached` and `seconds`, and return the tests that fail; kept by test file in the folder for temporary files."""
        modules = b"".join((PACKAGE / module).read_bytes() for module in self.mutants)
        kept = {
            path: Path(tempfile.gettempdir())
            / f"spear-mutation-{hashlib.sha256(modules + path.read_bytes()).hexdigest()[:16]}.json"
            for path in {item.path for item in self.items}
        }
        missing = [item for item in self.items if not kept[item.path].exists()]
        rows = self._trace(missing) if missing else {}
        for path in {item.path for item in missing}:
            kept[path].write_text(json.dumps({item.nodeid: rows[item.nodeid] for item in missing if item.path == path}))
        failed = set()
        for file in kept.values():
            for test, (passed, seconds, reached) in json.loads(file.read_text()).items():
                self.seconds[test], self.reached[test] = seconds, reached
                if not passed:
                    failed.add(test)
        return failed

    def _trace(self, items: Sequence[Any]) -> Any:
        """Run tests in a copy of this process, and return by test whether it passes, its seconds, and lines by module."""
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            files = {str(PACKAGE / module): module for module in self.mutants}
            rows = {}
            for number, item in enumerate(items):
                seen: dict[str, set[int]] = {}

                def trace_lines(frame: Any, event: str, argument: Any, seen: dict[str, set[int]] = seen) -> Any:
                    seen.setdefault(files[frame.f_code.co_filename], set()).add(frame.f_lineno)
                    return trace_lines

                def trace_calls(frame: Any, event: str, argument: Any, inner: Any = trace_lines) -> Any:
                    return inner(frame, event, argument) if frame.f_code.co_filename in files else None

                start = time.process_time()
                sys.settrace(trace_calls)
                passed = _run_test(item, items[number + 1] if number + 1 < len(items) else None)
                sys.settrace(None)
                seconds = time.process_time() - start
                rows[item.nodeid] = passed, seconds, {module: sorted(lines) for module, lines in seen.items()}
            with open(writable, "w") as file:
                json.dump(rows, file)
            os._exit(0)
        os.close(writable)
        with open(readable) as file:
            traced = json.load(file)
        os.waitpid(pid, 0)
        return traced

    def _survives(self, mutant: Mutant, tests: list[Any], functions: Mapping[tuple[str, int], list[FunctionType]]) -> bool:
        """Run tests in a copy of this process in which the function of a mutant has its changed code."""
        if not tests:
            return True
        if mutant.function is None:
            return survives_import(mutant, [item.nodeid for item in tests])
        readable, writable = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writable)
            with open(readable) as file:
                killer = file.read()
            self.kills[killer] += bool(killer)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        code = 1
        try:
            _limit(sum(self.seconds[item.nodeid] for item in tests))
            name, line = mutant.function
            changed = find_code(compile(mutant.tree, str(PACKAGE / mutant.module), "exec"), name, line)
            if changed is None or not functions.get((name, line)):
                raise RuntimeError(f"{mutant.key}: no function '{name}' at line {line}")
            for function in functions[name, line]:
                function.__code__ = changed
            code = 0
            for number, item in enumerate(tests):
                if not _run_test(item, tests[number + 1] if number + 1 < len(tests) else None):
                    os.write(writable, item.nodeid.encode())
                    code = 1
                    break
        finally:
            os._exit(code)


def _run_test(item: Any, following: Any) -> bool:
    """Run a test with its fixtures, and return whether nothing of it fails."""
    from _pytest.runner import runtestprotocol

    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def _limit(seconds: float) -> None:
    """End this process after ten times the processor time of its tests, or where it takes all memory: the mutant loops."""
    limit = int(time.process_time()) + 10 + int(LONGER * seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def survives_import(mutant: Mutant, tests: list[str]) -> bool:
    """Run tests in a process into which the changed module is imported in place of its file: code that runs on import."""
    program = (
        "import sys; from tests.reliability.mutation import run_imported; "
        f"sys.exit(run_imported({mutant.module!r}, {mutant.name!r}, sys.argv[1:]))"
    )
    code = subprocess.run([sys.executable, "-c", program, *tests], capture_output=True, check=False, cwd=ROOT).returncode
    if code == CHANGED:
        raise SystemExit(f"{mutant.key}: {mutant.module} was edited meanwhile; start again")
    return code == 0


def run_imported(module: str, name: str, tests: list[str]) -> int:
    """Run tests on a changed module in this process, and return pytest's exit code."""
    import pytest

    mutant = next((mutant for mutant in list_mutants(module) if mutant.name == name), None)
    if mutant is None:
        return CHANGED
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    sys.meta_path.insert(0, _Exchange(module, mutant.tree))
    return int(pytest.main([*PYTEST, "-x", *tests], plugins=[Markers()]))


def take_turns(mutants: Mapping[str, Sequence[Mutant]]) -> Iterator[Mutant]:
    """Yield a few mutants of each module in turn, so that a stopped run is a sample."""
    for first in range(0, max(map(len, mutants.values())), STEP):
        for all_of_it in mutants.values():
            yield from all_of_it[first : first + STEP]


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
    parser.add_argument("--again", action="store_true", help="run all survivors of the record again")
    parser.add_argument("--record", type=Path, default=RECORDED / "mutation.json")
    options = parser.parse_args()
    record = Record(options.record)
    mutants = {module: list_mutants(module) for module in TARGETS if options.only in (None, module)}
    if options.survivors:
        known = {mutant.key for all_of_it in mutants.values() for mutant in all_of_it}
        print("\n".join(key for key in sorted(known & record.blocks.keys()) if record.blocks[key]["survived"]))
        return
    if options.again:
        chosen_keys = {mutant.key for all_of_it in mutants.values() for mutant in all_of_it}
        again = {key for key in chosen_keys & record.blocks.keys() if record.blocks[key]["survived"]}
    else:
        again = set()
    import pytest

    chosen = {module: all_of_it[: options.sample or len(all_of_it)] for module, all_of_it in mutants.items()}
    tests = dict.fromkeys(test for module in mutants for test in TARGETS[module])
    pytest.main([*PYTEST, *(str(ROOT / test) for test in tests)], plugins=[Session(chosen, record, again)])
    for module, (total, run, killed) in summarize(record, mutants).items():
        print(f"{module}: {total} mutants, {run} run, {killed} killed ({killed / max(run, 1):.1%})")


if __name__ == "__main__":
    main()
