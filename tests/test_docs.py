"""Documentation: blocks run, links resolve, generated parts are up to date."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import spear_deploy
from spear_deploy.budget.budget_file import BUDGET, DATA, NETWORK, TOP, read_budget
from spear_deploy.cli import main
from spear_deploy.hardware.profile import list_profiles, load_profile
from tests.benchmarks.adapt_tasks import TASKS as ADAPT_TASKS
from tests.benchmarks.levers import LEVER_TASKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCK = re.compile(r"(<!-- slow -->\n)?^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def script(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = script("hooks")


def blocks(text, slow=False):
    return [(language, code) for mark, language, code in BLOCK.findall(text) if bool(mark) <= slow]


def run_blocks(text, slow=False):
    """Run the blocks of a page in order: Python in one namespace, commands line by line."""
    names = {"__name__": "docs"}
    for language, code in blocks(text, slow):
        if language == "python":
            exec(compile(code, "docs", "exec"), names)
        elif language == "sh":
            for line in code.splitlines():
                words = shlex.split(line, comments=True)
                assert words[0] == "spear-deploy", line
                done = CliRunner().invoke(main, words[1:])
                assert done.exit_code in (0, 3), f"{line}\n{done.output}{done.stderr}"
                if done.exit_code == 3:
                    assert words[1] in ("check", "rank") and "DOES NOT FIT" in done.stdout, line


def pages_with(language):
    return [page for page in PAGES if any(found == language for found, _ in blocks(page.read_text()))]


@pytest.mark.usefixtures("planned_once")
@pytest.mark.parametrize("page", sorted({*pages_with("python"), *pages_with("sh")}), ids=lambda page: page.stem)
def test_blocks_run(page, tmp_path, monkeypatch):
    for package in re.findall(r"<!-- needs (\w+) -->", page.read_text()):
        pytest.importorskip(package, exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # modules that a page writes
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    run_blocks(page.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if "<!-- slow -->" in p.read_text()], ids=lambda page: page.stem)
def test_slow_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_chip.yaml").write_text((ROOT / "examples" / "smallchip.yaml").read_text().replace("smallchip", "my_chip"))
    (slow,) = [found for found in BLOCK.findall(page.read_text()) if found[0]]
    run_blocks(f"```{slow[1]}\n{slow[2]}```")
    assert (tmp_path / "pruned" / "pruned.snn").exists()


def test_a_failing_block_raises():
    with pytest.raises(ZeroDivisionError):
        run_blocks("```python\n1 / 0\n```")
    with pytest.raises(AssertionError, match="there is no such network file"):
        run_blocks("```sh\nspear-deploy check none.nir --chip loihi2\n```")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_generated_parts_are_up_to_date(page):
    text = page.read_text()
    assert hooks.fill_parts(text) == text, "run: python docs/hooks.py"


def test_stale_generated_parts_are_replaced():
    stale = "<!-- made: docstring network.IF -->\nold\n<!-- end -->"
    assert "Integrate and fire" in hooks.fill_parts(stale)
    assert "Integrate and fire" in hooks.fill_parts("<!-- made: docstring network.IF -->\n<!-- end -->")


def test_links_resolve():
    made = {path: text for path, text in hooks.pages()}
    everything = {str(page.relative_to(DOCS)): page.read_text() for page in PAGES} | made
    files = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*") if path.is_file()}
    seen = 0
    for page, text in everything.items():
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose):
            if re.match(r"\w+:", target):
                continue
            there = os.path.normpath(os.path.join(os.path.dirname(page), target))
            assert there in everything or there in files, f"{page}: {target}"
            seen += 1
    assert seen > 20


def test_named_files_of_the_code_exist():
    """A page names a file by its path in the repository or the package, or by the end of it behind one that it named before."""
    folders = [ROOT / name for name in ("spear_deploy", "tests", "docs", "examples")]
    files = {str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*.py")}
    named = 0
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for name in re.findall(r"(?<![\w.])((?:\w+/)+\w+\.py)\b", page.read_text()):
            if "NAME" not in name and name not in ("chip/net.py", "frameworks/decaysnn.py"):  # files that a reader makes
                assert any(f"/{path}".endswith(f"/{name}") for path in files), f"{page.name}: {name}"
                named += 1
    assert named > 50


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("frameworks/detect.py", ["FRAMEWORKS"]),
        ("interchange/nir/frameworks.py", ["FRAMEWORKS"]),
        ("interchange/nir/dialects.py", ["DIALECTS"]),
        ("interchange/formats.py", ["CHIP_ENDINGS", "_import_writer"]),
        ("interchange/certificate.py", ["Format"]),
        ("interchange/chip_files.py", ["SIMULATORS"]),
        ("pipeline/api/files.py", ["CHIPS_OF_FORMATS", "FAMILIES_OF_FORMATS"]),
        ("hardware/schema.py", ["MEMORY_FORMATS"]),
        ("placement/synapse_memory.py", ["FORMATS", "word_per_weight"]),
        ("quantize/chips.py", ["RULES"]),
        ("quantize/network.py", ["FAMILIES"]),
    ],
)
def test_names_of_the_page_on_extending_are_in_their_files(file, names):
    page, code = (DOCS / "howto" / "extend.md").read_text(), (ROOT / "spear_deploy" / file).read_text()
    assert f"`{file}`" in page
    for name in names:
        assert f"`{name}`" in page and re.search(rf"^(def )?{name}\b", code, re.MULTILINE), name


def test_the_page_on_ci_has_every_key_of_a_project_file(tmp_path):
    (example,) = (code for language, code in blocks((DOCS / "howto" / "ci.md").read_text()) if language == "toml")
    (tmp_path / "spear.toml").write_text(example)
    read_budget(tmp_path / "spear.toml")
    keys = tomllib.loads(example)
    assert keys.keys() == TOP.keys()
    for table, known in (("budget", BUDGET), ("network", NETWORK), ("data", DATA)):
        assert keys[table].keys() == known.keys()


def test_every_profile_has_a_page_with_every_number_and_its_source():
    made = dict(hooks.pages())
    for name in list_profiles():
        page = made[f"chips/{name}.md"]
        assert f"[`{name}`]({name}.md)" in made["chips/index.md"]
        assert f"`--chip {name}`" in page
        rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
        assert len(rows) > 10 and all(len(row) == 5 and row[4].strip(" |") for row in rows), name
    neurons = load_profile("loihi2").core.neurons
    assert f"| `core.neurons` | {neurons.value:,} | neuron | {neurons.evidence} | {neurons.source} |" in made["chips/loihi2.md"]
    assert "`energy.synop_pj`" in made["chips/loihi2.md"].split("Not published")[1]


@pytest.mark.parametrize(("name", "function"), [("fit", "write_tables"), ("layer_bits", "write_tables"), ("qat", "write_table")])
def test_pages_of_benchmarks_are_made_of_their_raw_data(name, function):
    write = getattr(importlib.import_module(f"tests.benchmarks.{name}"), function)
    rows = json.loads((DOCS / "benchmarks" / f"{name}.json").read_text())
    assert (DOCS / "benchmarks" / f"{name}.md").read_text() == write(rows)


def test_the_index_of_benchmarks_has_every_page_and_every_task():
    page = hooks.benchmarks_page()
    for path in (DOCS / "benchmarks").glob("*.md"):
        assert path.read_text().startswith("# ") and f"]({path.name})" in page
    assert all(f"| `{name}` |" in page for name in (*LEVER_TASKS, *ADAPT_TASKS))


def test_every_function_of_the_package_has_an_entry():
    made = dict(hooks.pages())
    for name in spear_deploy.__all__:
        assert f"[`{name}`](" in made["reference/api/index.md"]
        assert name == "SNNGraph" or f".{name}\n" in made["reference/api/functions.md"]


def test_every_command_and_option_has_a_row():
    page = hooks.commands_page()
    for name, command in main.commands.items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert f"spear-deploy {name}" in section
        for option in command.params:
            shown = option.param_type_name == "option" and not option.hidden
            assert (f"<code>{option.opts[0]}" in section) == shown
        assert "<code></code>" not in section


def test_the_navigation_has_every_page():
    from yaml import BaseLoader, load

    config = load((ROOT / "mkdocs.yml").read_text(), BaseLoader)
    named = re.findall(r"[\w/]+\.md|[\w/]+/(?=')", str(config["nav"]))
    for page in PAGES:
        path = str(page.relative_to(DOCS))
        assert path in named or any(path.startswith(folder) for folder in named if folder.endswith("/")), path


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the group docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "site" / "reference" / "api" / "network.graph" / "index.html").read_text()
    assert "SNNGraph" in html
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.search(r'(?:src|href)="https?://fonts\.', page.read_text()), page


@pytest.mark.parametrize(
    "name", ["check", pytest.param("rank", marks=pytest.mark.slow), pytest.param("explain", marks=pytest.mark.slow)]
)
def test_pictures_agree_with_the_output_of_the_commands(name):
    pictures = script("pictures")
    svg = (DOCS / "images" / f"{name}.svg").read_text()
    assert "https://" not in svg.replace("https://www.textualize.io", "")
    shown = re.sub(r"<[^>]+>", "", svg.split("</style>")[1]).replace("&#160;", " ")
    for line in pictures.record_text(pictures.COMMANDS[name]).splitlines():
        for word in re.findall(r"[\w.%]+", line):
            assert word in shown, f"docs/images/{name}.svg is old, '{word}' is not in it; run: python docs/pictures.py {name}"
