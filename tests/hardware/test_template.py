"""Keys of profiles in README, template, JSON Schema and `profiles`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from spear_deploy.budget.check import check
from spear_deploy.cli import main
from spear_deploy.errors import FileError
from spear_deploy.hardware.profile import list_facts, list_profiles, load_profile, parse_profile
from spear_deploy.hardware.schema import MEMORY_FORMATS
from spear_deploy.hardware.template import json_schema, keys_table, list_keys, template_text, write_template
from tests.support.chips import dense_net

FOLDER = Path(__file__).resolve().parents[2] / "hardware_profiles"
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def as_documented(key: str) -> str:
    """Return a key with NAME and N for what a file names and numbers."""
    key = re.sub(r"^(chip.boards|facts)\..*", r"\1.NAME", key)
    key = re.sub(r"^energy.measured.\d+", "energy.measured.N", key)
    key = re.sub(r"^core_groups\.\w+\.(?!count|role|name).*", "core_groups.NAME.*", key)
    return re.sub(r"^core_groups\.\w+", "core_groups.NAME", key)


def test_every_key_has_one_line_of_meaning_and_every_leaf_a_unit() -> None:
    result = {key.key: key for key in list_keys()}
    assert len(result) == len(list_keys()) > 100
    for key in result.values():
        assert key.meaning and "\n" not in key.meaning, key.key
    used = {as_documented(row.key) for name in list_profiles() for row in list_facts(load_profile(name))}
    assert not used - set(result)
    leaves = used - {"core_groups.NAME.*"}
    assert all(result[key].unit for key in leaves)


def test_the_readme_holds_the_keys_as_they_are() -> None:
    assert README.endswith(f"\n{keys_table()}"), "run: spear-deploy profiles --keys, and put it at the end of the README"


def test_the_readme_explains_every_format_and_every_shipped_profile() -> None:
    assert all(f"`{name}`" in README for name in (*MEMORY_FORMATS, *list_profiles()))


def test_the_example_in_the_readme_gives_a_verdict() -> None:
    example = re.search(r"```yaml\n(schema: 1.*?)```", README, re.S)
    assert example is not None
    profile = parse_profile(example.group(1), "README")
    assert profile.name == "mychip" and profile.meta.family == "mine"
    assert check(dense_net(20, 30, 5), profile).verdict == "fits"
    assert check(dense_net(20, 70000, 5), profile).verdict == "does_not_fit"


def test_the_committed_schema_is_the_generated_one() -> None:
    committed = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    assert committed == json_schema(), "run: spear-deploy profiles --schema > hardware_profiles/schema.json"


@pytest.mark.parametrize("name", list_profiles())
def test_each_profile_obeys_the_schema_and_names_it_to_editors(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    schema = json_schema()
    assert list(_faults(yaml.safe_load(text), schema, schema, name)) == []


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("core.neurons.unit", "word", "const"),
        ("core.neurons.value", "endless", "anyOf"),
        ("packing.rule.value", "best", "enum"),
        ("core.neurosn", {}, "additionalProperties"),
        ("neuron.models.value", ["LIFF"], "enum"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(key: str, value: Any, fault: str) -> None:
    data = yaml.safe_load((FOLDER / "loihi2.yaml").read_text(encoding="utf-8"))
    *path, last = key.split(".")
    place = data
    for part in path:
        place = place[part]
    place[last] = value
    schema = json_schema()
    assert any(fault in result for result in _faults(data, schema, schema, "loihi2"))


KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "null": type(None),
    "boolean": bool,
}


def _faults(value: Any, schema: Any, root: Any, where: str) -> Any:
    """Yield where a value breaks a JSON Schema: the part of the standard that the schema uses, slow and obvious."""
    if "$ref" in schema:
        yield from _faults(value, root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root, where)
    broken = {
        "anyOf": "anyOf" in schema and all(list(_faults(value, inner, root, where)) for inner in schema["anyOf"]),
        "const": value != schema.get("const", value),
        "enum": value not in schema.get("enum", [value]),
        "type": not isinstance(value, KINDS.get(schema.get("type"), object))
        or (schema.get("type") == "integer" and value is True),
    }
    yield from (f"{where}: {rule}" for rule, is_broken in broken.items() if is_broken)
    if isinstance(value, dict):
        yield from _faults_inside(value, schema, root, where)
    for inner in value if isinstance(value, list) and "items" in schema else ():
        yield from _faults(inner, schema["items"], root, where)


def _faults_inside(value: dict[str, Any], schema: Any, root: Any, where: str) -> Any:
    known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
    yield from (f"{where}: required {name}" for name in schema.get("required", ()) if name not in value)
    for name, inner in value.items():
        if name not in known and other is False:
            yield f"{where}.{name}: additionalProperties"
        elif name in known or isinstance(other, dict):
            yield from _faults(inner, known.get(name, other), root, f"{where}.{name}")


def test_a_template_loads_with_every_fact_unpublished(tmp_path: Path) -> None:
    path = tmp_path / "my_chip.yaml"
    assert write_template(path) == len(list_keys())
    profile = load_profile(path)
    assert profile.name == "my_chip"
    values = {row.key: row.value for row in list_facts(profile) if row.value is not None}
    assert values == {"weights.bits": (8,), "weights.default_bits": 8}
    assert check(dense_net(4, 3), profile).verdict == "unchecked"


def test_a_template_holds_every_key_with_its_meaning() -> None:
    lines = [line.strip("# ") for line in template_text("mine", "mine.yaml").splitlines()]
    for key in list_keys():
        name = key.key.rsplit(".", 1)[-1]
        assert name in ("NAME", "*") or any(line.removeprefix("- ").startswith(f"{name}:") for line in lines), key.key
        assert any(line.startswith(key.meaning.removesuffix(", where the group differs")) or name == "*" for line in lines), (
            key.key
        )


@pytest.mark.parametrize("name", list_profiles())
def test_a_template_like_a_chip_has_its_facts(name: str) -> None:
    chip = load_profile(name)
    copy = parse_profile(template_text("copy", "copy.yaml", chip), "copy.yaml")
    assert list_facts(copy) == list_facts(chip)
    assert (copy.name, copy.meta.aliases) == ("copy", ())


def test_a_template_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    with pytest.raises(FileError, match=r"mine.yaml': exists already; choose another name, or remove it first"):
        write_template(path)
    assert path.read_text() == "precious"
    with pytest.raises(FileError, match=r"mine.txt': a profile is a .yaml file; choose such a name"):
        write_template(tmp_path / "mine.txt")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["profiles", *arguments])


def test_the_command_lists_shows_explains_and_writes(tmp_path: Path) -> None:
    listed = json.loads(run("--json").stdout)["profiles"]
    assert [line["name"] for line in listed] == list_profiles()
    boards = next(row["boards"] for row in listed if row["name"] == "loihi2")
    assert boards == {"oheo_gulch": 1, "kapoho_point": 8, "alia_point": 32, "hala_point": 1152}
    assert all(name in run().stdout for name in list_profiles())

    printed = json.loads(run("speck2e", "--json").stdout)
    assert (printed["name"], printed["family"]) == ("speck2f", "speck")
    numbers = {row["key"]: row for row in printed["numbers"]}
    assert numbers["core_groups.many_weights.synapse_memory"]["value"] == 65536
    assert numbers["energy.synop_pj"] == {
        "key": "energy.synop_pj",
        "value": None,
        "unit": "pJ",
        "evidence": "unpublished",
        "source": "",
    }
    text = run("loihi1").stdout
    assert "23.6 pJ" in text and "simulated: Davies" in text and "not published" in text

    assert run("--keys").stdout == keys_table()
    assert len(json.loads(run("--keys", "--json").stdout)["keys"]) == len(list_keys())
    assert json.loads(run("--schema").stdout) == json_schema() == json.loads(run("--schema", "--json").stdout)

    new = tmp_path / "mine.yaml"
    assert run("--new", str(new), "--like", "loihi2").exit_code == 0
    assert np.isclose(load_profile(new).energy.static_w_per_chip.value or 0, 0.232)
    again = run("--new", str(new))
    assert again.exit_code == 1 and "exists already" in again.stderr
    assert json.loads(run("--new", str(tmp_path / "b.yaml"), "--json").stdout)["file"] == str(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loihi2", "--keys"], "CHIP and --keys do not go together"),
        (["--new", "a.yaml", "--schema"], "--new and --schema do not go together"),
        (["--like", "loihi2"], "--like goes with --new FILE"),
    ],
)
def test_the_command_refuses_options_that_exclude_each_other(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2 and message in done.stderr
