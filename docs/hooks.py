"""Generated pages of the site, and generated parts of written pages.

mkdocs adds the pages of chips, commands, the API, notebooks and benchmarks while it builds. In written pages the parts between
the marks `<!-- made: NAME -->` and `<!-- end -->` are generated; a test compares them, and `python docs/hooks.py` writes them
again.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
API = (
    "pipeline.api", "pipeline.prune", "pipeline.deploy", "pipeline.demo", "pipeline.inputs", "pipeline.deployment",
    "network", "network.graph", "network.channel_groups",
    "hardware", "hardware.profile",
    "data",
    "simulator", "simulator.synops", "simulator.spike_comparison",
    "quantize", "quantize.explain",
    "placement.place",
    "budget.check", "budget.report", "budget.energy", "budget.latency",
    "training",
    "pruning.prune_to_budget", "pruning.settings", "pruning.plan", "pruning.search.search",
    "interchange",
    "report",
    "errors",
)  # fmt: skip
"""Modules with a page, in the order of the index."""
ROOT_HEADING = "    options: {show_root_heading: true, show_root_toc_entry: true, show_root_full_path: false}\n"
"""Options of mkdocstrings for one name: with a heading of its own."""


# ------------------------------------------------------------------------------------------------------ generated pages


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that mkdocs builds besides those in docs/."""
    from mkdocs.structure.files import File

    for path, text in pages():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> Iterator[tuple[str, str]]:
    """Yield (path, Markdown) of every generated page."""
    yield from chip_pages()
    yield "chips/format.md", (ROOT / "hardware_profiles" / "README.md").read_text()
    yield "reference/commands.md", commands_page()
    yield from api_pages()
    yield from notebook_pages()
    yield "benchmarks/index.md", benchmarks_page()
    yield "examples.md", examples_page()
    yield "contributing.md", (ROOT / "CONTRIBUTING.md").read_text()
    yield "changelog.md", (ROOT / "CHANGELOG.md").read_text()


def chip_pages() -> Iterator[tuple[str, str]]:
    """Yield a page for each profile, and their index."""
    from spear_deploy.hardware.profile import list_facts, list_profiles, load_profile

    index = [
        "# Chips",
        "",
        "From the files in `hardware_profiles/`: a page for each chip, with every number, its evidence and its source. *Not "
        "published*: keys without a number, on which checks are `unchecked`, or which are no part of the chip. [Format "
        "and sources](format.md), "
        "[a profile of your own](../howto/profile.md).",
        "",
    ]
    index += ["| chip | | cores | numbers | not published |", "|---|---|--:|--:|--:|"]
    for name in list_profiles():
        profile = load_profile(name)
        leaves = [leaf for leaf in list_facts(profile) if not leaf.key.startswith("core_groups.") or leaf.value is not None]
        known = [leaf for leaf in leaves if leaf.value is not None]
        missing = [leaf.key for leaf in leaves if leaf.value is None]
        cores = profile.chip.usable_cores.value
        index.append(f"| [`{name}`]({name}.md) | {_cell(profile.meta.title)} | {cores} | {len(known)} | {len(missing)} |")
        yield f"chips/{name}.md", _chip(name, profile.meta, known, missing)
    yield "chips/index.md", "\n".join(index) + "\n"


def _chip(name: str, meta: Any, known: list[Any], missing: list[str]) -> str:
    lines = [
        f"# {meta.title}",
        "",
        f"`--chip {name}`" + "".join(f", `{alias}`" for alias in meta.aliases) + (f"; {meta.domain}." if meta.domain else "."),
    ]
    if meta.operating_point:
        lines += ["", f"Operating point of the numbers: {meta.operating_point}."]
    lines += ["", "| key | value | unit | evidence | source |", "|---|--:|---|---|---|"]
    for leaf in known:
        value = ", ".join(map(str, leaf.value)) if isinstance(leaf.value, (list, tuple)) else leaf.value
        value = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
        lines.append(f"| `{leaf.key}` | {_cell(value)} | {_cell(leaf.unit)} | {_cell(leaf.evidence)} | {_cell(leaf.source)} |")
    unknown = ", ".join(f"`{key}`" for key in missing) or "nothing"
    return "\n".join([*lines, "", f"Not published, or no part of this chip: {unknown}.", ""])


def _cell(value: Any) -> str:
    """Escape a value for a cell of a Markdown table."""
    return str(value).replace("|", "&#124;").replace("<", "&lt;").replace("\n", " ")


