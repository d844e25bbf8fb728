"""Characters that change a terminal or the order of text: refused in our files, escaped in all that is printed or drawn."""

import io
import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from rich.table import Table

from spear_deploy.budget.budget_file import read_budget
from spear_deploy.cli import main
from spear_deploy.errors import FileError, GraphError, ProfileError
from spear_deploy.hardware.catalog import list_profiles, read_profile_text
from spear_deploy.hardware.profile import parse_profile
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.util.console import PrintableConsole
from spear_deploy.util.html_table import html_table
from spear_deploy.util.printable import escape_hidden, find_hidden, has_hidden

BAD = "a\x1b[2J\u202eb"
BELL = "\x07"
SHOWN = r"a\x1b[2J\u202eb"
NETWORK = chain([Layer(name="fc", synapse=Dense(weight=np.ones((3, 4))), neuron=IF())], input_shape=(4,))


@pytest.mark.parametrize("hidden", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\u200f", "\u2028", "\u202e", "\u2066", "\udc80"])
def test_hidden_characters_are_escaped_in_texts_tables_and_html(hidden):
    shown = ascii(hidden)[1:-1]
    file = io.StringIO()
    console, table = PrintableConsole(file=file, width=60), Table("layer")
    table.add_row(f"a{hidden}b")
    console.print(table, f"c{hidden}d", highlight=False)
    page = html_table(f"t{hidden}", ("x",), [("ok", (f"y{hidden}",))], notes=[f"z{hidden}"])
    for text in (file.getvalue(), page):
        assert not has_hidden(text.replace("\n", ""))
    assert page.count(shown) == 3 and f"c{'' if hidden == BELL else shown}d" in file.getvalue()  # rich removes bells


def test_colours_of_a_terminal_stay():
    file = io.StringIO()
    PrintableConsole(file=file, force_terminal=True, color_system="standard").print("red", style="red", end="")
    assert file.getvalue() == "\x1b[31mred\x1b[0m"


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(name=BAD),
        lambda data: data["meta"].update(title=BAD),
        lambda data: data["facts"].update({BAD: 1}),
        lambda data: data["core"]["neurons"].update(source=BAD),
        lambda data: data["variants"].update({BAD: next(iter(data["variants"].values()))}),
    ],
)
def test_profiles_with_hidden_characters_are_refused(change):
    data = yaml.safe_load(read_profile_text("loihi2"))
    change(data)
    with pytest.raises(ProfileError, match=r"profile 'mine', key '.*': 'a\\x1b\[2J\\u202eb' holds characters that are not shown"):
        parse_profile(yaml.safe_dump(data), "mine")


def test_the_profiles_that_ship_hold_none():
    assert [name for name in list_profiles() if list(find_hidden(yaml.safe_load(read_profile_text(name))))] == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('chip = "a\\u001b"', "chip"),
        ('activity = "\\u202e.npz"', "activity"),
        ('[network]\nsource = "\\u001b"', "network.source"),
        ('[data]\nencoding = "\\u0007"', "data.encoding"),
        ('[set]\n"core.\\u001b" = 1', r"set.core.\x1b"),
        ('"\\u001b" = 1', r"\x1b"),
        ('[set]\n"axons.kind" = ["\\u0085"]', "set.axons.kind[0]"),
    ],
)
def test_project_files_with_hidden_characters_are_refused(tmp_path, text, key):
    (tmp_path / "spear.toml").write_text(text)
    with pytest.raises(FileError, match="given, expected characters that are shown; correct it or leave it out") as error:
        read_budget(tmp_path / "spear.toml")
    assert f"key '{key}'" in str(error.value) and not has_hidden(str(error.value))


def test_names_of_files_and_notes_in_networks_are_shown_escaped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, out = f"{BAD}.snn", f"{BAD}.nir"
    write_snn(chain(NETWORK.layers, input_shape=(4,), metadata={"assumptions": [f"time step {BAD}"]}), name)
    np.savez("in.npz", spikes=np.ones((2, 1, 4), bool))
    commands = {
        "check": ["check", name, "--chip", "loihi2", "--sarif", "a.sarif"],
        "json": ["check", name, "--chip", "loihi2", "--json"],
        "rank": ["rank", name, "--chip", "loihi1"],
        "simulate": ["simulate", name, "--input", "in.npz", "--out", f"{BAD}.npz"],
        "export": ["export", name, "--to", "nir", "--out", out],
        "read": ["check", out, "--chip", "loihi2"],
        "absent": ["check", f"{BAD}/none.snn", "--chip", "loihi2"],
    }
    done = {key: CliRunner().invoke(main, arguments) for key, arguments in commands.items()}
    for key, result in done.items():
        assert result.exit_code == (1 if key == "absent" else 0), (key, result.stderr)
        assert not has_hidden((result.stdout + result.stderr).replace("\n", "")), (key, result.output)
    assert f"written: {SHOWN}.npz" in done["simulate"].stdout and f"written: {SHOWN}.nir" in done["export"].stdout
    assert f"note: time step {SHOWN}" in done["read"].stderr and f"file '{SHOWN}/none.snn'" in done["absent"].stderr
    assert not has_hidden(json.dumps(json.loads((tmp_path / "a.sarif").read_text()), ensure_ascii=False))


def test_a_nested_text_is_named_by_its_key():
    data = {"a": {"b": [{"c": "x\x1b"}, "line\n\tend"]}, "\x07": 1}
    assert sorted(find_hidden(data)) == [("\x07", "\x07"), ("a.b[0].c", "x\x1b")]
    assert escape_hidden("x\x1b\n", keep="\n") == "x\\x1b\n"


@pytest.mark.parametrize("value", [1.7e308, -1e39])
def test_numbers_beyond_float32_are_refused(value):
    with pytest.raises(GraphError, match=r"Dense.weight: holds 1\.?7?e\+3\d+, beyond 3.4e\+38 of float32; retrain or repair"):
        Dense(weight=np.full((2, 2), value))
