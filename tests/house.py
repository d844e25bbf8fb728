"""Measures of the structure of a package, read from its source.

    python -m tests.house                            # a table of spear_deploy beside this folder
    python -m tests.house PACKAGE_DIR --vs OTHER_DIR # two packages side by side
    python -m tests.house --list circles             # the places that a measure counts; --list names the measures

Source is read as text and never imported. A root entry is a module or folder directly in the package; everything in a folder
belongs to it. An import counts wherever it stands, in a function too; one under `if TYPE_CHECKING` only where a measure says so.
Importing a module does not count as importing the `__init__` of the folders that it lies in.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import networkx

HOUSE = (
    "errors", "util", "network", "hardware", "simulator", "data", "norse", "frameworks", "quantize", "placement", "budget",
    "training", "adaptation", "interchange", "pruning", "lava", "report", "pipeline", "cli",
)  # fmt: skip
"""Root entries from the bottom to the top: each imports only what stands before it."""
SMALL_FILE, SMALL_BODY, MANY_PARAMETERS, LONG_DOCSTRING = 60, 5, 8, 12
NOUNS = {
    "bring", "coding", "decoding", "docstring", "embed", "encoding", "exceed", "feed", "halving", "mapping", "need",
    "nothing", "padding", "proceed", "pruning", "ranking", "recording", "rounding", "seed", "something", "speed", "splitting",
    "string", "thing", "timing", "training", "tuning", "unrolling", "warning",
}  # fmt: skip
"""Words that end like a participle and are nouns of the field, or no participles."""
PARTICLES = {"after", "again", "apart", "as", "aside", "at", "away", "back", "before", "by", "down", "elsewhere", "first", "from",
             "in", "into", "of", "on", "onto", "out", "over", "to", "twice", "up", "with"}  # fmt: skip
"""Words of a name behind which its noun no longer stands."""
PREDICATES = {"are", "can", "does", "has", "have", "is", "was", "were"}

FunctionNode: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"


@dataclass(frozen=True)
class Function:
    """A function or method: its node, its name with those of what it stands in, and whether it is a property."""

    node: FunctionNode
    name: str

    @property
    def is_private(self) -> bool:
        """Return whether its own name begins with an underscore and is no magic name."""
        return self.node.name.startswith("_") and not self.node.name.endswith("__")

    @property
    def is_public(self) -> bool:
        """Return whether it can be reached by names without an underscore."""
        return not any(part.startswith("_") or part == "<locals>" for part in self.name.split("."))

    @property
    def is_property(self) -> bool:
        """Return whether it is read like an attribute."""
        decorators = {ast.unparse(decorator).split("(")[0].split(".")[-1] for decorator in self.node.decorator_list}
        return bool(decorators & {"property", "cached_property"})

    @property
    def lines(self) -> int:
        """Count the lines from `def` to the end."""
        return (self.node.end_lineno or 0) - self.node.lineno + 1

    @property
    def body_lines(self) -> int:
        """Count the lines of the body without the docstring."""
        body = self.node.body[1:] if ast.get_docstring(self.node, clean=False) is not None else self.node.body
        return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0

    @property
    def parameters(self) -> int:
        """Count the parameters without self and cls; `*args` and `**kwargs` are one each."""
        given = self.node.args
        names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        return len([name for name in names if name not in ("self", "cls")]) + bool(given.vararg) + bool(given.kwarg)


@dataclass(frozen=True)
class Import:
    """An import of a module of the package: from, to (dotted, without the package), line.

    `lazy` says that it stands in a function, `typing` that only a type checker runs it.
    """

    source: str
    target: str
    line: int
    lazy: bool
    typing: bool


class Module:
    """A module of a package.

    Attributes:
        name: dotted, without the package; "" is the package's own `__init__`.
        text: the source.
    """

    def __init__(self, path: Path, root: Path) -> None:
        parts = path.relative_to(root).with_suffix("").parts
        self.place = str(path.relative_to(root))
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.entry = self.name.split(".")[0]
        self.text = path.read_text(encoding="utf-8")
        self.lines = len(self.text.splitlines())
        self.tree = ast.parse(self.text)

    @cached_property
    def functions(self) -> list[Function]:
        """All functions, methods and functions within functions."""
        return list(_functions(self.tree, ""))

    @cached_property
    def used_names(self) -> Counter[str]:
        """How often each name is read, alone or as an attribute."""
        names = (
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(self.tree)
            if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load)
        )
        return Counter(names)


def _functions(node: ast.AST, prefix: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield Function(child, prefix + child.name)
            yield from _functions(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


class Package:
    """The modules of a package and their imports."""

    def __init__(self, root: Path) -> None:
        if not (root / "__init__.py").is_file():
            raise SystemExit(f"folder '{root}': has no __init__.py; name the folder of a package")
        self.root = root
        self.modules = [Module(path, root) for path in sorted(root.rglob("*.py"))]
        self.names = {module.name for module in self.modules}

    @cached_property
    def imports(self) -> list[Import]:
        """Every import of a module of the package, one for each module that a statement names."""
        return [
            Import(module.name, name, node.lineno, lazy=lazy, typing=typing)
            for module in self.modules
            for node, lazy, typing in _import_nodes(module.tree, lazy=False, typing=False)
            for name in sorted(set(self._targets(node, module)))
            if name != module.name
        ]

    def _targets(self, node: ast.Import | ast.ImportFrom, module: Module) -> Iterator[str]:
        """Yield the modules of the package that a statement imports."""
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            base = node.module or ""
            if node.level:
                inside = module.place.split("/")[:-1]
                base = ".".join([self.root.name, *inside[: len(inside) + 1 - node.level], *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == self.root.name:
                yield self._module_of(rest)

    def _module_of(self, name: str) -> str:
        """Return the longest beginning of a dotted name that is a module."""
        while name not in self.names:
            name = name.rpartition(".")[0]
        return name

    @cached_property
    def entries(self) -> list[str]:
        """Modules and folders of the root, without its `__init__`."""
        return sorted({module.entry for module in self.modules} - {""})

    @cached_property
    def ranks(self) -> Mapping[str, int]:
        """Root entries and their floors: `HOUSE`, or ORDER of tests/test_imports.py beside the package if it names more."""
        orders = [[{name} for name in HOUSE]]
        former = self.root.parent / "tests" / "test_imports.py"
        if former.is_file():
            orders += [
                ast.literal_eval(node.value)
                for node in ast.parse(former.read_text(encoding="utf-8")).body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
            ]
        ranks = [{name: rank for rank, names in enumerate(order) for name in names} for order in orders]
        return max(ranks, key=lambda known: len(set(known) & set(self.entries)))

    @cached_property
    def crossing(self) -> list[Import]:
        """Imports of another root entry that run, without those of the package's own `__init__`."""
        return [each for each in self.imports if not each.typing and len({entry_of(each.source), entry_of(each.target), ""}) == 3]

    @cached_property
    def arrows(self) -> Counter[tuple[str, str]]:
        """How many imports lead from one root entry to another; for type checking and of `__init__` too."""
        pairs = ((entry_of(each.source), entry_of(each.target)) for each in self.imports)
        return Counter(pair for pair in pairs if pair[0] != pair[1])

    def place(self, imported: Import) -> str:
        """Return where an import stands."""
        places = {module.name: module.place for module in self.modules}
        text = f"{places[imported.source]}:{imported.line} imports {places[imported.target]}"
        return f"{text} (in a function)" if imported.lazy else text


