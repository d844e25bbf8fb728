"""The measures of structure and the comparison of recorded outputs, on small cases with known answers."""

import json

import numpy as np
import pytest

from tests import house, same_outputs

SOURCES = {
    "__init__.py": '"""A package."""\n',
    "errors.py": '"""What went wrong?"""\nclass Odd(Exception): ...\n',
    "network.py": (
        '"""One two three four five six seven eight nine ten eleven twelve thirteen."""\n'
        "from typing import TYPE_CHECKING\n"
        "from .errors import Odd\n"
        "if TYPE_CHECKING:\n    from pack.cli import run\n"
        "def _once(x):\n    return x\n"
        "def _twice(x):\n    return x\n"
        "def counted(found):\n    found = _once(found)\n    return _twice(_twice(found))\n"
        "def coupled_groups(a, b, c, d, e, f, *g, h, **i):\n    from pack import data\n    return data\n"
        "class Odd: ...\n"
    ),
    "data/__init__.py": '"""Data."""\n',
    "data/fitting.py": '"""Fit."""\nfrom . import files\n',
    "data/files.py": '"""Files."""\ndef read():\n    import pack.data.fitting\n    import pack.network\n',
    "cli.py": '"""Commands."""\nfrom pack import network\ndef run(): ...\n',
}


@pytest.fixture
def package(tmp_path):
    for name, text in SOURCES.items():
        path = tmp_path / "pack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return house.Package(tmp_path / "pack")


def test_a_small_package_has_the_counts_that_were_put_in(package):
    measured = {name: measure(package) for name, measure in house.MEASURES.items()}
    values = {name: value for name, (value, _) in measured.items()}
    assert values == {
        "root entries": "5", "files": "7", "lines": "29", "median lines": "2", "files under 60 lines": "7 (100%)",
        "longest function": "3", "private helpers of at most 5 lines, named once": "1 of 2",
        "private helpers with a body of at most 5 lines, named once": "1 of 2",
        "public functions with more than 8 parameters": "1", "functions with more than 8 parameters": "1",
        "circles": "1 (2 modules)", "circles, imports for type checking too": "2 (4 modules)", "upward imports": "1",
        "root entries without a place": "0", "imports of other root entries in functions": "2", "folder arrows": "5",
        "floors": "2", "participles as names": "2", "variables and parameters called found": "2",
        "class names in several modules": "1", "docstrings that ask": "1", "docstrings over 12 words": "1",
        "modules without docstring": "0",
    }  # fmt: skip
    assert measured["circles"][1] == ["data.files data.fitting"]
    assert measured["upward imports"][1] == ["network.py:14 imports data/__init__.py (in a function)"]
    assert measured["participles as names"][1] == ["data/fitting.py", "network.py:10 counted"]


def test_ranks_come_from_the_former_order_where_it_names_more(package, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_imports.py").write_text('ORDER = [{"errors", "data"}, {"network"}, {"cli"}, {"other"}]\n')
    assert house.Package(tmp_path / "pack").ranks == {name: house.HOUSE.index(name) for name in house.HOUSE}
    (tmp_path / "pack" / "other.py").write_text("")
    former = house.Package(tmp_path / "pack")
    assert former.ranks == {"errors": 0, "data": 0, "network": 1, "cli": 2, "other": 3}
    assert house.upward_imports(former)[1] == ["data/files.py:4 imports network.py (in a function)"]


def test_a_folder_that_is_no_package_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"has no __init__\.py; name the folder of a package"):
        house.Package(tmp_path)


def test_the_order_is_that_of_a_table_and_a_list(package, capsys):
    folder = str(package.root)
    house.main([folder, "--vs", folder])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(house.MEASURES) and "| files | 7 | 7 |" in lines
    house.main([folder, "--list", "circles"])
    assert capsys.readouterr().out == f"{folder}: circles: 1 (2 modules)\n  data.files data.fitting\n"
    with pytest.raises(SystemExit):
        house.main([folder, "--list", "circle"])


# ------------------------------------------------------------------------------------------------------------- outputs


def recording(folder, value, seconds, weight, text):
    files = folder / "commands" / "check" / "files"
    files.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"<record>": str(folder)}))
    (files.parent / "exit.json").write_text('{"code": 0}')
    (files.parent / "stdout").write_text(json.dumps({"rows": [{"used": value}], "seconds": seconds, "file": f"{folder}/a"}))
    (files / "page.html").write_text(f"<p>made 2026-01-0{seconds} 00:00:00 UTC</p><p>{text}</p>")
    np.savez(files / "run.npz", weight=np.array([0.0, np.nan, weight]))
    return folder


def test_outputs_that_differ_in_time_and_place_alone_are_the_same(tmp_path, capsys):
    a, b = recording(tmp_path / "a", 3, 1, 2.0, "fits"), recording(tmp_path / "b", 3, 2, 2.0, "fits")
    assert same_outputs.main(["compare", str(a), str(b)]) == 0
    assert capsys.readouterr().out == "0 differences in 0 of 1 commands, and 0 meant\n"


def test_each_difference_is_named_and_those_meant_are_apart(tmp_path, capsys):
    a, b = recording(tmp_path / "a", 3, 1, 2.0, "fits"), recording(tmp_path / "b", 4.0, 2, 2.5, "does not fit")
    (b / "commands" / "check" / "files" / "more.txt").write_text("")
    assert same_outputs.main(["compare", str(a), str(b)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "check | files/more.txt | : absent → there",
        "check | files/page.html | line 2: <p>fits</p> → <p>does not fit</p>",
        "check | files/run.npz | weight[2], first of 1 of 3: 2.0 → 2.5",
        "check | stdout | rows[0].used: 3 → 4.0",
        "4 differences in 1 of 1 commands, and 0 meant",
    ]
    meant = tmp_path / "meant"
    meant.write_text(
        "# a comment\n\\.html :: words\nrows.*3 → 4 :: counted anew\nrun.npz :: rounded\nmore.txt :: new\nnot there :: x\n"
    )
    assert same_outputs.main(["compare", str(a), str(b), "--meant", str(meant)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "meant, 1 differences: counted anew (rows.*3 → 4)" in printed and "matches nothing: not there" in printed
    meant.write_text("no reason\n")
    with pytest.raises(SystemExit, match="line 1: expected PATTERN :: REASON"):
        same_outputs.main(["compare", str(a), str(b), "--meant", str(meant)])


def test_no_recording_is_overwritten_and_the_program_must_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="is not a program that can be run"):
        same_outputs.record(tmp_path / "file", tmp_path / "out")
    with pytest.raises(SystemExit, match="holds no finished recording"):
        same_outputs.main(["compare", str(tmp_path), str(tmp_path)])
    (tmp_path / "file").chmod(0o755)
    with pytest.raises(SystemExit, match="is not empty; choose another folder"):
        same_outputs.record(tmp_path / "file", tmp_path)


def test_commands_need_only_commands_that_exist():
    listed = same_outputs.commands()
    names = {command.name for command in listed}
    assert len(names) == len(listed) and not names & set(same_outputs.PLACES)
    assert all(command.names <= names | set(same_outputs.PLACES) for command in listed)
