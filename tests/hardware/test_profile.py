"""Loading and overriding of profiles, and errors of their files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from spear_deploy.errors import FileError, ProfileError
from spear_deploy.hardware.profile import (
    HardwareProfile,
    list_facts,
    list_profiles,
    load_profile,
    load_target,
    override_facts,
    parse_profile,
    summarize_profiles,
)


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


def test_profiles_are_listed_and_summarised() -> None:
    assert {"loihi1", "loihi2"} <= set(list_profiles())
    by_name = {line["name"]: line for line in summarize_profiles()}
    assert by_name["loihi2"]["cores"] == 120
    assert by_name["loihi2"]["boards"]["kapoho_point"] == 8
    assert by_name["speck2f"]["aliases"] == ["speck2e", "dynapcnn"]
    for name, line in by_name.items():
        profile = load_profile(name)
        assert (line["name"], line["title"], line["cores"]) == (name, profile.meta.title, profile.chip.usable_cores.value)


def test_listing_chips_does_not_import_pydantic() -> None:
    code = (
        "import sys; from spear_deploy.hardware import catalog; catalog.summarize_profiles(); sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_included_profile_is_parsed_once() -> None:
    given = load_profile("loihi1")
    assert load_profile("loihi1") is given
    assert override_facts(given, {"core.neurons": 9}).core.neurons.value == 9 and given.core.neurons.value == 1024


def test_a_short_file_loads_and_its_other_keys_are_unpublished(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(own_chip()))
    profile = load_profile(path)
    assert profile.core.neurons.value == 64
    assert profile.energy.synop_pj.value is None and profile.energy.synop_pj.evidence == "unpublished"
    assert profile.core.axons_in.value is None


def test_unknown_name_suggests_a_chip() -> None:
    with pytest.raises(
        ProfileError, match=r"profile 'lohi2': there is no such chip; known are .*loihi1.* file; did you mean 'loihi[12]'\?$"
    ):
        load_profile("lohi2")


def _leaf(value: Any, unit: str, **more: Any) -> dict[str, Any]:
    return {"value": value, "unit": unit, "source": "s", "evidence": "vendor", **more}


NOBODY = {"evidence": "unpublished"}
WRONG = {
    "unknown key": (
        {"core__neurosn": _leaf(1, "neuron")},
        r"'mine.yaml': unknown key 'core.neurosn'; see .*; did you mean 'neurons'\?$",
    ),
    "unknown block": ({"coer": {}}, r"unknown key 'coer'; see .*; did you mean 'core'\?$"),
    "unknown leaf key": (
        {"core__neurons": _leaf(1, "neuron", sorce="x")},
        r"unknown key 'core.neurons.sorce'; see .*; did you mean 'source'\?$",
    ),
    "negative": ({"core__neurons": _leaf(-1, "neuron")}, r"'mine.yaml', key 'core.neurons': -1 given, a capacity is at least 1"),
    "negative price": ({"energy": {"synop_pj": _leaf(-1, "pJ")}}, r"key 'energy.synop_pj': -1 given, expected at least 0"),
    "zero capacity": (
        {"core__synapse_memory": _leaf(0, "word")},
        r"key 'core.synapse_memory': 0 given, a capacity is at least 1",
    ),
    "wrong unit": ({"core__synapse_memory": _leaf(96, "kB")}, r"key 'core.synapse_memory': unit 'kB' given, expected 'word'"),
    "text": (
        {"core__neurons": _leaf("12 words", "neuron")},
        r"key 'core.neurons': '12 words' given, expected a whole number of at least 1, 'unlimited' or null",
    ),
    "truth": ({"core__neurons": _leaf(True, "neuron")}, r"key 'core.neurons': true given, expected a whole number of at least 1"),
    "infinite": (
        {"energy": {"synop_pj": _leaf(float("inf"), "pJ")}},
        r"key 'energy.synop_pj': inf given; input should be a finite",
    ),
    "usable": ({"chip__usable_cores": _leaf(9, "core")}, r"key 'chip.usable_cores': 9 given, more than the 8 cores there are"),
    "missing block": ({"core": None}, r"key 'core': is missing; add it"),
    "missing number": ({"chip__cores": None}, r"key 'chip.cores': is missing; add it, with value null"),
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
    "no bits": ({"weights__bits": _leaf([], "bit")}, r"key 'weights.bits': is empty; list the widths that a weight may have"),
    "groups that do not sum up": (
        {"core_groups": [{"name": "a", "count": _leaf(7, "core")}]},
        r"key 'chip.cores': 8 given, but the core groups hold 7; correct one of them",
    ),
    "groups of one name": (
        {"core_groups": [{"name": "a", "count": _leaf(4, "core")}] * 2},
        r"key 'core_groups': a group is called 'a'; give each another name that is no number",
    ),
    "group named by a number": (
        {"core_groups": [{"name": "0", "count": _leaf(8, "core")}]},
        r"key 'core_groups': a group is called '0'; give each another name",
    ),
    "zero capacity in a group": (
        {"core_groups": [{"name": "big", "count": _leaf(8, "core"), "neurons": _leaf(0, "neuron")}]},
        r"key 'core_groups.big.neurons': 0 given, a capacity is at least 1",
    ),
    "unknown key in a group": (
        {"core_groups": [{"name": "big", "count": _leaf(8, "core"), "neuron": _leaf(1, "neuron")}]},
        r"unknown key 'core_groups.big.neuron'; see .*; did you mean 'neurons'\?$",
    ),
    "role": (
        {"core_groups": [{"name": "a", "count": _leaf(8, "core"), "role": _leaf("output", "role")}]},
        r"key 'core_groups.a.role': 'output' given, expected one of any, hidden, readout",
    ),
    "all in and terms": (
        {"energy": {"all_in_pj_per_synop": _leaf(26, "pJ"), "hop_ew_pj": _leaf(3, "pJ")}},
        r"key 'energy.hop_ew_pj': stands beside energy.all_in_pj_per_synop, which holds it already; make one of them null",
    ),
    "all in and static": (
        {"energy": {"all_in_pj_per_synop": _leaf(26, "pJ"), "static_w_per_chip": _leaf(1, "W")}},
        r"key 'energy.static_w_per_chip': stands beside energy.all_in_pj_per_synop",
    ),
    "passes of unknown cores": (
        {
            "chip__usable_cores": {"value": None, "unit": "core", "evidence": "unpublished"},
            "chip__multi_pass": _leaf(True, "flag"),
        },
        r"key 'chip.multi_pass': true given, but usable_cores is no number; say how many cores a pass has",
    ),
    "unit of a board": (
        {"chip__boards": {"big": _leaf(4, "core")}},
        r"key 'chip.boards.big': unit 'core' given, expected 'chip'; convert the value",
    ),
    "no room on the mesh": (
        {"topology": {"cores_per_tile": _leaf(1, "core"), "mesh_columns": _leaf(3, "tile"), "mesh_rows": _leaf(2, "tile")}},
        r"key 'topology.mesh_columns': the mesh has room for 6 cores, fewer than the 8 there are",
    ),
    "memory of the chip": (
        {"synapse_memory__scope": _leaf("chip", "scope")},
        r"key 'chip.memory_words': has no value, but synapse_memory.scope is 'chip'; add it",
    ),
    "mean above most": (
        {"connectivity": {"fan_out": _leaf(8, "synapse"), "fan_out_mean": _leaf(9, "synapse")}},
        r"key 'connectivity.fan_out_mean': 9 given, more than fan_out allows any neuron \(8\); correct one of them",
    ),
    "free delays beyond delays": (
        {"weights__delay_max_steps": _leaf(3, "step"), "weights__delay_free_steps": _leaf(4, "step")},
        r"key 'weights.delay_free_steps': 4 given, more than delay_max_steps \(3\); correct one of them",
    ),
    "kernels beyond kernels": (
        {"layers__conv_kernel_max": _leaf(5, "position"), "layers__conv_kernel_sizes": _leaf([1, 7], "position")},
        r"key 'layers.conv_kernel_max': 5 given, but conv_kernel_sizes goes to 7; correct one of them",
    ),
    "usable without limit of few": (
        {"chip__usable_cores": _leaf("unlimited", "core")},
        r"key 'chip.usable_cores': 'unlimited' given, but there are 8 cores; write how many of them a network may take",
    ),
    "weights without bits": (
        {"weights__bits": _leaf([0, 8], "bit")},
        r"key 'weights.bits': \[0, 8\] given, a weight has at least 1 bit; correct it",
    ),
    "a packet beside its ways": (
        {"energy": {"packet_pj": _leaf(9, "pJ"), "hop_ns_pj": _leaf(3, "pJ")}},
        r"key 'energy.packet_pj': stands beside energy.hop_ns_pj, but prices a spike wherever it goes; make one of them null",
    ),
    "step of a chip without": (
        {"timing": {"mode": _leaf("async", "mode"), "step_s": _leaf(0.001, "s")}},
        r"key 'timing.step_s': has a value, but timing.mode 'async' has no steps; correct one of them",
    ),
    "a run without numbers": (
        {"energy": {"measured": [{"task": "demo"}]}},
        r"key 'energy.measured.0.task': 'demo' has no number; give a power or an energy, or leave the run out",
    ),
    "cycles that are incomplete": (
        {"timing": {"cycles": {"margin": _leaf(1.2, "factor")}}},
        r"key 'timing.cycles.per_input_event_and_neuron': is missing; add it, with value null",
    ),
    "negative delay": (
        {"weights__delay_max_steps": _leaf(-1, "step")},
        r"key 'weights.delay_max_steps': -1 given, a capacity is at least 0",
    ),
    "half a neuron": (
        {"core__neurons": _leaf(1.5, "neuron")},
        r"key 'core.neurons': 1.5 given, expected a whole number of at least 1, 'unlimited' or null",
    ),
    "a word among numbers": ({"core__neurons": _leaf("endless", "neuron")}, r"'endless' given, expected a whole number"),
    "an unlimited price": ({"energy": {"synop_pj": _leaf("unlimited", "pJ")}}, r"key 'energy.synop_pj': 'unlimited' given"),
    "a set that is none": ({"weights__bits": _leaf(8, "bit")}, r"key 'weights.bits': 8 given, expected a list, e.g. \[8\]"),
    "a model that is none": (
        {"neuron__models": _leaf(["LIFF"], "model")},
        r"key 'neuron.models': 'LIFF' given, expected one of IF, LIF, ",
    ),
    "a block that is none": ({"core": 5}, r"key 'core': 5 given, expected a block of keys; see hardware_profiles"),
    "schema": ({"schema": 2}, r"key 'schema': 2 given"),
    "not a leaf": ({"core__neurons": 64}, r"key 'core.neurons': 64 given, expected \{value, unit, source, evidence\}; see"),
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
        ("? {a: 1}\n: 2\n", r"profile 'x.yaml', line 1: a key is no word"),
        ("source: 2024-13-01\n", r"profile 'x.yaml': is not YAML that can be read \(month must be in 1..12\); correct the file"),
        ("a: " + "[" * 20000, r"profile 'x.yaml'"),
        ("# nothing\n", r"profile 'x.yaml': holds nothing, expected keys and values"),
        ("- 1\n- 2\n", r"profile 'x.yaml': holds a list"),
        ("name: !!python/object/apply:os.getcwd []\n", r"profile 'x.yaml', line 1: could not determine a constructor"),
    ],
)
def test_broken_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        parse_profile(text, "x.yaml")


def test_missing_files_and_files_that_are_no_profiles_are_refused(tmp_path: Path) -> None:
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
    after = override_facts(before, {"energy.synop_pj": 23.6, "core.synapse_memory": "16000", "packing.tile_axes": "[x, y]"})
    assert isinstance(after, HardwareProfile)
    assert (after.energy.synop_pj.value, after.energy.synop_pj.evidence) == (23.6, "user")
    assert after.energy.synop_pj.source == "supplied by the user"
    assert after.core.synapse_memory.value == 16000
    assert after.packing.tile_axes.value == ("x", "y")
    assert before.energy.synop_pj.value is None
    assert override_facts(after, {"energy.synop_pj": None}).energy.synop_pj.evidence == "unpublished"
    assert override_facts(before, {"energy.static_w_per_chip": "1e-3"}).energy.static_w_per_chip.value == 1e-3
    assert override_facts(before, {"energy.measured.0.total_w": 1}).energy.measured[0].total_w.value == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"energy.synop_jp": 1},
            r"profile 'loihi2': unknown key 'energy.synop_jp'; .* lists them; did you mean 'energy.synop_pj'\?$",
        ),
        ({"energy.synop_pj": -1}, r"profile 'loihi2, as changed', key 'energy.synop_pj': -1 given"),
        ({"core.neurons": "[1, 2"}, r"key 'core.neurons': '\[1, 2' given, expected a number, a word, a list or null"),
        ({"chip.usable_cores": 500}, r"key 'chip.usable_cores': 500 given, more than the 128"),
    ],
)
def test_wrong_overrides_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        override_facts(load_profile("loihi2"), values)


@pytest.mark.parametrize(("value", "message"), [
    ([107, 14], r"\[107, 14\] given, the lower end comes first; write \[14, 107\]"),
    (14, r"14 given, expected \[low, high\], two numbers of at least 0, or null"),
    ([14], r"\[14\] given, expected \[low, high\]"),
    ([-1, 14], r"\[-1, 14\] given, expected \[low, high\]"),
    ([True, 14], r"\[True, 14\] given, expected \[low, high\]"),
    ([1, float("inf")], r"\[1, inf\] given, expected \[low, high\]"),
])  # fmt: skip
def test_an_interval_has_two_ends_in_order(value: Any, message: str) -> None:
    with pytest.raises(ProfileError, match=rf"key 'energy.effective_op_pj_range': {message}"):
        override_facts(load_profile("loihi2"), {"energy.effective_op_pj_range": value})


def test_overrides_take_what_a_file_takes() -> None:
    xylo = load_profile("xylo_audio2")
    after = override_facts(
        xylo,
        {
            "core_groups.hidden.neurons": "500",
            "neuron.models": "[LIF, CubaLIF]",
            "packing.rule": "equal",
            "connectivity.fan_in": "63",
            "connectivity.fan_out": "unlimited",
            "neuron.resets": "null",
            "packing.share_cores": "false",
            "timing.cycles.margin": "2",
        },
    )
    assert after.core_groups[0].neurons.value == 500 and after.core_groups[1].neurons.value == 8
    assert after.neuron.models.value == ("LIF", "CubaLIF")
    assert (after.packing.rule.value, after.packing.share_cores.value) == ("equal", False)
    assert (after.connectivity.fan_in.max_value, after.connectivity.fan_out.value, after.connectivity.fan_out.max_value) == (
        63,
        "unlimited",
        None,
    )
    assert (after.neuron.resets.value, after.neuron.resets.evidence) == (None, "unpublished")
    assert after.timing.cycles is not None and after.timing.cycles.margin.value == 2
    changed = {row.key for row in list_facts(after) if row.source == "supplied by the user"}
    assert len(changed) == 8 and len(list_facts(after)) == len(list_facts(xylo))


def test_a_price_of_packets_of_the_user_replaces_those_of_ways_and_the_other_way_round() -> None:
    packets = override_facts(load_profile("loihi1"), {"energy.packet_pj": 9}).energy
    assert (packets.packet_pj.value, packets.spike_local_pj.value, packets.hop_ew_pj.value, packets.hop_ns_pj.value) == (
        9, None, None, None,
    )  # fmt: skip
    assert packets.synop_pj.value == 23.6 and packets.hop_ew_pj.source == "set aside for what is supplied by the user"
    ways = override_facts(load_profile("spinnaker1"), {"energy.spike_local_pj": 2}).energy
    assert (ways.spike_local_pj.value, ways.packet_pj.value) == (2, None)
    with pytest.raises(ProfileError, match=r"key 'energy.packet_pj': stands beside energy.spike_local_pj"):
        override_facts(load_profile("loihi1"), {"energy.packet_pj": 9, "energy.hop_ew_pj": 3})


def test_a_price_of_the_user_replaces_an_all_in_figure_and_the_other_way_round() -> None:
    ours = override_facts(load_profile("truenorth"), {"energy.synop_pj": 2})
    assert (ours.energy.synop_pj.value, ours.energy.all_in_pj_per_synop.value) == (2, None)
    assert ours.energy.all_in_pj_per_synop.source == "set aside for what is supplied by the user"
    whole = override_facts(load_profile("loihi1"), {"energy.all_in_pj_per_synop": "26"})
    prices = [row for row in list_facts(whole) if row.key.startswith("energy.") and row.value is not None]
    assert [(row.key, row.value) for row in prices] == [("energy.all_in_pj_per_synop", 26)]
    assert override_facts(load_profile("truenorth"), {"energy.synop_pj": None}).energy.all_in_pj_per_synop.value == 26
    with pytest.raises(ProfileError, match=r"'truenorth, as changed', key 'energy.synop_pj': stands beside"):
        override_facts(load_profile("truenorth"), {"energy.synop_pj": 2, "energy.all_in_pj_per_synop": 26})


@pytest.mark.parametrize(("given", "name", "chips"), [
    ("loihi2", "loihi2", 1),
    ("loihi2:oheo_gulch", "loihi2", 1),
    ("loihi2:kapoho_point", "loihi2", 8),
    ("loihi2:hala_point", "loihi2", 1152),
    ("loihi1:nahuku", "loihi1", 32),
    ("speck2e", "speck2f", 1),
    ("dynapcnn:dev_kit", "speck2f", 1),
])  # fmt: skip
def test_a_board_gives_its_number_of_chips(given: str, name: str, chips: int) -> None:
    profile, result = load_target(given)
    assert (profile.name, result) == (name, chips)


def test_a_file_may_declare_a_board(tmp_path: Path) -> None:
    path = tmp_path / "a:b.yaml"
    path.write_text(yaml.safe_dump(own_chip(chip__boards={"big": _leaf(4, "chip"), "some": _leaf(None, "chip") | NOBODY})))
    assert load_target(path)[1] == 1
    assert load_target(f"{path}:big")[1] == 4
    with pytest.raises(ProfileError, match=r"profile 'mine': how many chips 'some' has is not published; give their number"):
        load_target(f"{path}:some")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "loihi2:kapoho",
            r"profile 'loihi2': there is no board 'kapoho'; known are oheo_gulch, kapoho_point, .*; did you mean '\w+'\?$",
        ),
        ("odin:big", r"profile 'odin': there is no board 'big'; none is known; give the number of chips instead"),
        ("lohi2:kapoho_point", r"profile 'lohi2': there is no such chip"),
        ("speck2", r"profile 'speck2': there is no such chip; .*; did you mean 'speck2[ef]'\?$"),
        (":", r"profile '': there is no such chip; known are akd1000, "),
    ],
)
def test_unknown_boards_and_chips(given: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        load_target(given)


def test_a_group_has_its_own_limits_and_those_of_the_core() -> None:
    speck = load_profile("speck2f")
    assert [speck.core_limits(i)["synapse_memory"].value for i in range(4)] == [16384, 32768, 65536, 16384]
    assert all(speck.core_limits(i)["bias_memory"].value == 1024 for i in range(4))
    assert speck.core_limits()["synapse_memory"].value is None
    assert (speck.cores_limit(2), load_profile("generic45nm").cores_limit()) == (18, None)


def test_a_variant_is_the_chip_with_some_facts_exchanged() -> None:
    chip, later = load_profile("loihi2"), load_profile("loihi2@2023")
    assert (later.name, later.meta.title) == ("loihi2@2023", "Intel Loihi 2, 2023")
    assert later.core.synapse_memory.value == 16000 and later.packing.tile_axes.value == ("x", "y")
    changed = {a.key for a, b in zip(list_facts(chip), list_facts(later), strict=True) if a != b}
    assert changed == {"core.synapse_memory", "packing.tile_axes"}
    assert load_target("loihi2@2023:kapoho_point")[1] == 8
    assert next(row for row in summarize_profiles() if row["name"] == "loihi2")["variants"] == ["loihi2@2023"]


def test_every_variant_loads() -> None:
    names = [name for row in summarize_profiles() for name in row["variants"]]
    assert names and all(load_profile(name).name == name for name in names)


@pytest.mark.parametrize(("variants", "name", "message"), [
    ({}, "mine.yaml@late", r"profile 'mine': there is no variant 'late'; it has none"),
    ({"later": {}}, "mine.yaml@late", r"there is no variant 'late'; known are later; did you mean 'later'\?$"),
    ({"late": {"core.neuron": {}}}, "mine.yaml@late",
     r"profile 'mine', key 'variants.late.core.neuron': unknown key; correct the file; did you mean 'core.neurons'\?$"),
    ({"late": {"core.neurons": 5}}, "mine.yaml@late", r"key 'variants.late.core.neurons': 5 given, expected a fact"),
    ({"late": {"core.neurons": {"value": 0, "unit": "neuron", "source": "x", "evidence": "vendor"}}}, "mine.yaml@late",
     r"profile 'mine@late', key 'core.neurons': 0 given, a capacity is at least 1"),
])  # fmt: skip
def test_wrong_variants_are_refused(tmp_path: Path, monkeypatch, variants: dict[str, Any], name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(own_chip(name="mine", variants=variants)), encoding="utf-8")
    with pytest.raises(ProfileError, match=message):
        load_profile(name)
    if "late" in variants:  # also where the variant is not asked for
        with pytest.raises(ProfileError, match=message):
            load_profile("mine.yaml")


@pytest.mark.parametrize(("chip", "value", "message"), [
    ("xylo_imu", True, r"key 'weights.zero_memory': true given, but the format 'word_per_weight' leaves zeros out"),
    ("odin", False, r"key 'weights.zero_memory': false given, but the format 'crossbar' stores them; correct one of them"),
])  # fmt: skip
def test_zeros_cost_memory_as_the_format_says(chip: str, value: bool, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        override_facts(load_profile(chip), {"weights.zero_memory": value})