def entry_of(name: str) -> str:
    """Return the root entry of a dotted name."""
    return name.split(".")[0]


def _import_nodes(node: ast.AST, *, lazy: bool, typing: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, lazy, typing
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _import_nodes(ast.Module(child.body, []), lazy=lazy, typing=True)
            yield from _import_nodes(ast.Module(child.orelse, []), lazy=lazy, typing=typing)
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _import_nodes(child, lazy=lazy or inside, typing=typing)


# ------------------------------------------------------------------------------------------------------------ measures

Measured: TypeAlias = tuple[str, list[str]]
"""The value as shown, and the places that it counts."""


def _counted(places: Iterable[str]) -> Measured:
    listed = list(places)
    return str(len(listed)), listed


def _each_function(package: Package) -> Iterator[tuple[Module, Function, str]]:
    for module in package.modules:
        for function in module.functions:
            yield module, function, f"{module.place}:{function.node.lineno} {function.name}"


def root_entries(package: Package) -> Measured:
    """Modules and folders directly in the package, `__init__` included."""
    return _counted([*package.entries, "__init__"])


def files(package: Package) -> Measured:
    """Python files."""
    return _counted(f"{module.lines:5} {module.place}" for module in package.modules)


def lines(package: Package) -> Measured:
    """Lines of all files."""
    return str(sum(module.lines for module in package.modules)), files(package)[1]


def median_lines(package: Package) -> Measured:
    """Median of the lines of a file."""
    return f"{statistics.median(module.lines for module in package.modules):.0f}", sorted(files(package)[1])


def small_files(package: Package) -> Measured:
    """Files under 60 lines, and their share."""
    places = sorted(f"{module.lines:5} {module.place}" for module in package.modules if module.lines < SMALL_FILE)
    return f"{len(places)} ({len(places) / len(package.modules):.0%})", places


def longest_function(package: Package) -> Measured:
    """Lines of the longest function; the list has the ten longest."""
    longest = sorted(((f.lines, place) for _, f, place in _each_function(package)), reverse=True)[:10]
    return str(longest[0][0] if longest else 0), [f"{count:5} {place}" for count, place in longest]


def helpers(package: Package) -> Measured:
    """Private functions and methods of at most 5 lines, `def` included, that are named once, of all private ones."""
    return _helpers(package, lambda function: function.lines)


def helpers_by_body(package: Package) -> Measured:
    """The same with a body of at most 5 lines, without `def`, its parameters and the docstring."""
    return _helpers(package, lambda function: function.body_lines)


def _helpers(package: Package, length: Callable[[Function], int]) -> Measured:
    private = [(module, f, place) for module, f, place in _each_function(package) if f.is_private]
    places = [
        place
        for module, f, place in private
        if length(f) <= SMALL_BODY and module.used_names[f.node.name] == 1 and not _read_elsewhere(package, module, f.node.name)
    ]
    return f"{len(places)} of {len(private)}", places


def _read_elsewhere(package: Package, home: Module, name: str) -> bool:
    """Return whether another module imports a private name of this one."""
    return any(
        isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names)
        for module in package.modules
        if module is not home and name in module.text
        for node in ast.walk(module.tree)
    )