def commands_page() -> str:
    """Return the help texts of all commands as one page."""
    import click

    from spear_deploy.cli import main

    context = click.Context(main, info_name="spear-deploy")
    lines = ["# Commands", "", "The texts of `spear-deploy COMMAND --help`.", "", *_help(main.help)]
    for name, command in main.commands.items():
        arguments = " ".join(p.make_metavar(context) for p in command.params if isinstance(p, click.Argument))
        lines += ["", f"## {name}", "", f"`spear-deploy {name} {arguments}`".replace(" `", "`"), "", *_help(command.help)]
        lines += ["", "| option | |", "|---|---|"]
        for option in command.params:
            record = option.get_help_record(click.Context(command, info_name=name))
            if record is not None:  # arguments and hidden options have none
                lines.append(f"| <code>{_cell(record[0])}</code> | {_cell(record[1])} |")
    return "\n".join(lines) + "\n"


def _help(text: str | None) -> list[str]:
    """Return the lines of a command's docstring, its examples as code."""
    text = re.sub(r"^Example: (.+)$", r"```sh\n\1\n```", inspect.cleandoc(text or ""), flags=re.MULTILINE)
    return text.replace("<", "&lt;").splitlines()


def api_pages() -> Iterator[tuple[str, str]]:
    """Yield a page for each module of the API, and their index."""
    index = [
        "# Python",
        "",
        "```python",
        "import spear_deploy as sd",
        "```",
        "",
        "| `sd.` | |",
        "|---|---|",
    ]
    spear_deploy = importlib.import_module("spear_deploy")
    for name in spear_deploy.__all__:
        first = (inspect.getdoc(getattr(spear_deploy, name)) or "").split("\n\n")[0].replace("\n", " ")
        page = "network.graph" if name == "SNNGraph" else "functions"
        index.append(f"| [`{name}`]({page}.md) | {_cell(first)} |")
    functions = [getattr(spear_deploy, name) for name in spear_deploy.__all__ if name != "SNNGraph"]
    shown = "\n".join(f"::: {function.__module__}.{function.__name__}\n{ROOT_HEADING}" for function in functions)
    yield "reference/api/functions.md", f"# spear_deploy\n\nThe commands as functions, `import spear_deploy as sd`.\n\n{shown}"
    index += ["", "All else is imported from its module:"]
    index += ["", "| module | |", "|---|---|"]
    for name in API:
        first = (importlib.import_module(f"spear_deploy.{name}").__doc__ or "").splitlines()[0]
        index.append(f"| [`spear_deploy.{name}`]({name}.md) | {_cell(first)} |")
        yield f"reference/api/{name}.md", f"# {name}\n\n{_directives(name)}"
    yield "reference/api/index.md", "\n".join(index) + "\n"


def _directives(path: str) -> str:
    """Return the mkdocstrings directives of a module: the module itself, or the names that a package re-exports."""
    module = importlib.import_module(f"spear_deploy.{path}")
    if not hasattr(module, "__all__") or not hasattr(module, "__path__"):
        return f"::: spear_deploy.{path}\n"
    head = f"::: spear_deploy.{path}\n    options: {{members: false}}\n"
    names = [name for name in module.__all__ if callable(getattr(module, name)) and hasattr(getattr(module, name), "__module__")]
    owned = [name for name in names if str(getattr(module, name).__module__).startswith("spear_deploy")]
    return "\n".join([head, *(f"::: {getattr(module, name).__module__}.{name}\n{ROOT_HEADING}" for name in owned)])


def notebook_pages() -> Iterator[tuple[str, str]]:
    """Yield a page for each notebook of the examples, with the outputs that it holds."""
    from nbconvert import MarkdownExporter

    for path in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")):
        text, _ = MarkdownExporter().from_filename(str(path))
        text = re.sub(r"\n(<pre[^\n]*>.*?</pre>)", r"\n\n<div>\1</div>\n", text, flags=re.DOTALL)
        source = f"The notebook is `examples/notebooks/{path.name}`; its outputs are those of a run."
        title, _, rest = text.strip().partition("\n")
        yield f"notebooks/{path.stem}.md", f"{title}\n\n{source}\n{rest}\n"


TASKS = {
    "search_tasks": "search, levers, qat",
    "lever_tasks": "levers, layer_bits, qat",
    "adapt_tasks": "adapt; braille also levers",
}
"""Modules whose docstrings hold a table of tasks, and the benchmarks that use them."""


