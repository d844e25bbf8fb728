"""Which pages are made while the site builds? Chips, commands and the API; and which parts of written pages are checked.

python docs/hooks.py        writes the checked parts (between the marks `<!-- made: NAME -->` and `<!-- end -->`) again
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
API = {
    "pipeline.api": "load, check, count, simulate, compare, explain, export, rank",
    "pipeline.prune": "prune",
    "pipeline.deploy": "deploy",
    "pipeline.demo": "demo",
    "network.graph": "the network",
    "network": "its parts",
    "data": "datasets",
    "hardware.profile": "chips",
    "budget.check": "the verdict",
    "simulator.synops": "SynOps",
    "simulator": "the simulator",
    "simulator.spike_comparison": "differences by layer",
    "quantize.explain": "what each step to integers costs",
    "quantize": "integers",
    "placement.place": "cores",
    "budget.energy": "energy",
    "budget.latency": "latency",
    "network.channel_groups": "coupled channels",
    "pruning.plan": "plans, slicing",
    "pruning.search.search": "the search",
    "training": "learning and evaluating",
    "interchange": "NIR, netx, ONNX",
    "errors": "errors",
}


# ------------------------------------------------------------------------------------------------- pages that are made


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that mkdocs builds besides those in docs/."""
    from mkdocs.structure.files import File

    for path, text in pages():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> Iterator[tuple[str, str]]:
    """Yield (path, Markdown) of every page that is made."""
    yield from chip_pages()
    yield "chips/format.md", (ROOT / "hardware_profiles" / "README.md").read_text()
    yield "reference/commands.md", commands_page()
    yield from api_pages()
    yield "benchmarks/index.md", benchmarks_page()
    yield "contributing.md", (ROOT / "CONTRIBUTING.md").read_text()
    yield "changelog.md", (ROOT / "CHANGELOG.md").read_text()


def chip_pages() -> Iterator[tuple[str, str]]:
    """Yield a page a profile, and their index."""
    from spear_deploy.hardware.profile import list_facts, list_profiles, load_profile

    index = ["# Chips", "", "From the files in `hardware_profiles/`. [How a profile is written](format.md).", ""]
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
        f"`--chip {name}`" + "".join(f", `{alias}`" for alias in meta.aliases) + f". {meta.domain or ''}",
    ]
    if meta.operating_point:
        lines += ["", f"Operating point: {meta.operating_point}."]
    lines += ["", "| key | value | unit | evidence | source |", "|---|--:|---|---|---|"]
    for leaf in known:
        value = ", ".join(map(str, leaf.value)) if isinstance(leaf.value, (list, tuple)) else leaf.value
        value = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
        lines.append(f"| `{leaf.key}` | {_cell(value)} | {_cell(leaf.unit)} | {_cell(leaf.evidence)} | {_cell(leaf.source)} |")
    unknown = ", ".join(f"`{key}`" for key in missing) or "nothing"
    return "\n".join([*lines, "", f"Not published, or no part of this chip: {unknown}.", ""])


def _cell(value: Any) -> str:
    """Write a value so that it stays in its cell."""
    return str(value).replace("|", "&#124;").replace("<", "&lt;").replace("\n", " ")


def commands_page() -> str:
    """Return what `--help` says, command by command."""
    import click

    from spear_deploy.cli import main

    context = click.Context(main, info_name="spear-deploy")
    lines = ["# Commands", "", "What `spear-deploy COMMAND --help` says.", "", *_help(main.help)]
    for name, command in main.commands.items():
        arguments = " ".join(p.make_metavar(context) for p in command.params if isinstance(p, click.Argument))
        lines += ["", f"## {name}", "", f"`spear-deploy {name} {arguments}`".replace(" `", "`"), "", *_help(command.help)]
        lines += ["", "| option | |", "|---|---|"]
        for option in command.params:
            if isinstance(option, click.Option):
                shown, told = option.get_help_record(click.Context(command, info_name=name)) or ("", "")
                lines.append(f"| <code>{_cell(shown)}</code> | {_cell(told)} |")
    return "\n".join(lines) + "\n"