def many_parameters(package: Package) -> Measured:
    """Functions with more than 8 parameters."""
    long = ((f.parameters, place) for _, f, place in _each_function(package) if f.parameters > MANY_PARAMETERS)
    return _counted(f"{count:3} {place}" for count, place in sorted(long, reverse=True))


def many_parameters_public(package: Package) -> Measured:
    """Public functions with more than 8 parameters."""
    long = ((f.parameters, place) for _, f, place in _each_function(package) if f.is_public and f.parameters > MANY_PARAMETERS)
    return _counted(f"{count:3} {place}" for count, place in sorted(long, reverse=True))


def circles(package: Package) -> Measured:
    """Groups of modules that import each other in a circle (strongly connected components)."""
    return _circles(each for each in package.imports if not each.typing)


def circles_of_types(package: Package) -> Measured:
    """The same where imports for type checking count as well."""
    return _circles(package.imports)


def _circles(imports: Iterable[Import]) -> Measured:
    graph = networkx.DiGraph((each.source, each.target) for each in imports)
    groups = [sorted(group) for group in networkx.strongly_connected_components(graph) if len(group) > 1]
    groups.sort(key=lambda group: (-len(group), group))
    return f"{len(groups)} ({sum(map(len, groups))} modules)", [
        " ".join(name or "__init__" for name in group) for group in groups
    ]


def upward_imports(package: Package) -> Measured:
    """Imports of a root entry that does not stand below, in functions too."""
    ranks = package.ranks
    upward = []
    for each in package.crossing:
        source, target = entry_of(each.source), entry_of(each.target)
        if source in ranks and target in ranks and ranks[target] >= ranks[source]:
            upward.append(package.place(each))
    return _counted(upward)


def without_a_place(package: Package) -> Measured:
    """Root entries that the order does not name: their imports are not judged."""
    return _counted(name for name in package.entries if name not in package.ranks)


def lazy_imports(package: Package) -> Measured:
    """Imports of another root entry that stand in a function."""
    return _counted(package.place(each) for each in package.crossing if each.lazy)


def arrows(package: Package) -> Measured:
    """Pairs of root entries of which one imports the other; for type checking, and `__init__`, too."""
    return _counted(
        f"{source or '__init__'} → {target or '__init__'} ({count})" for (source, target), count in sorted(package.arrows.items())
    )


def floors(package: Package) -> Measured:
    """Root entries on the longest way down along arrows; those that import each other stand on one floor."""
    whole = networkx.condensation(networkx.DiGraph(list(package.arrows)))
    way = networkx.dag_longest_path(whole)
    return str(len(way)), [" ".join(name or "__init__" for name in sorted(whole.nodes[n]["members"])) for n in way]