def examples_page() -> str:
    """Return the list of examples, with the first line of each."""
    lines = ["# Examples", "", "Scripts in `examples/`; the first lines of each say what it takes.", ""]
    lines += ["| script | |", "|---|---|"]
    for path in sorted((ROOT / "examples").glob("*.py")):
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        lines.append(f"| `python examples/{path.name}` | {_cell(first)} |")
    lines += ["", "As notebooks, from training to a pruned network that goes home: [snnTorch](notebooks/from_snntorch.md),"]
    lines += ["[SpikingJelly](notebooks/from_spikingjelly.md), [sinabs](notebooks/from_sinabs.md)."]
    return "\n".join(lines) + "\n"


def benchmarks_page() -> str:
    """Return the index of the benchmarks: results with their raw data, the tasks, and a row for each script."""
    lines = [
        "# Benchmarks",
        "",
        "Each table is made by a script of `tests/benchmarks`, with seeds, and with the baseline in the same run. Figures "
        "of accuracy "
        "are of a test split that no choice of the run has seen; where settings were chosen with one in view, the page "
        "says so. Data "
        "are read from the folder `SPEAR_SHARED`; nothing is downloaded.",
        "",
        "## Results",
        "",
        "| page | made by | raw data |",
        "|---|---|---|",
    ]
    for path in sorted((DOCS / "benchmarks").glob("*.md")):
        title = path.read_text().splitlines()[0].lstrip("# ")
        raw = [name for name in (f"{path.stem}.json", f"{path.stem}.svg") if (DOCS / "benchmarks" / name).exists()]
        links = ", ".join(f"[{name}]({name})" for name in raw)
        lines.append(f"| [{title}]({path.name}) | `tests.benchmarks.{path.stem}` | {links} |")
    tutorials = sorted(path.relative_to(DOCS / "benchmarks") for path in (DOCS / "benchmarks" / "tutorials").glob("*.json"))
    links = ", ".join(f"[{path.stem}]({path})" for path in tutorials)
    lines.append(f"| [Tutorial networks of frameworks](../interop.md) | `tests.support.tutorial_networks` | {links} |")
    lines += ["", "## Tasks", "", "| task | network | data | benchmarks |", "|---|---|---|---|"]
    for name, users in TASKS.items():
        text = ast.get_docstring(ast.parse((ROOT / "tests" / "benchmarks" / f"{name}.py").read_text())) or ""
        rows = [re.split(r"\s{2,}", line, maxsplit=2) for line in text.splitlines() if re.match(r"\w+ {2,}\S", line)]
        lines += [f"| {' | '.join([f'`{row[0]}`', *map(_cell, row[1:]), users])} |" for row in rows]
    lines += ["", "## Scripts", "", "| command | |", "|---|---|"]
    for path in sorted((ROOT / "tests" / "benchmarks").glob("*.py")):
        text = path.read_text()
        if "__main__" in text:
            first = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
            lines.append(f"| `python -m tests.benchmarks.{path.stem}` | {_cell(first)} |")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------- generated parts of written pages


def folders() -> str:
    """Return the listing of the package from bottom to top, each folder with the first line of its docstring."""
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text())
    (value,) = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ORDER"
    ]
    names = ast.literal_eval(value)
    lines = ["```text"]
    for name in names:
        package = ROOT / "spear_deploy" / name
        path = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
        lines.append(f"{name + ('/' if package.is_dir() else '.py'):14}{first}")
    return "\n".join([*lines, "```"])


def docstring(name: str) -> str:
    """Return the docstring of `module.Name` as a block."""
    module, _, attribute = name.rpartition(".")
    return f"```text\n{inspect.getdoc(getattr(importlib.import_module(f'spear_deploy.{module}'), attribute))}\n```"


MADE: dict[str, Callable[..., str]] = {"folders": folders, "docstring": docstring}
PART = re.compile(r"<!-- made: (\w+)(?: ([\w.]+))? -->\n(?:.*?\n)??<!-- end -->", re.DOTALL)


def fill_parts(text: str) -> str:
    """Return a page with its generated parts up to date."""

    def part(match: re.Match[str]) -> str:
        name, argument = match[1], match[2]
        made = MADE[name](argument) if argument else MADE[name]()
        return f"<!-- made: {name}{f' {argument}' if argument else ''} -->\n{made}\n<!-- end -->"

    return PART.sub(part, text)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text()
        new = fill_parts(old)
        if new != old:
            page.write_text(new)
            print(f"written: {page.relative_to(ROOT)}")