def _help(text: str | None) -> list[str]:
    """Return a docstring of a command; its example as code."""
    found = re.sub(r"^Example: (.+)$", r"```sh\n\1\n```", inspect.cleandoc(text or ""), flags=re.MULTILINE)
    return found.replace("<", "&lt;").splitlines()


def api_pages() -> Iterator[tuple[str, str]]:
    """Yield a page a room of the API, and their index."""
    index = [
        "# Python",
        "",
        "```python",
        "import spear_deploy as sd",
        "```",
        "",
        "`sd` has the verbs: those of `verbs` and `pipeline`.",
    ]
    index += ["", "| | |", "|---|---|"]
    for room, what in API.items():
        index.append(f"| [`spear_deploy.{room}`]({room}.md) | {what} |")
        yield f"reference/api/{room}.md", f"# {room}\n\n{_room(room)}"
    yield "reference/api/index.md", "\n".join(index) + "\n"


def _room(room: str) -> str:
    """Return the directives for what a module offers: its own names, or those that a package exports from its modules."""
    module = importlib.import_module(f"spear_deploy.{room}")
    if not hasattr(module, "__all__") or not hasattr(module, "__path__"):
        return f"::: spear_deploy.{room}\n"
    head = f"::: spear_deploy.{room}\n    options: {{members: false}}\n"
    names = [name for name in module.__all__ if callable(getattr(module, name)) and hasattr(getattr(module, name), "__module__")]
    owned = [name for name in names if str(getattr(module, name).__module__).startswith("spear_deploy")]
    options = "    options: {show_root_heading: true, show_root_toc_entry: true, show_root_full_path: false}\n"
    return "\n".join([head, *(f"::: {getattr(module, name).__module__}.{name}\n{options}" for name in owned)])


def benchmarks_page() -> str:
    """Return the page of what was measured: a script a row, with the raw data that lies beside it."""
    lines = [
        "# Benchmarks",
        "",
        "Each table is made by a script of `tests/benchmarks`, with seeds and the baseline in the same run.",
        "",
    ]
    lines += ["| command | question |", "|---|---|"]
    for path in sorted((ROOT / "tests" / "benchmarks").glob("*.py")):
        text = path.read_text()
        if "__main__" in text:
            said = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
            lines.append(f"| `python -m tests.benchmarks.{path.stem}` | {_cell(said)} |")
    found = sorted(path for path in (DOCS / "benchmarks").rglob("*") if path.is_file())
    if found:
        lines += ["", "## Results and raw data", ""]
        lines += [f"- [{path.relative_to(DOCS / 'benchmarks')}]({path.relative_to(DOCS / 'benchmarks')})" for path in found]
    return "\n".join(lines) + "\n"


# --------------------------------------------------------------------------------- parts of written pages that are made


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
    """Return the docstring of `module.Name` as it stands."""
    module, _, attribute = name.rpartition(".")
    return f"```text\n{inspect.getdoc(getattr(importlib.import_module(f'spear_deploy.{module}'), attribute))}\n```"


MADE: dict[str, Callable[..., str]] = {"folders": folders, "docstring": docstring}
PART = re.compile(r"<!-- made: (\w+)(?: ([\w.]+))? -->\n(?:.*?\n)??<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """Return a page with its made parts as they should stand."""

    def part(found: re.Match[str]) -> str:
        name, argument = found[1], found[2]
        made = MADE[name](argument) if argument else MADE[name]()
        return f"<!-- made: {name}{f' {argument}' if argument else ''} -->\n{made}\n<!-- end -->"

    return PART.sub(part, text)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text()
        new = filled(old)
        if new != old:
            page.write_text(new)
            print(f"written: {page.relative_to(ROOT)}")
