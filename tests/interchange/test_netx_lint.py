"""netx linter: each flaw has its rule; sound and exported files have none."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from spear_deploy.errors import FileError, SpearError
from spear_deploy.interchange import lint
from spear_deploy.interchange.netx.lint import lint_netx
from spear_deploy.interchange.netx.reader import read_netx
from spear_deploy.interchange.netx.writer import write_netx
from tests.conftest import shared
from tests.support.netx_files import NEURON, random_chain, raw, row
from tests.support.netx_flaws import CHANGED, FAILS, FINE, PASSED_OVER, W, conv, dense

KINDS = [(name, entries, True) for table in (FAILS, CHANGED) for name, entries in table.items()]
KINDS += [(name, entries, False) for name, entries in PASSED_OVER.items()]


@pytest.mark.parametrize("name", FINE)
def test_sound_files_have_no_finding(name, tmp_path):
    assert lint_netx(raw(tmp_path / "a.net", *FINE[name])) == []


@pytest.mark.parametrize(("rule", "entries", "breaks"), KINDS, ids=[rule for rule, *_ in KINDS])
def test_each_flaw_has_its_rule(rule, entries, breaks, tmp_path):
    result = {finding.rule: finding for finding in lint_netx(raw(tmp_path / "a.net", *entries))}
    assert rule in result and result[rule].breaks == breaks
    finding = result[rule]
    assert finding.layer.startswith("layer ") and finding.what and finding.why and finding.repair
    assert str(finding).startswith(f"{finding.layer}: {finding.what}; {finding.why}")


@pytest.mark.parametrize(("rule", "entries", "breaks"), KINDS, ids=[rule for rule, *_ in KINDS])
def test_export_repairs_the_flaws_marked_so(rule, entries, breaks, tmp_path):
    """Read, write, look again: the finding is gone where it was promised, and the file is refused where it was not."""
    path = raw(tmp_path / "a.net", *entries)
    promised = {finding.rule: finding.repaired_by_export for finding in lint_netx(path)}[rule]
    try:
        write_netx(read_netx(path), tmp_path / "b.net")
    except SpearError:
        assert not promised
        return
    left = [finding.rule for finding in lint_netx(tmp_path / "b.net")]
    assert promised == (rule not in left)
    assert not [finding for finding in lint_netx(tmp_path / "b.net") if finding.breaks]


def test_export_repairs_readable_flaws(tmp_path):
    rules = {
        rule
        for rule, entries, _ in KINDS
        if {f.rule: f for f in lint_netx(raw(tmp_path / "a.net", *entries))}[rule].repaired_by_export
    }
    assert rules >= {
        "all-zero", "scalar-bias", "size-shape", "size-dtype", "missing-key", "missing-input", "missing-flatten",
        "transposed-weight", "transposed-kernel", "weight-shape", "neuron-dtype", "message-bits", "not-implemented",
        "delay-shape", "shape-dtype", "type-not-text", "scalar-shape",
    }  # fmt: skip
    assert not rules & {"weight-range", "lost-bit", "weight-not-whole", "shapes-do-not-chain", "neuron-type", "refractory"}


def test_gaps_in_the_numbering_are_a_finding(tmp_path):
    path = raw(tmp_path / "a.net", dense(), row("dense", [2], weight=np.ones((2, 3))))
    with h5py.File(path, "a") as file:
        file.move("layer/1", "layer/3")
    (finding,) = lint_netx(path)
    assert (finding.layer, finding.rule, finding.breaks) == ("file", "numbering", True)
    assert finding.what == "2 entries, among them 3" and not finding.repaired_by_export
    with h5py.File(path, "a") as file:
        file.move("layer/3", "layer/1")
        file["layer/remark"] = "mine"
    assert [finding.rule for finding in lint_netx(path)] == ["numbering"]
    with h5py.File(path, "w") as file:
        file["layer/0"] = 1
    assert [finding.rule for finding in lint_netx(path)] == ["missing-key"]


def test_exported_files_have_no_breaking_finding(tmp_path):
    written = 0
    for seed in range(15):
        try:
            notes = write_netx(random_chain(seed), tmp_path / "a.net")
        except SpearError:
            continue
        result = lint_netx(tmp_path / "a.net")
        assert not [str(finding) for finding in result if finding.breaks], seed
        assert len(result) == sum("refDelay" in note for note in notes), seed
        written += 1
    assert written >= 10


@pytest.mark.parametrize("name", ["netx_tinynet/tiny.net", "netx_oxford/network.net", "netx_pilotnet_lif/network.net"])
def test_lava_dls_own_files_are_sound(name):
    assert lint(shared(f"conformance/{name}")) == []


def test_files_that_are_no_netx_raise(tmp_path):
    with pytest.raises(FileError, match="only netx files"):
        lint(raw(tmp_path / "a.nir", dense()))
    with h5py.File(tmp_path / "a.net", "w") as file:
        file["node/type"] = "NIRGraph"
    with pytest.raises(FileError, match="file '.*a.net': holds no netx network; expected groups"):
        lint(tmp_path / "a.net")
    with pytest.raises(FileError, match="there is no such netx file"):
        lint(tmp_path / "b.net")


def test_command(tmp_path):
    """Exit 3 where loading breaks, 0 where lava-dl only passes something over; one JSON object."""

    def run(*entries):
        path = raw(tmp_path / "a.net", *entries)
        command = [sys.executable, "-m", "spear_deploy.cli", "check", str(path), "--lint", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout)

    code, result = run(dense(weight=W * 0), conv(groups=None))
    assert code == 3 and not result["loads"]
    assert [finding["rule"] for finding in result["findings"]] == ["all-zero", "missing-key", "shapes-do-not-chain"]
    assert set(result["findings"][0]) == {"layer", "rule", "what", "why", "repair", "breaks", "repaired_by_export"}
    code, result = run(dense(**{"neuron/refDelay": 2}))
    assert code == 0 and result["loads"] and result["findings"][0]["rule"] == "refractory"
    assert NEURON["neuron/iDecay"] == 4096
