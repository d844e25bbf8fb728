"""Profiles: every number with its source, and what a file can get wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from spear_deploy.errors import FileError, ProfileError
from spear_deploy.profile import (
    HardwareProfile,
    describe,
    list_profiles,
    load_profile,
    parse_profile,
    summaries,
    with_overrides,
)
from spear_deploy.profile_schema import MEMORY_FORMATS

ROOT = Path(__file__).resolve().parents[1]


def own_chip(**changes: Any) -> dict[str, Any]:
    """A chip as short as it may be, with changes by dotted key."""

    def leaf(value: Any, unit: str) -> dict[str, Any]:
        return {"value": value, "unit": unit, "source": "datasheet", "evidence": "vendor"}

    data: dict[str, Any] = {
        "schema": 1,
        "name": "mine",
        "meta": {"title": "My chip", "family": "loihi"},
        "chip": {"cores": leaf(8, "core"), "usable_cores": leaf(8, "core")},
        "core": {"neurons": leaf(64, "neuron"), "synapse_memory": leaf(100, "word")},
        "synapse_memory": {
            "format": leaf("list_words", "format"),
            "word_bits": leaf(64, "bit"),
            "header_bits": leaf(10, "bit"),
            "index_bits": leaf(12, "bit"),
            "conv_header_bits": leaf(32, "bit"),
        },
        "packing": {"rule": leaf("equal", "rule")},
        "weights": {"bits": leaf([4, 8], "bit"), "default_bits": leaf(8, "bit")},
        "neuron": {"models": leaf(["IF"], "model"), "resets": leaf(["value"], "reset")},
        "layers": {"kinds": leaf(["Dense"], "kind")},
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        place = data
        for part in path:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return data


@pytest.mark.parametrize("name", list_profiles())
def test_every_number_of_every_profile_has_unit_source_and_evidence(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    rows = describe(profile)
    assert len(rows) > 40
    for row in rows:
        assert row.unit, row.key
        assert (row.value is None) == (row.evidence == "unpublished"), row.key
        assert row.value is None or row.source, row.key
        assert row.evidence != "user", row.key


def test_loihi_numbers_are_the_published_ones() -> None:
    """Davies et al. 2018 (limits, Table 2); Intel's brief and Lava's constants."""
    one, two = load_profile("loihi1"), load_profile("loihi2")
    assert (one.chip.cores.value, one.core.neurons.value, one.core.axons_in.value, one.core.axons_out.value) == (
        128,
        1024,
        4096,
        4096,
    )
    assert one.core.synapse_memory.value * one.synapse_memory.word_bits.value == 1048576
    energy = one.energy
    assert (energy.synop_pj.value, energy.neuron_active_pj.value, energy.neuron_inactive_pj.value) == (23.6, 81, 52)
    assert (energy.spike_local_pj.value, energy.hop_ew_pj.value, energy.hop_ns_pj.value) == (1.7, 3.0, 4.0)
    assert (two.chip.cores.value, two.chip.usable_cores.value) == (128, 120)
    prices = [row for row in describe(two) if row.key.startswith("energy.") and row.key.endswith("_pj")]
    assert len(prices) == 6 and all(row.value is None for row in prices)


def test_profiles_are_listed_and_summarised() -> None:
    assert {"loihi1", "loihi2"} <= set(list_profiles())
    by_name = {line["name"]: line for line in summaries()}
    assert by_name["loihi2"]["cores"] == 120
    assert "kapoho_point 8" in by_name["loihi2"]["chips"]


def test_a_short_file_of_ones_own_loads_and_leaves_the_rest_unpublished(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(own_chip()))
    profile = load_profile(path)
    assert profile.core.neurons.value == 64
    assert profile.energy.synop_pj.value is None and profile.energy.synop_pj.evidence == "unpublished"
    assert profile.core.axons_in.value is None


def test_unknown_name_suggests_a_chip() -> None:
    with pytest.raises(
        ProfileError, match=r"profile 'lohi2': there is no such chip; did you mean 'loihi[12]'\?; known are .*loihi1"
    ):
        load_profile("lohi2")


def _leaf(value: Any, unit: str, **more: Any) -> dict[str, Any]:
    return {"value": value, "unit": unit, "source": "s", "evidence": "vendor", **more}


WRONG = {
    "unknown key": ({"core__neurosn": _leaf(1, "neuron")}, r"'mine.yaml': unknown key 'core.neurosn'; did you mean 'neurons'\?"),
    "unknown block": ({"coer": {}}, r"unknown key 'coer'; did you mean 'core'\?"),
    "unknown leaf key": (
        {"core__neurons": _leaf(1, "neuron", sorce="x")},
        r"unknown key 'core.neurons.sorce'; did you mean 'source'\?",
    ),
    "negative": ({"core__neurons": _leaf(-1, "neuron")}, r"'mine.yaml', key 'core.neurons': -1 given, expected at least 0"),
    "zero capacity": (
        {"core__synapse_memory": _leaf(0, "word")},
        r"key 'core.synapse_memory': 0 given, a capacity is at least 1",
    ),
    "wrong unit": ({"core__synapse_memory": _leaf(96, "kB")}, r"key 'core.synapse_memory': unit 'kB' given, expected 'word'"),
    "text": (
        {"core__neurons": _leaf("12 words", "neuron")},
        r"key 'core.neurons': '12 words' given; input should be a valid integer",
    ),
    "truth": ({"core__neurons": _leaf(True, "neuron")}, r"key 'core.neurons': true given, expected a number or null"),
    "infinite": (
        {"energy": {"synop_pj": _leaf(float("inf"), "pJ")}},
        r"key 'energy.synop_pj': inf given; input should be a finite",
    ),
    "usable": ({"chip__usable_cores": _leaf(9, "core")}, r"key 'chip.usable_cores': 9 given, more than the 8 cores there are"),
    "missing block": ({"core": None}, r"key 'core': is missing; add it"),
    "missing number": ({"core__neurons": None}, r"key 'core.neurons': is missing; add it, with value null"),
    "missing unit": (
        {"core__neurons": {"value": 1, "source": "s", "evidence": "vendor"}},
        r"key 'core.neurons.unit': is missing",
    ),
    "cost model": (
        {"synapse_memory__index_bits": None},
        r"'synapse_memory.index_bits': has no value, but the format 'list_words' needs it",
    ),
    "format": (
        {"synapse_memory__format": _leaf("lists", "format")},
        r"key 'synapse_memory.format': 'lists' given, expected one of",
    ),
    "rule": ({"packing__rule": _leaf("best", "rule")}, r"key 'packing.rule': 'best' given, expected one of divide, equal"),
    "no format": (
        {"synapse_memory__format": {"value": None, "unit": "format", "evidence": "unpublished"}},
        r"key 'synapse_memory.format': null given, expected one of list_words",
    ),
    "source": (
        {"core__neurons": {"value": 1, "unit": "neuron", "evidence": "vendor"}},
        r"key 'core.neurons': has a value but no source",
    ),
    "evidence": (
        {"core__neurons": {"value": None, "unit": "neuron", "evidence": "vendor"}},
        r"value None with evidence 'vendor'; null and 'unpublished' go together",
    ),
    "kind of evidence": (
        {"core__neurons": {**_leaf(1, "neuron"), "evidence": "guess"}},
        r"key 'core.neurons.evidence': 'guess' given",
    ),
    "default bits": (
        {"weights__default_bits": _leaf(5, "bit")},
        r"key 'weights.default_bits': 5 given, which is not among weights.bits",
    ),
    "no bits": ({"weights__bits": _leaf([], "bit")}, r"key 'weights.bits': is empty"),
    "schema": ({"schema": 2}, r"key 'schema': 2 given"),
    "not a leaf": ({"core__neurons": 64}, r"key 'core.neurons': 64 given; input should be a valid dictionary"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_sentence_with_file_and_key(case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(ProfileError, match=message) as raised:
        parse_profile(yaml.safe_dump(own_chip(**changes)), "mine.yaml")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema: 1\nname: a\nname: b\n", r"profile 'x.yaml', line 3: the key 'name' stands twice"),
        ("core: {neurons: {value: 1, value: 2}}\n", r"the key 'value' stands twice"),
        ("schema: 1\nchip: {cores: {value: 1", r"profile 'x.yaml', line \d+: "),
        ("just a text", r"profile 'x.yaml': holds a str, expected keys and values"),
        ("# nothing\n", r"profile 'x.yaml': holds nothing, expected keys and values"),
        ("- 1\n- 2\n", r"profile 'x.yaml': holds a list"),
        ("name: !!python/object/apply:os.getcwd []\n", r"profile 'x.yaml', line 1: could not determine a constructor"),
    ],
)
def test_broken_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        parse_profile(text, "x.yaml")


def test_files_that_are_none(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.yaml", tmp_path / "binary.yaml"
    empty.write_text("")
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(FileError, match="there is no such hardware profile"):
        load_profile(tmp_path / "none.yaml")
    with pytest.raises(FileError, match="is empty, expected a hardware profile"):
        load_profile(empty)
    with pytest.raises(FileError, match="is not text"):
        load_profile(binary)
    with pytest.raises(FileError, match="is a folder"):
        load_profile(tmp_path)


def test_overrides_are_marked_as_the_users() -> None:
    before = load_profile("loihi2")
    after = with_overrides(before, {"energy.synop_pj": 23.6, "core.synapse_memory": "16000", "packing.tile_axes": "[x, y]"})
    assert isinstance(after, HardwareProfile)
    assert (after.energy.synop_pj.value, after.energy.synop_pj.evidence) == (23.6, "user")
    assert after.energy.synop_pj.source == "supplied by the user"
    assert after.core.synapse_memory.value == 16000
    assert after.packing.tile_axes.value == ("x", "y")
    assert before.energy.synop_pj.value is None
    assert with_overrides(after, {"energy.synop_pj": None}).energy.synop_pj.evidence == "unpublished"
    assert with_overrides(before, {"energy.static_w_per_chip": "1e-3"}).energy.static_w_per_chip.value == 1e-3
    assert with_overrides(before, {"energy.measured.0.total_w": 1}).energy.measured[0].total_w.value == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"energy.synop_jp": 1}, r"profile 'loihi2': unknown key 'energy.synop_jp'; did you mean 'energy.synop_pj'\?"),
        ({"energy.synop_pj": -1}, r"profile 'loihi2, as changed', key 'energy.synop_pj': -1 given"),
        ({"core.neurons": "[1, 2"}, r"key 'core.neurons': '\[1, 2' given, expected a number, a list or null"),
        ({"chip.usable_cores": 500}, r"key 'chip.usable_cores': 500 given, more than the 128"),
    ],
)
def test_wrong_overrides_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        with_overrides(load_profile("loihi2"), values)


def test_the_readme_explains_every_key_and_format() -> None:
    text = (ROOT / "hardware_profiles" / "README.md").read_text(encoding="utf-8")
    keys = {
        re.sub(r"\.(boards|measured)\..*", r".\1", row.key) for name in list_profiles() for row in describe(load_profile(name))
    }
    missing = sorted(key for key in keys if f"`{key}`" not in text)
    assert not missing
    assert all(f"`{name}`" in text for name in MEMORY_FORMATS)


def test_the_example_in_the_readme_loads() -> None:
    text = (ROOT / "hardware_profiles" / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(schema: 1.*?)```", text, re.S)
    assert example is not None
    assert parse_profile(example.group(1), "README").name == "mychip"