def participles(package: Package) -> Measured:
    """Modules, functions and methods whose noun is a participle: `deploying`, `counted`, `written_aside`.

    The word that counts is the last before the first of `PARTICLES`, so `coupled_groups` is none. It counts if it ends in -ing or
    -ed and is not in `NOUNS`. Left out are properties and names that begin with one of `PREDICATES`: they state what is so.
    """
    modules = (module.place for module in package.modules if _is_participle(module.name.split(".")[-1]))
    functions = (place for _, f, place in _each_function(package) if not f.is_property and _is_participle(f.node.name))
    return _counted([*modules, *functions])


def _is_participle(name: str) -> bool:
    words = name.strip("_").split("_")
    last = next((n for n, word in enumerate(words) if n and word in PARTICLES), len(words)) - 1
    return words[0] not in PREDICATES and bool(re.fullmatch(r"[a-z]{2,}(ing|ed)", words[last])) and words[last] not in NOUNS


def named_found(package: Package) -> Measured:
    """Places where something is called `found`: variables that get a value, however they do, and parameters."""
    return _counted(
        f"{module.place}:{node.lineno}"
        for module in package.modules
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Name) and node.id == "found" and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.arg) and node.arg == "found")
    )


def shared_class_names(package: Package) -> Measured:
    """Names that classes of several modules bear."""
    homes: dict[str, list[str]] = {}
    for module in package.modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(f"{module.place}:{node.lineno}")
    return _counted(f"{name}: {', '.join(places)}" for name, places in sorted(homes.items()) if len(places) > 1)


def questions(package: Package) -> Measured:
    """Modules whose docstring asks in its first line."""
    return _counted(f"{module.place} {line}" for module, line in _first_lines(package) if line.endswith("?"))


def long_first_lines(package: Package) -> Measured:
    """Modules whose docstring has more than 12 words in its first line."""
    lines_of = ((len(line.split()), f"{module.place} {line}") for module, line in _first_lines(package))
    return _counted(f"{count:3} {place}" for count, place in sorted(lines_of, reverse=True) if count > LONG_DOCSTRING)


def no_docstring(package: Package) -> Measured:
    """Modules without a docstring."""
    return _counted(module.place for module in package.modules if ast.get_docstring(module.tree) is None)


def _first_lines(package: Package) -> Iterator[tuple[Module, str]]:
    for module in package.modules:
        text = ast.get_docstring(module.tree)
        if text:
            yield module, text.splitlines()[0].strip()


MEASURES: dict[str, Callable[[Package], Measured]] = {
    "root entries": root_entries,
    "files": files,
    "lines": lines,
    "median lines": median_lines,
    "files under 60 lines": small_files,
    "longest function": longest_function,
    "private helpers of at most 5 lines, named once": helpers,
    "private helpers with a body of at most 5 lines, named once": helpers_by_body,
    "public functions with more than 8 parameters": many_parameters_public,
    "functions with more than 8 parameters": many_parameters,
    "circles": circles,
    "circles, imports for type checking too": circles_of_types,
    "upward imports": upward_imports,
    "root entries without a place": without_a_place,
    "imports of other root entries in functions": lazy_imports,
    "folder arrows": arrows,
    "floors": floors,
    "participles as names": participles,
    "variables and parameters called found": named_found,
    "class names in several modules": shared_class_names,
    "docstrings that ask": questions,
    "docstrings over 12 words": long_first_lines,
    "modules without docstring": no_docstring,
}


def table(packages: Sequence[tuple[str, Package]]) -> str:
    """Return a markdown table: a row a measure, a column a package."""
    rows = [["", *(name for name, _ in packages)], ["---", *("--:" for _ in packages)]]
    rows += [[name, *(measure(package)[0] for _, package in packages)] for name, measure in MEASURES.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or the places of one measure."""
    default = Path(__file__).resolve().parents[1] / "spear_deploy"
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", nargs="?", type=Path, default=default, metavar="PACKAGE_DIR")
    parser.add_argument("--vs", type=Path, metavar="OTHER_DIR", help="a second package, in the second column")
    parser.add_argument("--list", dest="listed", metavar="MEASURE", help=f"print its places: {', '.join(MEASURES)}")
    options = parser.parse_args(arguments)
    folders = [options.package, *([options.vs] if options.vs else [])]
    packages = [(str(folder), Package(folder.resolve())) for folder in folders]
    if options.listed is None:
        print(table(packages))
        return 0
    matching = [name for name in MEASURES if options.listed in name]
    if options.listed not in MEASURES and len(matching) != 1:
        parser.error(f"--list '{options.listed}': expected one of {', '.join(MEASURES)}")
    name = options.listed if options.listed in MEASURES else matching[0]
    for folder, package in packages:
        value, places = MEASURES[name](package)
        print(f"{folder}: {name}: {value}", *places, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
